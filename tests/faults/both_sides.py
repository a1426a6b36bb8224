"""A load of calls that a client and a proxy report, and what must be in the files afterwards."""

import secrets
import sqlite3
import threading
import time
from pathlib import Path

import duckdb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.faults.lives import SpanId
from tests.faults.settler import METADATA, TOKEN_NUSD

CALLS = 5
TOKENS = 7


class BothSides:
    """Makes requests of calls; what a client has sent, a proxy sends next."""

    def __init__(self) -> None:
        self._clients_said: list[list[str]] = []
        self._lock = threading.Lock()

    def __call__(self) -> tuple[set[SpanId], bytes]:
        with self._lock:
            proxied = self._clients_said.pop(0) if len(self._clients_said) > 4 else None
        ids = proxied or [f"chatcmpl-{secrets.token_hex(12)}" for _ in range(CALLS)]
        made = _request(ids, is_proxy=proxied is not None)
        if proxied is None:
            with self._lock:
                self._clients_said.append(ids)
        return made


def _request(response_ids: list[str], *, is_proxy: bool) -> tuple[set[SpanId], bytes]:
    request = ExportTraceServiceRequest()
    scoped = request.resource_spans.add().scope_spans.add()
    scoped.scope.name = "litellm" if is_proxy else "opentelemetry.instrumentation.openai_v2"
    spans: set[SpanId] = set()
    now = time.time_ns()
    for response_id in response_ids:
        span = scoped.spans.add()
        span.name = "litellm_request" if is_proxy else "chat gpt-4o"
        span.trace_id, span.span_id = secrets.token_bytes(16), secrets.token_bytes(8)
        span.start_time_unix_nano, span.end_time_unix_nano = now, now + 10**9
        texts = {
            "gen_ai.provider.name": "openai",
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.response.model": "gpt-4o",
            "gen_ai.response.id": response_id,
            **({"metadata.user_api_key_hash": "key"} if is_proxy else {}),
        }
        for key, text in texts.items():
            span.attributes.add(key=key).value.string_value = text
        span.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = TOKENS - 2
        span.attributes.add(key="gen_ai.usage.output_tokens").value.int_value = 2
        high, low = span.trace_id[:8], span.trace_id[8:]
        spans.add((int.from_bytes(high), int.from_bytes(low), int.from_bytes(span.span_id)))
    return spans, request.SerializeToString()


def assert_exact(figures: dict[str, int]) -> None:
    """Nothing acknowledged is lost, nothing counted twice, and all sums are the same."""
    assert figures["calls_of_two_reports"] > 0, "settlement joined"
    wrong = ["lost_spans", "doubled_spans", "partial_batches", "miscounted_calls"]
    if not figures["closings"]:
        wrong.append("repeated_calls")
    assert dict.fromkeys(wrong, 0) == {name: figures[name] for name in wrong}
    money = figures["responses"] * TOKENS * TOKEN_NUSD
    booked = figures["calls_nusd"] + figures["late_nusd"]
    assert money == booked == figures["cube_nusd"] == figures["ledger_nusd"]


def judge(directory: Path, acked: set[SpanId]) -> dict[str, int]:
    """Say what is in the files, by queries of our own."""
    with duckdb.connect(str(directory / "spans.duckdb"), read_only=True) as spans:

        def one(query: str, **said: int) -> int:
            row = spans.execute(query, said or None).fetchone()
            assert row is not None
            return int(row[0] or 0)

        rows = spans.execute("SELECT trace_hi, trace_lo, span_id FROM span").fetchall()
        figures = {
            "acknowledged_spans": len(acked),
            "stored_spans": len(rows),
            "lost_spans": len(acked - set(rows)),
            "doubled_spans": len(rows) - len(set(rows)),
            "partial_batches": one(
                "SELECT count(*) FROM ingest_batch WHERE stored <> (SELECT count(*) FROM span"
                " WHERE span.batch_seq = ingest_batch.batch_seq)"
            ),
            "calls": one("SELECT count(*) FROM call"),
            "responses": one("SELECT count(DISTINCT response_id) FROM span"),
            "closings": one("SELECT count(*) FROM closing"),
            "late_calls": one("SELECT count(DISTINCT call_id) FROM adjustment"),
            "calls_of_two_reports": one("SELECT count(*) FROM call WHERE reports = 2"),
            "miscounted_calls": one(
                # Each response is one call's, or what is booked of one call that came late.
                "SELECT abs(count(*) FILTER (nusd <> 0) - (SELECT count(DISTINCT response_id)"
                " FROM span)) + count(*) FILTER (nusd NOT IN (0, $each))"
                " FROM (SELECT call_id, sum(nusd) AS nusd FROM"
                " (SELECT call_id, cost_nusd AS nusd FROM call UNION ALL SELECT call_id,"
                " coalesce(new_cost_nusd, 0) - coalesce(old_cost_nusd, 0) FROM adjustment)"
                " GROUP BY call_id)",
                each=TOKENS * TOKEN_NUSD,
            ),
            # A closed call stays where it is when its open half turns up: it is booked away.
            "repeated_calls": one("SELECT count(*) - count(DISTINCT response_id) FROM call"),
            "calls_nusd": one("SELECT sum(cost_nusd) FROM call"),
            "cube_nusd": one("SELECT sum(cost_nusd) FROM cube_15m"),
            "late_nusd": one(
                "SELECT sum(coalesce(new_cost_nusd, 0) - coalesce(old_cost_nusd, 0))"
                " FROM adjustment"
            ),
        }
    ledger = sqlite3.connect(directory / METADATA)
    (posted,) = ledger.execute(
        "SELECT sum(unenforced_nusd + restated_nusd) FROM ledger_entry"
    ).fetchone()
    ledger.close()
    return {**figures, "ledger_nusd": int(posted or 0)}
