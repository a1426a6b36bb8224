"""Every recorded producer is known, and its sums and wrappers never bill (tests/conformance has
the calls).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.ingest.normalize import normalize
from controlplane.ingest.otlp import Decoded

CORPUS = Path(__file__).parents[2] / "corpus"


def scenarios() -> list[Path]:
    return sorted(CORPUS.rglob("*.expected.json"))


def name_of(path: Path) -> str:
    relative = path.relative_to(CORPUS).as_posix()
    return relative.removesuffix(".expected.json")


def rows_of(path: Path, decode: Callable[..., Decoded]) -> dict[str, dict[str, Any]]:
    expected = json.loads(path.read_text())
    rows: list[dict[str, Any]] = []
    for payload in expected["payloads"]:
        decoded = decode((path.parent / payload).read_bytes(), json=payload.endswith(".json"))
        assert decoded.rejected == {}
        rows += normalize(decoded).to_pylist()
    return {f"{row['span_id']:016x}": row for row in rows}


@pytest.mark.parametrize("path", scenarios(), ids=name_of)
def test_sums_and_wrappers_never_bill(path: Path, decode: Callable[..., Decoded]) -> None:
    rows = rows_of(path, decode)
    for aggregate in json.loads(path.read_text())["aggregate_spans"]:
        row = rows.get(aggregate["span_id"])
        assert row is None or row["report_kind"] != "call"


def test_no_recorded_producer_is_unknown(decode: Callable[..., Decoded]) -> None:
    unknown = {
        (name_of(path), row["scope_name"])
        for path in scenarios()
        for row in rows_of(path, decode).values()
        if row["dialect"] == "generic" and row["report_kind"] != "none"
    }
    assert set() == unknown
