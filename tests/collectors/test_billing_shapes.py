"""Bills as people save them, and of shapes that nobody documents; amounts by hand from the same text."""

import json
from contextlib import suppress
from datetime import date
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.billing import reading
from collectors.billing.files import read_bill
from collectors.billing.plain import mapping_of
from controlplane.core.errors import ControlPlaneError, InvalidInputError, LimitExceededError
from controlplane.signals.billing import BillLine

COLUMNS = mapping_of("day=Date,cost=Amount,model=Model,quantity=Tokens")


def lines_of(path: Path) -> list[BillLine]:
    told, lines = read_bill(path, mapping=COLUMNS)
    assert 0 == told.rejected_lines, told.rejected
    return lines


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_tables_as_spreadsheets_save_them(tmp_path: Path, mark: str, encoding: str) -> None:
    """Names with blanks about them, any of three separators, with a byte order mark or not."""
    rows = [["Date ", " Amount", "Model", "Tokens"], ["2026-11-02", "1.50", "größer", "12"]]
    path = tmp_path / "bill.csv"
    path.write_text("\r\n".join(mark.join(row) for row in rows), encoding=encoding, newline="")
    (line,) = lines_of(path)
    assert (date(2026, 11, 2), Decimal("1.50"), "größer", 12) == (
        line.day, line.cost_usd, line.model, line.quantity,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "amount"),
    [("1,50", "1.50"), ("1,234", "1.234"), ("-1.234,5", "-1234.5"), ("3.25", "3.25"), ("7", "7")],
)
def test_between_semicolons_a_comma_is_a_decimal_point(
    tmp_path: Path, said: str, amount: str
) -> None:
    """Where a comma separates no cells: 1,50 was a hundred and fifty."""
    path = tmp_path / "bill.csv"
    path.write_text(f"Date;Amount;Model;Tokens\n2026-11-02;{said};m;1\n")
    assert [Decimal(amount)] == [line.cost_usd for line in lines_of(path)]


@pytest.mark.parametrize(
    ("said", "amount"),
    [("1,234.5", "1234.5"), ("-$1,234,567", "-1234567"), ("$ 3", "3"), ("1,5", None),
     ("12,34", None), ("1,234,5", None), ("1,23,456.7", None), ("1.234,5", None)],
)  # fmt: skip
def test_between_commas_a_comma_separates_thousands_or_nothing(
    tmp_path: Path, said: str, amount: str | None
) -> None:
    """What could be read two ways is told and not read."""
    path = tmp_path / "bill.csv"
    path.write_text(f'Date,Amount,Model,Tokens\n2026-11-02,"{said}",m,1\n')
    told, lines = read_bill(path, mapping=COLUMNS)
    assert ([] if amount is None else [Decimal(amount)]) == [line.cost_usd for line in lines]
    assert (amount is None) == bool(told.rejected_lines)


def test_eight_digits_are_a_day_and_ten_are_seconds(tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_text("Date,Amount,Model,Tokens\n20261102,1,m,1\n1793577600,1,m,1\n")
    assert [date(2026, 11, 2)] * 2 == [line.day for line in lines_of(path)]


def test_a_column_that_no_row_has_is_refused_with_those_there_are(tmp_path: Path) -> None:
    """A misspelled amount left a bill of nothing."""
    path = tmp_path / "bill.csv"
    path.write_text("Date,Amuont,Model,Tokens\n2026-11-02,1,m,1\n")
    with pytest.raises(InvalidInputError, match=r"has no Amount.*Amuont"):
        read_bill(path, mapping=COLUMNS)


def test_another_encoding_is_refused_with_the_one_to_save_as(tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_bytes("Date,Amount,Model,Tokens\n2026-11-02,1,größer,1\n".encode("cp1252"))
    with pytest.raises(InvalidInputError, match="Save it as UTF-8"):
        read_bill(path, mapping=COLUMNS)


def test_openai_usage_of_audio_is_beside_that_of_text(tmp_path: Path) -> None:
    """`input_tokens` is text alone (the reference of the usage API)."""
    result = {"input_tokens": 10, "output_tokens": 4, "input_audio_tokens": 300,
              "output_audio_tokens": 200, "num_model_requests": 1, "model": "gpt-audio"}  # fmt: skip
    path = tmp_path / "usage.json"
    path.write_text(json.dumps({"data": [{"start_time": 1760054400, "results": [result]}]}))
    _, lines = read_bill(path)
    assert {"input_uncached": 10, "output": 4, "input_audio": 300, "output_audio": 200} == {
        line.meter: line.quantity for line in lines
    }


DAY = "2026-11-02T00:00:00Z"
ODD: list[Any] = [None, 5, "x", [], [1], {"a": 1}]


def _filled(shape: Any, odd: Any) -> Any:
    """Put something odd where a shape says `?`."""
    if isinstance(shape, dict):
        return {key: _filled(value, odd) for key, value in shape.items()}
    if isinstance(shape, list):
        return [_filled(value, odd) for value in shape]
    return odd if shape == "?" else shape


def _report(start: str, result: dict[str, Any]) -> list[Any]:
    """Every level of a page, and every field of its result."""
    return ["?", ["?"], {"data": "?"}, {"data": ["?"]}, {"data": [{start: DAY, "results": "?"}]},
            {"data": [{start: DAY, "results": ["?"]}]}, {"data": [{start: "?", "results": [result]}]},
            *({"data": [{start: DAY, "results": [{**result, key: "?"}]}]} for key in result)]  # fmt: skip


OPENCOST: dict[str, Any] = {"window": {"start": DAY}, "gpuHours": 1, "totalCost": 1}
ROWS: dict[str, dict[str, Any]] = {
    "litellm": {"spend": 1, "startTime": DAY, "model": "m", "metadata": {"usage_object": {}}},
    "focus": {"BilledCost": 1, "ChargePeriodStart": DAY, "SkuId": "s", "ConsumedUnit": "u",
              "ChargeCategory": "Usage", "x_UsageType": "", "InvoiceId": "i"},
    "aws": {"line_item_usage_type": "x", "line_item_product_code": "AmazonBedrock",
            "line_item_usage_start_date": DAY, "product": {}, "pricing_unit": "u"},
}  # fmt: skip
SHAPES: dict[str, list[Any]] = {
    "openai": [
        *_report("start_time", {"amount": {"value": 1}, "line_item": "m, input", "quantity": 1}),
        *_report("start_time", {"input_tokens": 9, "input_cached_tokens": 1, "model": "m"}),
        {"data": [{"start_time": 1, "results": [{"amount": {"value": "?", "currency": "?"}}]}]},
    ],
    "anthropic": [
        *_report("starting_at", {"amount": "1", "currency": "USD", "model": "m", "token_type": "t"}),
        *_report("starting_at", {"cache_creation": {}, "server_tool_use": {}, "output_tokens": 1}),
    ],
    "opencost": [
        {"code": 200, "data": "?"}, {"code": 200, "data": ["?"]}, {"code": 200, "data": [{"a": "?"}]},
        *({"code": 200, "data": [{"a": {**OPENCOST, key: "?"}}]} for key in OPENCOST),
        {"code": 200, "data": [{"a": {**OPENCOST, "properties": {"labels": "?"}}}]},
        {"code": 200, "data": [{"a": {**OPENCOST, "properties": {"labels": {"model": "?"}}}}]},
    ],
    **{name: [[{**row, key: "?"}] for key in row] for name, row in ROWS.items()},
}  # fmt: skip
SHAPES["litellm"] += [
    [{"spend": 1, "startTime": DAY, "metadata": {"usage_object": "?"}}],
    [{"spend": 1, "startTime": DAY, "metadata": {"usage_object": {"prompt_tokens_details": "?"}}}],
    [{"spend": 1, "startTime": DAY, "metadata": json.dumps([1])}],
]


@pytest.mark.parametrize("source", SHAPES)
def test_documents_of_any_shape_are_read_told_or_refused(tmp_path: Path, source: str) -> None:
    """No shape is a crash: over HTTP that is the server's failure, and says nothing of the file."""
    path = tmp_path / "bill.json"
    kept = told = 0
    for shape, odd in product(SHAPES[source], ODD):
        path.write_text(json.dumps(_filled(shape, odd)))
        for said in (None, source):
            with suppress(ControlPlaneError):
                file, _ = read_bill(path, source=said)
                kept, told = kept + file.lines, told + file.rejected_lines
    assert kept, "the shape itself is one that is read"
    assert told


def _parquet(path: Path, rows: int) -> Path:
    texts = pa.array([f"{n:064d}" for n in range(rows)])
    table = pa.table({"Date": pa.array(["2026-11-02"] * rows), "Amount": texts, "Model": texts})
    pq.write_table(table, path, row_group_size=rows, compression="none", use_dictionary=False)
    return path


def test_a_parquet_bill_is_held_a_batch_at_a_time(tmp_path: Path) -> None:
    """One row group of 20 MB, of which half may be held."""
    path = _parquet(tmp_path / "bill.parquet", 150_000)
    assert 20_000_000 < path.stat().st_size
    before = most = pa.total_allocated_bytes()
    for number, row in enumerate(reading.rows_of(path)):
        assert number == int(row["Model"])
        if number % 1_000 == 0:
            most = max(most, pa.total_allocated_bytes())
    assert 149_999 == number
    assert most - before < path.stat().st_size / 2


def test_a_row_group_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _parquet(tmp_path / "bill.parquet", 100)
    monkeypatch.setattr(reading, "MAX_GROUP_BYTES", 1_000)
    with pytest.raises(LimitExceededError, match="row group"):
        list(reading.rows_of(path))


def test_lines_beyond_what_may_be_held_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_text("Date,Amount,Model,Tokens\n" + "2026-11-02,1,m,1\n" * 3)
    assert 3 == len(read_bill(path, mapping=COLUMNS, most=3)[1])
    with pytest.raises(LimitExceededError, match="lines of a bill"):
        read_bill(path, mapping=COLUMNS, most=2)
