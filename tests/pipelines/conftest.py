"""What flows are tested with: the seeded book, compiled once, and the calls that recorded bills are about."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.pipelines import golden_bill_formats, golden_bills, golden_cur_bills
from tests.pipelines.golden_calls import calls
from tests.priced_calls import priced

BILLED = {
    "openai": golden_bills.MODEL,
    "anthropic": golden_bill_formats.MODEL,
    "aws.bedrock": golden_cur_bills.MODEL,
}
"""The model of each provider that has recorded bills."""


@pytest.fixture(scope="session")
def book() -> PriceBook:
    """The seeded book; it remembers what was looked up and changes in nothing else."""
    return PriceBook(seed_version(), listed_providers())


@pytest.fixture(scope="session")
def billed(span_rows: Callable[..., pa.Table], book: PriceBook) -> DuckDbSpanStore:
    """The calls that every bill is about, once a provider; read it only."""
    made = [(*call, who) for who in BILLED for call in calls()]
    rows: list[dict[str, Any]] = [
        {"tenant": "acme", "trace_lo": n + 1, "span_id": n + 1, "content_hash": n, "start_time": at,
         "provider": who, "billing_model": BILLED[who], "input_tokens": fresh + cached,
         "cached_input_tokens": cached, "output_tokens": out, "input_uncached": fresh,
         "cache_read": cached or None, "output_text": out}
        for n, (at, fresh, cached, out, who) in enumerate(made)
    ]  # fmt: skip
    store = DuckDbSpanStore(None)
    store.write(priced(span_rows, rows, book), batch_id="b")
    settle_tick(store, now=calls()[-1][0], ledger=None)
    return store
