"""Settlement said row by row, from algorithms C1-C6 alone; the shipped one must agree."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from controlplane.ingest.calls import report_rows, settle
from controlplane.ingest.join_flags import with_join_flags
from controlplane.ingest.settlement import EDGE_SCHEMA, Unsettled
from tests.oracle.settle_rows import DEPTH, identity, reference

AT = datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)
Row = dict[str, Any]


def shipped(spans: pa.Table) -> set[tuple[tuple[Any, ...], frozenset[tuple[Any, ...]]]]:
    settled = settle(
        Unsettled(
            through=1,
            lone_reports=0,
            grouped=with_join_flags(report_rows(spans)),
            edges=spans.select(EDGE_SCHEMA.names),
        )
    )
    members: dict[str, set[tuple[Any, ...]]] = {}
    billing = {row["call_id"]: identity(row) for row in settled.calls.to_pylist()}
    for row in [*settled.calls.to_pylist(), *settled.suppressed.to_pylist()]:
        members.setdefault(row["call_id"], set()).add(identity(row))
    return {(billing[call], frozenset(rows)) for call, rows in members.items()}


roles = st.sampled_from(["unknown", "unknown", "client", "proxy", "engine", "agent"])
ids = st.sampled_from([None, None, "chatcmpl-aaaaaaaa", "chatcmpl-bbbbbbbb", "chatcmpl-12"])
offsets = st.sampled_from([0, 1, 3, 59, 61, 86_399, 86_401])
span = st.fixed_dictionaries(
    {
        "trace_lo": st.sampled_from([1, 1, 2]),
        "span_id": st.integers(1, 8),
        "parent_span_id": st.integers(0, 8),
        "content_hash": st.integers(1, 3),
        "start_time": offsets.map(lambda seconds: AT + timedelta(seconds=seconds)),
        "duration_us": st.sampled_from([0, 500_000, 2_000_000, 120_000_000]),
        "report_kind": st.sampled_from(["call", "call", "call", "none", "aggregate"]),
        "layer": st.sampled_from(["client", "client", "proxy", "engine", "agent"]),
        "key_role": roles,
        "scope_name": st.sampled_from(sorted(DEPTH)),
        "response_id": ids,
        "gateway_call_id": st.sampled_from([None, None, None, "gw-cccccccc"]),
        "attributes": st.sampled_from([None, [("gen_ai.request.n", "3")]]),
        "status": st.sampled_from(["ok", "ok", "error"]),
        "usage_state": st.sampled_from(["exact", "exact", "unknown"]),
        "input_tokens": st.sampled_from([10, 10, 20]),
        "cost_nusd": st.sampled_from([5, 5, 9, None]),
        "cost_state": st.sampled_from(["priced", "priced", "free", "unpriced"]),
        "cached_input_tokens": st.sampled_from([None, 3]),
        "billing_model": st.sampled_from(["m", "m", "n"]),
        "gateway": st.sampled_from([None, "", "", "gate"]),
    }
)
Rows = Callable[..., pa.Table]


def _unique(rows: list[Row]) -> list[Row]:
    """One row per identity and hash, as a store keeps."""
    kept: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        kept.setdefault(
            (row["start_time"], row["trace_lo"], row["span_id"], row["content_hash"]), row
        )
    return list(kept.values())


@given(rows=st.lists(span, max_size=12), order=st.randoms(use_true_random=False))
def test_settlement_agrees_with_its_statement(rows: list[Row], order: Any, span_rows: Rows) -> None:
    spans = span_rows(*_unique(rows))
    expected = reference(spans.to_pylist())
    assert expected == shipped(spans)
    shuffled = list(range(spans.num_rows))
    order.shuffle(shuffled)
    assert expected == shipped(spans.take(pa.array(shuffled, pa.int64())))
