"""Texts of others in files that people open with a spreadsheet."""

import polars as pl
import pyarrow as pa
import pytest

from controlplane.exports import focus_schema
from controlplane.exports.focus_schema import FOCUS_SCHEMA
from controlplane.exports.traces import to_csv

SIGNS = ["=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\t", "\r", "\n", "\x00", "'"]
COMMAND = "cmd|' /C calc'!A0"


def _cells(body: bytes, column: str) -> list[str]:
    return pl.read_csv(body, infer_schema=False)[column].to_list()


@pytest.mark.parametrize("sign", SIGNS)
def test_a_text_that_starts_like_a_formula_is_quoted_and_can_be_read_back(sign: str) -> None:
    """One quote in front; taking one off where a text starts with one gives it back."""
    texts = [f"{sign}{COMMAND}", f"a{sign}b", ""]
    table = pa.table({"team": texts, "cost_nusd": pa.array([-5, 0, 1], pa.int64())})
    body = to_csv(table)
    found = _cells(body, "team")
    assert [f"'{texts[0]}", *texts[1:]] == found
    assert texts == [text.removeprefix("'") for text in found]
    assert ["-0.000000005", "0", "0.000000001"] == _cells(body, "cost_usd")


@pytest.mark.parametrize("sign", SIGNS)
def test_focus_quotes_the_same_texts(sign: str) -> None:
    names = [f"{sign}{COMMAND}", f"a{sign}b"]
    columns = {
        field.name: pa.array(names if field.name == "ResourceName" else [None, None], field.type)
        for field in FOCUS_SCHEMA
    }
    schema = pa.schema([field.with_nullable(nullable=True) for field in FOCUS_SCHEMA])
    table = pa.table(columns, schema=schema)
    assert [f"'{names[0]}", names[1]] == _cells(focus_schema.to_csv(table), "ResourceName")
