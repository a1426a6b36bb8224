"""AWS' recorded reports: each residual found and named, though no line says the model as it is called."""

from decimal import Decimal

import pytest

from collectors.billing.files import read_bill
from controlplane.pipelines.reconcile import reconcile_bill
from controlplane.pipelines.reconcile_ledger import ReconcileRequest
from controlplane.pricing.price_book import PriceBook
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.pipelines import golden_cur_bills as golden
from tests.pipelines.golden_calls import FOLDER


@pytest.mark.parametrize("name", golden.EXPECTED)
def test_the_planted_residual_is_found_and_named(
    billed: DuckDbSpanStore, book: PriceBook, name: str
) -> None:
    """The file is what the script writes; its class has the amount, and no other has any."""
    path = FOLDER / f"{name}.cur.csv"
    assert golden.report(golden.planted(name)) == path.read_text(encoding="utf-8")
    file, bill = read_bill(path)
    assert ("aws", 0) == (file.source, file.rejected_lines)
    asked = ReconcileRequest(tenants=("acme",), provider="aws.bedrock")
    report = reconcile_bill(billed, book, ([file], bill), asked=asked)
    found = {key: Decimal(usd) for key, usd in report.classes.items() if Decimal(usd)}
    assert {name: Decimal(golden.EXPECTED[name])} == found
    assert (name != "unexplained") == report.within_tolerance
