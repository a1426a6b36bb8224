"""Which keys join is decided twice, in SQL and in Python: both must say the same."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from controlplane.ingest.calls import report_rows
from controlplane.ingest.join_flags import with_join_flags
from controlplane.ingest.settlement import JOIN_FLAGS
from controlplane.signals.schema import SPAN_SCHEMA
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

AT = datetime(2026, 11, 20, 10, 59, 58, tzinfo=UTC)
FLAGS = [*(flag.name for flag in JOIN_FLAGS), "choices"]
NATIVE = "com.anthropic.sdk.python"

Rows = Callable[..., pa.Table]
Row = dict[str, Any]


def crowded_at_the_limit(sharers: int) -> list[Row]:
    """`sharers` sides within an hour under one id, in two layers."""
    shared = {"response_id": "chatcmpl-0123456789", "gateway_call_id": "gw-0123456789"}
    return [
        {
            **shared,
            "span_id": n + 1,
            "trace_lo": n + 1,
            "layer": ("client", "proxy")[n % 2],
            "start_time": AT - timedelta(seconds=n),
        }
        for n in range(sharers)
    ]


def one_engine_request(spans: int) -> list[Row]:
    """Spans of one side at one microsecond: one sharer, however many."""
    engine = {"layer": "engine", "scope_name": "vllm", "response_id": "cmpl-0123456789-0"}
    client = {"span_id": 9_999, "response_id": "cmpl-0123456789"}
    return [client, *({**engine, "span_id": n + 1, "trace_lo": n + 2} for n in range(spans))]


def failures(pairs: int) -> list[Row]:
    failed = {"status": "error", "response_id": None, "usage_state": "absent"}
    scopes = (NATIVE, "opentelemetry.instrumentation.anthropic")
    return [
        {**failed, "span_id": n + 1, "trace_lo": n + 1, "scope_name": scopes[n % 2]}
        for n in range(2 * pairs)
    ]


def alike(reports: int) -> list[Row]:
    """Reports of one minute that a gateway and its clients make; a third are of the next one."""
    return [
        {
            "span_id": n + 1,
            "trace_lo": n + 1,
            "gateway": "gate",
            "layer": ("client", "proxy")[n % 2],
            "start_time": AT + timedelta(seconds=(0, 0, 2)[n % 3]),
        }
        for n in range(reports)
    ]


def confusable(seed: int) -> list[Row]:
    rng = random.Random(seed)
    return [
        {
            "span_id": n + 1,
            "content_hash": n,
            "trace_lo": rng.randrange(1, 30),
            "start_time": AT + timedelta(seconds=rng.choice([0, 0, 1, 2, 3])),
            "layer": rng.choice(["client", "proxy", "engine"]),
            "scope_name": rng.choice([NATIVE, "openinference.instrumentation.openai", "vllm"]),
            "status": rng.choice(["ok", "error"]),
            "gateway": rng.choice([None, "", "gate"]),
            "input_tokens": rng.choice([1, 2, None]),
            "response_id": rng.choice(
                [None, "", "chatcmpl-7", "chatcmpl-12345678", "cmpl-12345678", "cmpl-12345678-1"]
            ),
            "gateway_call_id": rng.choice([None, "gw-12345678", "gw-87654321", "gw-1"]),
            "attributes": rng.choice(
                [None, [], [("x", "y"), ("gen_ai.request.n", rng.choice(["1", "3", "", "12345"]))]]
            ),
        }
        for n in range(120)
    ]


CASES = [
    *(pytest.param(crowded_at_the_limit(n), id=f"{n} sharers") for n in (2, 16, 17)),
    *(pytest.param(one_engine_request(n), id=f"{n} sequences") for n in (2, 128, 1_024, 1_025)),
    *(pytest.param(failures(n), id=f"{n} failures") for n in (1, 1_000, 1_001)),
    *(pytest.param(alike(n), id=f"{n} alike") for n in (6, 2_000, 2_401)),
    *(pytest.param(confusable(seed), id=f"seed {seed}") for seed in range(5)),
]


@pytest.mark.parametrize("rows", CASES)
def test_sql_and_python_agree_on_which_keys_join(rows: list[Row], span_rows: Rows) -> None:
    spans = span_rows(*rows)
    store = DuckDbSpanStore(None)
    store.write(spans, batch_id="a")
    grouped = store.take().grouped
    store.close()
    every = with_join_flags(report_rows(spans.cast(SPAN_SCHEMA)))

    def flags(table: pa.Table) -> dict[int, Row]:
        return {row["span_id"]: row for row in table.select(["span_id", *FLAGS]).to_pylist()}

    expected, found = flags(every), flags(grouped)
    assert found
    assert {span: expected[span] for span in found} == found
