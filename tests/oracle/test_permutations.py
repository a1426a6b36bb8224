"""Whatever arrives first, a tick after each report, a store settles to the statement's answer.

Every order is an organisation of its own in one store, so that a tick takes the next report of all
of them: six ticks are all 720 orders of six reports.
"""

import json
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, permutations
from typing import Any

import pyarrow as pa
import pytest

from controlplane.core.calendar import Window
from controlplane.pipelines.settle import settle_tick
from controlplane.signals.queries import CallQuery
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.oracle.settle_rows import DEPTH, identity, reference
from tests.oracle.worlds import AT, LAYERS, burst, chain, mixed_world, world

Row = dict[str, Any]
Rows = Callable[..., pa.Table]
Answer = set[tuple[tuple[Any, ...], frozenset[tuple[Any, ...]]]]
Orders = Sequence[Sequence[Row]]

SHIFT = 1 << 20
"""Traces of one organisation are its own: ids of the n-th are moved by n times this."""

CLIENT_PROXY = ("client", "proxy")
COMPONENTS: dict[str, list[Row]] = {
    "three layers by id": world(2, layers=LAYERS, ids="unique", propagates=False)[0],
    "three layers by trace": world(2, layers=LAYERS, ids="none", propagates=True)[0],
    "a constant id": world(3, layers=CLIENT_PROXY, ids="constant", propagates=False)[0],
    "a constant id in traces": world(3, layers=CLIENT_PROXY, ids="constant", propagates=True)[0],
    "reused ids": world(3, layers=CLIENT_PROXY, ids="reused", propagates=True)[0],
    "small ids": world(6, layers=("engine",), ids="small", propagates=False)[0],
    "a retry, a revision, another call": mixed_world(),
    "a gateway's burst": burst(3),
    "a gateway's chain of minutes": chain(3),
    "a gateway's lost reports": [*burst(2)[:3], *chain(2)[:3]],
}


def plain(rows: Iterable[Row]) -> list[Row]:
    """Give reports of different calls ids of their own, and drop what is only told to the test."""
    told = [{key: value for key, value in row.items() if key != "call"} for row in rows]
    named = [(row["trace_lo"], row["span_id"], row["content_hash"]) for row in told]
    if len(set(named)) < len(named):  # two worlds side by side
        told = [{**r, "trace_lo": n, "span_id": n} for n, r in enumerate(told, start=1)]
    return told


def settled(orders: Orders, span_rows: Rows, *, at_once: int = 1) -> list[Answer]:
    """Settle organisations side by side, a tick after each few reports; what each then has."""
    store = DuckDbSpanStore(None)
    for first in range(0, max(map(len, orders)), at_once):
        batch = [
            {**row, "domain": f"d{n}", "tenant": f"t{n}", "trace_lo": n * SHIFT + row["trace_lo"]}
            for n, rows in enumerate(orders)
            for row in rows[first : first + at_once]
        ]
        store.write(span_rows(*batch), batch_id=str(first))
        settle_tick(store, now=AT + timedelta(days=2), ledger=None)
    answers = [_answer(store, n) for n in range(len(orders))]
    store.close()
    return answers


def _answer(store: DuckDbSpanStore, n: int) -> Answer:
    window = Window(AT - timedelta(days=20), AT + timedelta(days=20))
    query = CallQuery(tenants=(f"t{n}",), window=window, limit=1_000)
    calls = store.calls(query).to_pylist()
    members = {call["call_id"]: {_unmoved(call, n)} for call in calls}
    for row in store.suppressed(list(members)).to_pylist():
        members[row["call_id"]].add(_unmoved(row, n))
    return {(_unmoved(call, n), frozenset(members[call["call_id"]])) for call in calls}


def _unmoved(row: Row, n: int) -> tuple[Any, ...]:
    return identity({**row, "domain": "default", "trace_lo": row["trace_lo"] - n * SHIFT})


def drawn_set(draw: random.Random, reports: int) -> list[Row]:
    """Draw confusable reports; of equal identity and content one, as a store keeps."""
    start = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    rows: dict[tuple[Any, ...], Row] = {}
    for _ in range(reports):
        row = {
            "trace_lo": draw.choice([1, 1, 2, 3, 4]),
            "span_id": draw.randint(1, 24),
            "parent_span_id": draw.randint(0, 24),
            "content_hash": draw.randint(1, 3),
            "start_time": start + timedelta(seconds=draw.choice([0, 1, 3, 59, 61, 119, 86_399])),
            "duration_us": draw.choice([0, 500_000, 2_000_000, 120_000_000]),
            "report_kind": draw.choice(["call", "call", "call", "none", "aggregate"]),
            "layer": draw.choice(["client", "client", "proxy", "engine"]),
            "key_role": draw.choice(["unknown", "unknown", "client", "proxy", "engine"]),
            "scope_name": draw.choice(sorted(DEPTH)),
            "response_id": draw.choice([None, "chatcmpl-aaaaaaaa", "chatcmpl-bbbbbbbb", "x-12"]),
            "gateway_call_id": draw.choice([None, None, None, "gw-cccccccc"]),
            "gateway": draw.choice([None, "gate"]),
            "status": draw.choice(["ok", "ok", "error"]),
            "usage_state": draw.choice(["exact", "exact", "unknown"]),
            "input_tokens": draw.choice([10, 10, 20]),
            "cost_nusd": draw.choice([5, 5, 9, None]),
            "cost_state": draw.choice(["priced", "priced", "free", "unpriced"]),
            "billing_model": draw.choice(["m", "m", "n"]),
        }
        key = (row["start_time"], row["trace_lo"], row["span_id"], row["content_hash"])
        rows.setdefault(key, row)
    return list(rows.values())


def stated(rows: Iterable[Row], span_rows: Rows) -> Answer:
    return reference(span_rows(*rows).to_pylist())


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_every_order_settles_to_the_statements_answer(
    span_rows: Rows,
    full_size: bool,  # noqa: FBT001 - a fixture
    write_proof: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All orders of six reports, and larger drawn sets in drawn orders; fewer of both in CI."""
    wrong: list[str] = []
    orders = 0
    for name, rows in COMPONENTS.items():
        reports = plain(rows)
        assert 6 == len(reports)
        tried = list(islice(permutations(reports), 0, None, 1 if full_size else 120))
        orders += len(tried)
        expected = stated(reports, span_rows)
        wrong += [name for answer in settled(tried, span_rows) if answer != expected]
    draw = random.Random(36)
    sets = [drawn_set(draw, draw.randint(7, 40)) for _ in range(1_000 if full_size else 16)]
    for first in range(0, len(sets), 250):
        some = sets[first : first + 250]
        answers = settled([draw.sample(s, len(s)) for s in some], span_rows, at_once=3)
        for number, (rows, answer) in enumerate(zip(some, answers, strict=True), start=first):
            if answer != stated(rows, span_rows):
                wrong.append(f"drawn set {number}")
    figures = {
        "components": len(COMPONENTS),
        "orders_of_six": orders,
        "drawn_sets": len(sets),
        "drawn_reports_max": max(map(len, sets)),
        "wrong": wrong,
        "is_within_limits": not wrong,
    }
    with capsys.disabled():
        sys.stdout.write(json.dumps(figures) + "\n")
    write_proof("permutations", figures)
    assert not wrong
