"""The recorded bills of other forms: each residual found, named and exact."""

from decimal import Decimal

import pytest

from collectors.billing.files import read_bill
from collectors.billing.plain import mapping_of
from controlplane.pipelines.reconcile import reconcile_bill
from controlplane.pipelines.reconcile_ledger import ReconcileRequest
from controlplane.pricing.price_book import PriceBook
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.usage.reconcile import CLASSES
from tests.pipelines import golden_bill_formats as golden
from tests.pipelines.golden_calls import FOLDER

CASES = [
    (source, name)
    for source in golden.FORMATS
    for name in golden.EXPECTED
    if (source, name) not in golden.WITHOUT
]


def test_every_class_is_planted() -> None:
    """What was booked later is in no bill but in the ledger: `test_reconcile` plants it."""
    assert {*CLASSES} - {"booked_later"} == {*golden.EXPECTED}


@pytest.mark.parametrize(("source", "name"), CASES)
def test_the_planted_residual_is_found_and_named(
    billed: DuckDbSpanStore, book: PriceBook, source: str, name: str
) -> None:
    """The file is what the script writes; its class has the amount, and no other has any."""
    ending, write = golden.FORMATS[source]
    path = FOLDER / f"{name}.{ending}"
    assert write(golden.planted(source, name)) == path.read_text(encoding="utf-8")
    mapping = mapping_of(golden.PLAIN) if source == "plain" else None
    file, bill = read_bill(path, mapping=mapping)
    assert (source, 0) == (file.source, file.rejected_lines)
    asked = ReconcileRequest(tenants=("acme",), provider="anthropic")
    report = reconcile_bill(billed, book, ([file], bill), asked=asked)
    found = {key: Decimal(usd) for key, usd in report.classes.items() if Decimal(usd)}
    assert {name: golden.expected(source, name)} == found
    assert (name != "unexplained") == report.within_tolerance
