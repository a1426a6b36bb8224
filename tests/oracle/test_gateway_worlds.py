"""Clients and a registered gateway report alike calls without ids or traces in common (C3)."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.calendar import Window
from controlplane.ingest.calls import report_rows, settle
from controlplane.ingest.join_flags import with_join_flags
from controlplane.ingest.settlement import EDGE_SCHEMA, Unsettled
from controlplane.pipelines.settle import rebuild, settle_tick
from controlplane.signals.queries import CallQuery
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.oracle.worlds import AT, reports

Row = dict[str, Any]
Rows = Callable[..., pa.Table]
Partition = set[frozenset[int]]


def spans_of(rows: Iterable[Row], span_rows: Rows) -> pa.Table:
    return span_rows(*({k: v for k, v in row.items() if k != "call"} for row in rows))


def truth(rows: Iterable[Row]) -> Partition:
    members: dict[int, set[int]] = {}
    for row in rows:
        members.setdefault(row["call"], set()).add(row["span_id"])
    return {frozenset(spans) for spans in members.values()}


def counted(spans: pa.Table) -> Partition:
    """Partition span ids as settlement does that sees everything at once."""
    grouped = with_join_flags(report_rows(spans))
    settled = settle(Unsettled(1, 0, grouped, spans.select(EDGE_SCHEMA.names)))
    calls: dict[str, set[int]] = {}
    for row in [*settled.calls.to_pylist(), *settled.suppressed.to_pylist()]:
        calls.setdefault(row["call_id"], set()).add(row["span_id"])
    return {frozenset(members) for members in calls.values()}


@settings(max_examples=50)
@given(
    calls=st.integers(1, 20),
    propagates=st.booleans(),
    response_id=st.sampled_from([None, "", "chatcmpl-7", "chatcmpl-constant-for-ever"]),
    gap_ms=st.sampled_from([0, 1, 20, 7_000]),
    start=st.sampled_from([AT, AT + timedelta(seconds=1)]),
    order=st.randoms(use_true_random=False),
)
def test_n_alike_calls_through_a_gateway_are_n(
    calls: int,
    propagates: bool,  # noqa: FBT001 - drawn
    response_id: str | None,
    gap_ms: int,
    start: datetime,
    order: random.Random,
    span_rows: Rows,
) -> None:
    """The k-th client report and the k-th gateway report are one call, whatever arrives first.

    A burst over the turn of a minute is cut there: the count holds, who is whose need not.
    """
    gap = timedelta(milliseconds=gap_ms)
    rows = [
        row
        for call in range(calls)
        for row in reports(
            call,
            layers=("client", "proxy"),
            propagates=propagates,
            start=start + call * gap,
            response_id=response_id,
        )
    ]
    expected = truth(rows)
    order.shuffle(rows)
    found = counted(spans_of(rows, span_rows))
    assert calls == len(found)
    if start != AT and response_id != "chatcmpl-constant-for-ever":  # that joins as ids do
        assert expected == found


@settings(max_examples=50)
@given(
    lost=st.lists(st.sampled_from(["none", "client", "proxy"]), min_size=1, max_size=20),
    order=st.randoms(use_true_random=False),
)
def test_the_count_is_the_larger_layers(
    lost: list[str], order: random.Random, span_rows: Rows
) -> None:
    """Of calls at one instant any layer may lose reports; those of the other are not added."""
    rows = [
        row
        for call, missing in enumerate(lost)
        for row in reports(call, layers=("client", "proxy"), propagates=False, start=AT)
        if row["layer"] != missing
    ]
    layers = Counter(row["layer"] for row in rows)
    order.shuffle(rows)
    assert max(layers.values()) == len(counted(spans_of(rows, span_rows)))


NOT_ALIKE = [
    pytest.param({"gateway": None}, id="no gateway"),
    pytest.param({"gateway": "another"}, id="another gateway"),
    pytest.param({"billing_model": "another"}, id="another model"),
    pytest.param({"input_tokens": 101}, id="more input"),
    pytest.param({"output_tokens": 11}, id="more output"),
    pytest.param({"status": "error"}, id="another ending"),
    pytest.param({"domain": "another"}, id="another organization"),
    pytest.param({"start_time": AT + timedelta(seconds=4)}, id="after the client's call"),
    pytest.param({"start_time": AT - timedelta(seconds=2)}, id="before the client's call"),
    pytest.param({"layer": "client"}, id="a sibling"),
]


@pytest.mark.parametrize("difference", NOT_ALIKE)
def test_what_is_not_alike_never_merges(difference: Row, span_rows: Rows) -> None:
    client, proxy = reports(1, layers=("client", "proxy"), propagates=False, start=AT)
    assert 1 == len(counted(spans_of([client, proxy], span_rows)))
    assert 2 == len(counted(spans_of([client, {**proxy, **difference}], span_rows)))


def test_ids_of_their_own_say_that_two_reports_are_two_calls(span_rows: Rows) -> None:
    client, proxy = reports(1, layers=("client", "proxy"), propagates=False, start=AT)
    client["response_id"], proxy["response_id"] = "chatcmpl-aaaaaaaaaa", "chatcmpl-bbbbbbbbbb"
    assert 2 == len(counted(spans_of([client, proxy], span_rows)))


def test_what_joins_by_more_is_not_matched_by_less(span_rows: Rows) -> None:
    """A traced call beside one without: the trace's own gateway report is not taken by the other."""
    traced = reports(1, layers=("client", "proxy", "engine"), propagates=True, start=AT)
    bare = reports(
        2, layers=("client", "proxy"), propagates=False, start=AT - timedelta(milliseconds=5)
    )
    rows = [*traced, *bare]
    assert truth(rows) == counted(spans_of(rows, span_rows))


def test_long_and_short_calls_leave_none_unmatched(span_rows: Rows) -> None:
    """The first gateway report is the short call's: k-th with k-th would leave two alone."""
    long, _ = reports(1, layers=("client", "proxy"), propagates=False, start=AT)
    short, first = reports(
        2, layers=("client", "proxy"), propagates=False, start=AT + timedelta(milliseconds=10)
    )
    _, last = reports(
        3, layers=("client", "proxy"), propagates=False, start=AT + timedelta(seconds=8)
    )
    long["duration_us"], short["duration_us"] = 10_000_000, 100_000
    rows = [long, short, first, last]
    expected = {
        frozenset({long["span_id"], last["span_id"]}),
        frozenset({short["span_id"], first["span_id"]}),
    }
    assert expected == counted(spans_of(rows, span_rows))


def _settled(batches: Iterable[Iterable[Row]], span_rows: Rows) -> tuple[str, str]:
    """Settle after each batch; what the store says then, and what its rebuild says."""
    store, again = DuckDbSpanStore(None), DuckDbSpanStore(None)
    now = AT + timedelta(hours=1)
    for number, rows in enumerate(batches):
        store.write(spans_of(rows, span_rows), batch_id=str(number))
        settle_tick(store, now=now, ledger=None)
    rebuild(store, again, now=now)
    answers = _answer(store), _answer(again)
    store.close()
    again.close()
    return answers


def _answer(store: DuckDbSpanStore) -> str:
    window = Window(AT - timedelta(days=1), AT + timedelta(days=1))
    calls = store.calls(CallQuery(tenants=("default",), window=window, limit=1_000))
    names = [name for name in calls.column_names if name != "version"]
    reasons = store.suppressed([str(call) for call in calls.column("call_id").to_pylist()])
    return repr([calls.select(names).to_pylist(), reasons.to_pylist()])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_minutes_are_matched_alike_however_they_come(
    seed: int,
    span_rows: Rows,
    full_size: bool,  # noqa: FBT001 - a fixture
) -> None:
    """Half an hour of a busy group, a few reports a tick: each tick reads its minutes alone."""
    rng = random.Random(seed)
    rows = [
        row
        for call in range(150 if full_size else 60)
        for row in reports(
            call,
            layers=("client", "proxy"),
            propagates=rng.random() < 0.2,
            start=AT + timedelta(seconds=rng.randrange(0, 1_800 if full_size else 720, 12)),
            duration_us=rng.choice([100_000, 2_000_000, 30_000_000]),
        )
        if rng.random() < 0.9
    ]
    whole = counted(spans_of(rows, span_rows))
    rng.shuffle(rows)
    settled, rebuilt = _settled([rows[n : n + 12] for n in range(0, len(rows), 12)], span_rows)
    assert settled == rebuilt
    assert len(whole) == settled.count("'call_id'") - settled.count("'reason'")
