"""Recorded bills with one residual each: found, named, and everything else explained."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from collectors.billing.files import read_bill
from controlplane.pipelines.reconcile import ReconcileRequest, reconcile_bill
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.usage.reconcile import CLASSES
from tests.pipelines import golden_bills as golden
from tests.pipelines.golden_calls import FOLDER, calls
from tests.priced_calls import priced

EXPECTED: dict[str, str] = json.loads((FOLDER / "expected.json").read_text())


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook(seed_version(), listed_providers())


@pytest.fixture(scope="module")
def store(span_rows: Callable[..., pa.Table], book: PriceBook) -> DuckDbSpanStore:
    """The calls that every bill is about, priced by the book."""
    rows: list[dict[str, Any]] = [
        {"tenant": "acme", "trace_lo": n + 1, "span_id": n + 1, "content_hash": n, "start_time": at,
         "billing_model": golden.MODEL, "input_tokens": fresh + cached,
         "cached_input_tokens": cached, "output_tokens": out, "input_uncached": fresh,
         "cache_read": cached or None, "output_text": out}
        for n, (at, fresh, cached, out) in enumerate(calls())
    ]  # fmt: skip
    store = DuckDbSpanStore(None)
    store.write(priced(span_rows, rows, book), batch_id="b")
    settle_tick(store, now=calls()[-1][0], ledger=None)
    return store


def test_every_class_has_a_recorded_bill() -> None:
    """And the files are what the script beside them writes."""
    assert {*CLASSES} - {"booked_later"} == {*EXPECTED}  # that one is of the ledger: test_reconcile
    assert EXPECTED == golden.EXPECTED
    for name in EXPECTED:
        recorded = (FOLDER / f"{name}.openai.json").read_text(encoding="utf-8")
        assert golden.page(golden.planted(name)) == recorded


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_planted_residual_is_found_and_named(
    store: DuckDbSpanStore, book: PriceBook, name: str
) -> None:
    """Its class has the amount to the nano-dollar; but for its own bill, under 1 % is unexplained."""
    file, lines = read_bill(Path(FOLDER / f"{name}.openai.json"))
    assert ("openai", 0) == (file.source, file.rejected_lines)
    asked = ReconcileRequest(tenants=("acme",), provider="openai")
    report = reconcile_bill(store, book, ([file], lines), asked=asked)
    found = {key: Decimal(usd) for key, usd in report.classes.items() if Decimal(usd)}
    assert {name: Decimal(EXPECTED[name])} == found
    if name != "unexplained":
        assert report.unexplained_ratio < 0.01
        assert report.within_tolerance
