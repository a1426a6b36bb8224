"""AWS' recorded reports: each residual found and named, though no line says the model as it is called."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from collectors.billing.files import read_bill
from controlplane.pipelines.reconcile import ReconcileRequest, reconcile_bill
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.pipelines import golden_cur_bills as golden
from tests.pipelines.golden_calls import FOLDER, calls
from tests.priced_calls import priced


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook(seed_version(), listed_providers())


@pytest.fixture(scope="module")
def store(span_rows: Callable[..., pa.Table], book: PriceBook) -> DuckDbSpanStore:
    """The calls that every bill is about, priced by the book."""
    rows: list[dict[str, Any]] = [
        {"tenant": "acme", "trace_lo": n + 1, "span_id": n + 1, "content_hash": n, "start_time": at,
         "provider": "aws.bedrock", "billing_model": golden.MODEL, "input_tokens": fresh + cached,
         "cached_input_tokens": cached, "output_tokens": out, "input_uncached": fresh,
         "cache_read": cached or None, "output_text": out}
        for n, (at, fresh, cached, out) in enumerate(calls())
    ]  # fmt: skip
    store = DuckDbSpanStore(None)
    store.write(priced(span_rows, rows, book), batch_id="b")
    settle_tick(store, now=calls()[-1][0], ledger=None)
    return store


@pytest.mark.parametrize("name", golden.EXPECTED)
def test_the_planted_residual_is_found_and_named(
    store: DuckDbSpanStore, book: PriceBook, name: str
) -> None:
    """The file is what the script writes; its class has the amount, and no other has any."""
    path = FOLDER / f"{name}.cur.csv"
    assert golden.report(golden.planted(name)) == path.read_text(encoding="utf-8")
    file, bill = read_bill(path)
    assert ("aws", 0) == (file.source, file.rejected_lines)
    asked = ReconcileRequest(tenants=("acme",), provider="aws.bedrock")
    report = reconcile_bill(store, book, ([file], bill), asked=asked)
    found = {key: Decimal(usd) for key, usd in report.classes.items() if Decimal(usd)}
    assert {name: Decimal(golden.EXPECTED[name])} == found
    assert (name != "unexplained") == report.within_tolerance
