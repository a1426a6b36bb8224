"""Generated worlds: what really happened is known, so how many calls there are is, too.

A world is a few real calls, alike in model, usage and time, reported by some layers in some order.
The expected partition is the world's own: a report belongs to the call that made it.
"""

import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice, permutations
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.calendar import Window
from controlplane.ingest.calls import report_rows, settle
from controlplane.ingest.join_flags import with_join_flags
from controlplane.ingest.settlement import EDGE_SCHEMA, Unsettled
from controlplane.pipelines.settle import settle_tick
from controlplane.signals.queries import CallQuery
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

AT = datetime(2026, 11, 30, 23, 59, 59, 900_000, tzinfo=UTC)
"""Just before a month ends: layers of one call start on both sides."""

Row = dict[str, Any]
Rows = Callable[..., pa.Table]
Partition = set[frozenset[int]]

LAYERS = {
    "client": "opentelemetry.instrumentation.openai.v1",
    "proxy": "litellm",
    "engine": "sglang server",
}
IDS: dict[str, Callable[[int], str | None]] = {
    "unique": lambda call: f"chatcmpl-{call:012d}",
    "none": lambda _: None,
    "empty": lambda _: "",
    "small": lambda call: f"chatcmpl-{call % 3}",
    "constant": lambda _: "chatcmpl-constant-for-ever",
    "reused": lambda call: f"chatcmpl-{call % 2:012d}",
}


def world(
    calls: int, *, layers: Iterable[str], ids: str, propagates: bool, in_one_trace: bool = False
) -> tuple[list[Row], list[int]]:
    """Return reports and the real call of each; every call starts at the same instant."""
    rows: list[Row] = []
    owner: list[int] = []
    for call in range(calls):
        above = 0
        for depth, layer in enumerate(layers):
            number = len(rows) + 1
            own_trace = call + 1 if propagates else number
            rows.append(
                {
                    "trace_lo": 1 if in_one_trace else own_trace,
                    "span_id": number,
                    "parent_span_id": above if propagates else 0,
                    "content_hash": number,
                    "start_time": AT + timedelta(milliseconds=60 * depth),
                    "duration_us": 2_000_000 - 200_000 * depth,
                    "layer": layer,
                    "scope_name": LAYERS[layer],
                    "response_id": IDS[ids](call),
                }
            )
            owner.append(call)
            above = number
    return rows, owner


def counted(spans: pa.Table) -> Partition:
    """Partition span ids as settlement does that sees everything at once."""
    unsettled = Unsettled(
        through=1,
        lone_reports=0,
        grouped=with_join_flags(report_rows(spans)),
        edges=spans.select(EDGE_SCHEMA.names),
    )
    settled = settle(unsettled)
    calls: dict[str, set[int]] = {}
    for row in [*settled.calls.to_pylist(), *settled.suppressed.to_pylist()]:
        calls.setdefault(row["call_id"], set()).add(row["span_id"])
    return {frozenset(members) for members in calls.values()}


def truth(rows: list[Row], owner: list[int]) -> Partition:
    calls: dict[int, set[int]] = {}
    for row, call in zip(rows, owner, strict=True):
        calls.setdefault(call, set()).add(row["span_id"])
    return {frozenset(members) for members in calls.values()}


some_layers = st.sampled_from(
    [
        *(("client",), ("proxy",), ("client", "proxy"), ("proxy", "engine"), ("client", "engine")),
        ("client", "proxy", "engine"),
    ]
)


@settings(max_examples=50)
@given(
    calls=st.integers(1, 20),
    layers=some_layers,
    ids=st.sampled_from(sorted(IDS)),
    in_one_trace=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_with_propagation_alike_calls_are_counted_exactly(
    calls: int,
    layers: tuple[str, ...],
    ids: str,
    in_one_trace: bool,  # noqa: FBT001 - drawn
    order: random.Random,
    span_rows: Rows,
) -> None:
    """Whatever the ids are, in one trace or each call in its own: n calls are n."""
    rows, owner = world(calls, layers=layers, ids=ids, propagates=True, in_one_trace=in_one_trace)
    expected = truth(rows, owner)
    order.shuffle(rows)
    found = counted(span_rows(*rows))
    assert calls == len(found)
    if not (in_one_trace and ids in {"constant", "reused"}):
        assert expected == found  # else one id in one trace: who answered whom is unknowable


@settings(max_examples=50)
@given(
    calls=st.integers(1, 20),
    layers=some_layers,
    ids=st.sampled_from(sorted(IDS)),
    order=st.randoms(use_true_random=False),
)
def test_without_propagation_siblings_never_merge(
    calls: int, layers: tuple[str, ...], ids: str, order: random.Random, span_rows: Rows
) -> None:
    """Only an id of a call's own joins its layers; a shared, small or missing one merges nothing."""
    rows, owner = world(calls, layers=layers, ids=ids, propagates=False)
    layer_of = {row["span_id"]: row["layer"] for row in rows}
    expected = truth(rows, owner)
    order.shuffle(rows)
    found = counted(span_rows(*rows))
    for members in found:
        assert len(members) == len({layer_of[span] for span in members})
    assert len(found) >= calls
    if ids == "unique":
        assert expected == found
    if ids in {"none", "empty", "small"}:
        assert len(rows) == len(found)


@pytest.mark.parametrize("calls", [1, 16, 17, 200])
def test_a_constant_id_never_hides_a_call(calls: int, span_rows: Rows) -> None:
    """One after the other, a second apart, so that each is near its neighbors."""
    rows, _ = world(calls, layers=("client", "proxy"), ids="constant", propagates=False)
    for row in rows:
        row["start_time"] += timedelta(seconds=row["span_id"] // 2)
    assert len(counted(span_rows(*rows))) >= calls


SMALL_WORLDS = [
    pytest.param(*world(calls, layers=layers, ids=ids, propagates=propagates), id=name)
    for name, calls, layers, ids, propagates in (
        ("three layers by id", 2, tuple(LAYERS), "unique", False),
        ("three layers by trace", 2, tuple(LAYERS), "none", True),
        ("a constant id", 3, ("client", "proxy"), "constant", False),
        ("a constant id in traces", 3, ("client", "proxy"), "constant", True),
        ("reused ids", 3, ("client", "proxy"), "reused", True),
        ("small ids", 6, ("engine",), "small", False),
    )
]


def mixed_world() -> list[Row]:
    """A call of three layers, a retry that failed, a revision, and a span of another call."""
    (client, proxy, engine), _ = world(1, layers=tuple(LAYERS), ids="unique", propagates=True)
    lost = {"response_id": None, "status": "error", "usage_state": "absent", "input_tokens": None}
    failed = {**proxy, **lost, "span_id": 4, "content_hash": 4, "start_time": AT}
    pending = {**client, "content_hash": 5, "duration_us": 0, "usage_state": "absent"}
    other = {**client, "span_id": 6, "content_hash": 6, "response_id": "chatcmpl-another-one"}
    return [client, proxy, engine, failed, pending, other]


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "owner"), SMALL_WORLDS)
def test_every_order_of_six_reports_gives_the_same_calls(
    rows: list[Row],
    owner: list[int],
    span_rows: Rows,
    full_size: bool,  # noqa: FBT001 - a fixture
) -> None:
    """All 720 at full size; at representative size every fifth of them."""
    del owner
    assert len(rows) == 6
    first = counted(span_rows(*rows))
    spans = span_rows(*rows)
    orders = islice(permutations(range(len(rows))), 0, None, 1 if full_size else 5)
    assert all(first == counted(spans.take(pa.array(order))) for order in orders)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    [*(param.values[0] for param in SMALL_WORLDS), mixed_world()],
    ids=[*(str(param.id) for param in SMALL_WORLDS), "mixed"],
)
def test_a_store_settles_any_arrival_to_the_same_answer(
    rows: list[Row],
    span_rows: Rows,
    full_size: bool,  # noqa: FBT001 - a fixture
) -> None:
    """A tick after each report, in every order (a seeded few of them at representative size)."""
    orders = list(permutations(rows))
    if not full_size:
        orders = random.Random(len(str(rows))).sample(orders, 2)
    answers = {_settled_one_by_one(order, span_rows) for order in orders}
    assert 1 == len(answers)


def _settled_one_by_one(rows: Iterable[Row], span_rows: Rows) -> str:
    store = DuckDbSpanStore(None)
    now = AT + timedelta(minutes=1)
    for number, row in enumerate(rows):
        store.write(span_rows(row), batch_id=str(number))
        settle_tick(store, now=now, ledger=None)
    window = Window(AT - timedelta(days=1), AT + timedelta(days=1))
    calls = store.calls(CallQuery(tenants=("default",), window=window))
    names = [name for name in calls.column_names if name != "version"]
    reasons = store.suppressed([str(call) for call in calls.column("call_id").to_pylist()])
    store.close()
    return repr([calls.select(names).to_pylist(), reasons.to_pylist()])
