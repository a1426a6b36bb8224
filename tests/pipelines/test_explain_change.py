"""From a real store: what a change's terms explain is the change that cost answers show."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from controlplane.core.calendar import Window
from controlplane.pipelines.explain_change import explain_change
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.queries import CostQuery
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.usage.change import total_of
from tests.priced_calls import draw_calls, priced

START = datetime(2026, 3, 1, tzinfo=UTC)
BEFORE = Window(START, START + timedelta(days=3))
AFTER = Window(START + timedelta(days=4), START + timedelta(days=9))
Rows = Callable[..., pa.Table]


@pytest.fixture(scope="module")
def store(span_rows: Rows, book: PriceBook) -> DuckDbSpanStore:
    calls = draw_calls(5, 400, Window(START, AFTER.end))
    for call in calls[::25]:  # an id that a second call has too
        call["response_id"] = f"chatcmpl-{call['trace_lo'] // 50:012d}"
    store = DuckDbSpanStore(None)
    store.write(priced(span_rows, calls, book), batch_id="b")
    for hours in range(3):
        settle_tick(store, now=AFTER.end + timedelta(hours=hours), ledger=None)
    return store


@pytest.mark.parametrize(
    "group_by", [(), ("team",), ("model",), ("team", "feature"), ("user",), ("status", "price_id")]
)
def test_terms_are_the_change_of_the_cost_answers(
    store: DuckDbSpanStore, book: PriceBook, group_by: tuple[str, ...]
) -> None:
    """Per group and in all; from rollups and from calls."""
    query = CostQuery(tenants=("acme",), window=AFTER, group_by=group_by)
    explained = explain_change(store, book, query, before=BEFORE)
    shown = [
        {
            tuple(row[name] for name in group_by): row["cost_nusd"]
            for row in store.costs(
                CostQuery(tenants=("acme",), window=window, group_by=group_by)
            ).to_pylist()
        }
        for window in (BEFORE, AFTER)
    ]
    assert explained.duplicates_sought
    for change in explained.changes:
        old, new = (side.get(change.group, 0) for side in shown)
        assert (old, new) == (change.before_nusd, change.after_nusd)
        assert new - old == sum(change.terms.values())
    assert shown[0].keys() | shown[1].keys() == {change.group for change in explained.changes}
    total = total_of(explained.changes)
    assert sum(shown[1].values()) - sum(shown[0].values()) == sum(total.terms.values())


def test_what_is_sought_among_calls_is_left_out_of_long_windows(
    store: DuckDbSpanStore, book: PriceBook
) -> None:
    """And the answer says so; it still adds up."""
    long = Window(START - timedelta(days=40), AFTER.end)
    query = CostQuery(tenants=("acme",), window=AFTER)
    explained = explain_change(store, book, query, before=long)
    assert not explained.duplicates_sought
    (change,) = explained.changes
    assert 0 == change.terms["duplicates"]
    assert change.after_nusd - change.before_nusd == sum(change.terms.values())
