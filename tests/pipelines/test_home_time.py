"""C1: the layers of one call lie on both sides of an edge; no order of arrival moves its money."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pyarrow as pa
import pytest

from controlplane.core.calendar import Window
from controlplane.pipelines.settle import settle_tick
from controlplane.signals.queries import CallQuery, CostQuery, Granularity
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

EDGES = {
    "minute": datetime(2026, 11, 20, 10, 1, tzinfo=UTC),
    "quarter hour": datetime(2026, 11, 20, 10, 15, tzinfo=UTC),
    "hour": datetime(2026, 11, 20, 11, tzinfo=UTC),
    "month": datetime(2026, 12, 1, tzinfo=UTC),
    "month in India": datetime(2026, 11, 30, 18, 30, tzinfo=UTC),
}
LAYERS = (
    ("client", timedelta(milliseconds=-100), 900),
    ("proxy", timedelta(milliseconds=100), 1_000),
    ("engine", timedelta(milliseconds=400), 5),
)
TENANTS = ("default",)

Rows = Callable[..., pa.Table]
Row = dict[str, Any]


def layered_call(edge: datetime, number: int) -> list[Row]:
    """A client just before the edge, a proxy and an engine after it; the proxy bills."""
    return [
        {
            "trace_lo": number + 1,
            "span_id": 10 * number + at,
            "content_hash": 10 * number + at,
            "start_time": edge + shift,
            "layer": layer,
            "cost_nusd": cost_nusd,
            "response_id": f"chatcmpl-{number:012d}",
        }
        for at, (layer, shift, cost_nusd) in enumerate(LAYERS, start=1)
    ]


@pytest.mark.parametrize("edge", EDGES.values(), ids=EDGES)
def test_money_stays_where_the_billing_report_begins(edge: datetime, span_rows: Rows) -> None:
    """A tick and a roll-up after each report; the bucket after the edge has it all."""
    rows = layered_call(edge, 0)
    orders = list(permutations(rows))
    answers = {_settle_and_ask(edge, [[row] for row in order], span_rows) for order in orders[::2]}
    assert 1 == len(answers)
    store = _settled(edge, [rows], span_rows)
    calls = store.calls(CallQuery(tenants=TENANTS, window=_around(edge))).to_pylist()
    assert [edge + LAYERS[1][1]] == [call["start_time"] for call in calls]
    by_quarter = store.costs(
        CostQuery(tenants=TENANTS, window=_around(edge), granularity=Granularity.QUARTER_HOUR)
    )
    at = edge - timedelta(minutes=edge.minute % 15)
    assert [(at, 1_000, 1)] == [
        (row["bucket_start"], row["cost_nusd"], row["calls"]) for row in by_quarter.to_pylist()
    ]
    store.close()


def test_a_month_that_lost_its_billing_report_to_the_next_forgets_it(span_rows: Rows) -> None:
    """The client's report comes first, and is rolled up, in the month before the proxy's."""
    edge = EDGES["month"]
    client, proxy, engine = layered_call(edge, 0)
    store = DuckDbSpanStore(None)
    query = CostQuery(tenants=TENANTS, window=_around(edge), granularity=Granularity.MONTH)
    months: list[list[tuple[int, int]]] = []
    for number, row in enumerate((client, engine, proxy)):
        store.write(span_rows(row), batch_id=str(number))
        settle_tick(store, now=edge + timedelta(hours=2 + number), ledger=None)
        answer = store.costs(query).to_pylist()
        months.append([(row["bucket_start"].month, row["cost_nusd"]) for row in answer])
    assert [[(11, 900)], [(11, 900)], [(12, 1_000)]] == months
    store.close()


def _settle_and_ask(edge: datetime, batches: Iterable[list[Row]], span_rows: Rows) -> str:
    store = _settled(edge, batches, span_rows)
    window = _around(edge)
    calls = store.calls(CallQuery(tenants=TENANTS, window=window)).to_pylist()
    costs = [
        store.costs(
            CostQuery(tenants=TENANTS, window=window, granularity=granularity, zone="Asia/Kolkata")
        ).to_pylist()
        for granularity in Granularity
    ]
    reasons = store.suppressed([call["call_id"] for call in calls]).to_pylist()
    store.close()
    return repr([[{**call, "version": 0} for call in calls], costs, reasons])


def _settled(edge: datetime, batches: Iterable[list[Row]], span_rows: Rows) -> DuckDbSpanStore:
    store, now = DuckDbSpanStore(None), edge
    for number, rows in enumerate(batches):
        store.write(span_rows(*rows), batch_id=str(number))
        now += timedelta(hours=1)
        settle_tick(store, now=now, ledger=None)
    return store


def _around(edge: datetime) -> Window:
    day = edge.replace(hour=0, minute=0)
    return Window(day - timedelta(days=1), day + timedelta(days=2))
