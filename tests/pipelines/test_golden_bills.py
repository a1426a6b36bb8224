"""Recorded bills with one residual each: found, named, and everything else explained."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from collectors.billing.files import read_bill
from controlplane.pipelines.reconcile import reconcile_bill
from controlplane.pipelines.reconcile_ledger import ReconcileRequest
from controlplane.pricing.price_book import PriceBook
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.usage.reconcile import CLASSES
from tests.pipelines import golden_bills as golden
from tests.pipelines.golden_calls import FOLDER

EXPECTED: dict[str, str] = json.loads((FOLDER / "expected.json").read_text())


def test_every_class_has_a_recorded_bill() -> None:
    """And the files are what the script beside them writes."""
    assert {*CLASSES} - {"booked_later"} == {*EXPECTED}  # that one is of the ledger: test_reconcile
    assert EXPECTED == golden.EXPECTED
    for name in EXPECTED:
        recorded = (FOLDER / f"{name}.openai.json").read_text(encoding="utf-8")
        assert golden.page(golden.planted(name)) == recorded


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_planted_residual_is_found_and_named(
    billed: DuckDbSpanStore, book: PriceBook, name: str
) -> None:
    """Its class has the amount to the nano-dollar; but for its own bill, under 1 % is unexplained."""
    file, lines = read_bill(Path(FOLDER / f"{name}.openai.json"))
    assert ("openai", 0) == (file.source, file.rejected_lines)
    asked = ReconcileRequest(tenants=("acme",), provider="openai")
    report = reconcile_bill(billed, book, ([file], lines), asked=asked)
    found = {key: Decimal(usd) for key, usd in report.classes.items() if Decimal(usd)}
    assert {name: Decimal(EXPECTED[name])} == found
    if name != "unexplained":
        assert report.unexplained_ratio < 0.01
        assert report.within_tolerance
