"""Generated worlds: what really happened is known, so how many calls there are is, too.

A world is a few real calls, alike in model, usage and time, reported by some layers in some order.
The expected partition is the world's own: a report belongs to the call that made it.
"""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.ingest.calls import report_rows, settle
from controlplane.ingest.join_flags import with_join_flags
from controlplane.ingest.settlement import EDGE_SCHEMA, Unsettled
from tests.oracle.worlds import IDS, world

Row = dict[str, Any]
Rows = Callable[..., pa.Table]
Partition = set[frozenset[int]]


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
