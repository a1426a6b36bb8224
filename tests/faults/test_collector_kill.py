"""Kill -9 of a collector under load: what was acknowledged is stored, once.

SIGKILL leaves the operating system's page cache, so this proves the order of steps and the
replay; that a commit is synced is SQLite's `synchronous=FULL` and DuckDB's log, not shown here.
"""

import random
import secrets
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.faults.lives import ANYWHERE, MakeRequest, Sender, SpanId, finish, live_and_die

WINDOWS = ("before_fsync", "after_fsync", "after_commit", "before_drop")
SPANS = 20

Senders = Callable[[MakeRequest], list[Sender]]


def plain_request() -> tuple[set[SpanId], bytes]:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    ids: set[SpanId] = set()
    now = time.time_ns()
    for _ in range(SPANS):
        span = scope.spans.add()
        span.trace_id, span.span_id = secrets.token_bytes(16), secrets.token_bytes(8)
        span.start_time_unix_nano, span.end_time_unix_nano = now, now + 1000
        span.attributes.add(key="gen_ai.request.model").value.string_value = "gpt-4o"
        high, low = span.trace_id[:8], span.trace_id[8:]
        ids.add((int.from_bytes(high), int.from_bytes(low), int.from_bytes(span.span_id)))
    return ids, request.SerializeToString()


def _stored(directory: Path) -> Counter[SpanId]:
    with duckdb.connect(str(directory / "spans.duckdb"), read_only=True) as database:
        rows = database.execute("SELECT trace_hi, trace_lo, span_id FROM span").fetchall()
    return Counter(rows)


def _lost_and_doubled(directory: Path, acked: set[SpanId]) -> tuple[int, int]:
    stored = _stored(directory)
    return len(acked - stored.keys()), sum(1 for count in stored.values() if count > 1)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_acknowledged_spans_are_stored_once_whenever_the_collector_dies(
    tmp_path: Path,
    senders: Senders,
    full_size: bool,  # noqa: FBT001 - a fixture
) -> None:
    draw = random.Random(4)
    lives = [*WINDOWS * (12 if full_size else 3), *[ANYWHERE] * (12 if full_size else 3)]
    draw.shuffle(lives)
    threads = senders(plain_request)
    for sender in threads:
        sender.start()
    for window in lives:
        live_and_die(tmp_path, threads, store="duckdb", draw=draw, window=window)
    acked = finish(tmp_path, threads, store="duckdb")
    assert len(acked) > SPANS * len(lives), "there was load"
    assert (0, 0) == _lost_and_doubled(tmp_path, acked)


def test_a_store_without_dedupe_is_caught(tmp_path: Path, senders: Senders) -> None:
    """The check above can fail: replayed batches double in a store that does not know them."""
    draw = random.Random(5)
    threads = senders(plain_request)
    for sender in threads:
        sender.start()
    for window in ("after_commit", "before_drop"):
        live_and_die(tmp_path, threads, store="careless", draw=draw, window=window)
    acked = finish(tmp_path, threads, store="careless")
    lost, doubled = _lost_and_doubled(tmp_path, acked)
    assert 0 == lost
    assert doubled > 0
