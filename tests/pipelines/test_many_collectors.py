"""I3: N collectors take one payload at once; every emitter's account balances exactly."""

import functools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from controlplane.attribution.rules import BUILT_IN
from controlplane.core.calendar import Window
from controlplane.ingest.limits import DEFAULT_LIMITS
from controlplane.ingest.ports import Payload, SpoolBatch, SpoolEntry
from controlplane.pipelines.ingest import IngestOutcome, ingest_batch
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.queries import CostQuery
from controlplane.signals.sender import KEYLESS_SENDER
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.store.spans.flight_client import FlightSpanWriter
from controlplane.store.spans.flight_server import SpanFlightServer

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
COLLECTORS = 4
ROUNDS = 12
GOOD, BAD = 30, 3


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDbSpanStore]:
    opened = DuckDbSpanStore(tmp_path / "spans.duckdb")
    yield opened
    opened.close()


def payload(number: int) -> bytes:
    """Thirty spans, one of them twice, and three whose ids have no length that an id has."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    start = int(AT.timestamp()) * 10**9
    for at in [*range(GOOD - 1), 0, *range(BAD)]:
        span = scope.spans.add()
        is_bad = len(scope.spans) > GOOD
        span.trace_id = b"short" if is_bad else (1 + number).to_bytes(16)
        span.span_id = (1 + at).to_bytes(8)
        span.start_time_unix_nano, span.end_time_unix_nano = start, start + 10**9
        span.attributes.add(key="gen_ai.request.model").value.string_value = "gpt-4o"
        span.attributes.add(key="gen_ai.operation.name").value.string_value = "chat"
    return request.SerializeToString()


def test_received_is_stored_and_duplicate_and_rejected(
    store: DuckDbSpanStore, tmp_path: Path
) -> None:
    barrier = threading.Barrier(COLLECTORS)
    outcomes: list[IngestOutcome] = []
    lock = threading.Lock()

    def collect(name: int, writer: FlightSpanWriter) -> None:
        ingest = functools.partial(
            ingest_batch,
            book=PriceBook("empty", []),
            rules=BUILT_IN,
            limits=DEFAULT_LIMITS,
            writer=writer,
        )
        for number in range(ROUNDS):
            entry = SpoolEntry(Payload(payload(number), "protobuf"), KEYLESS_SENDER, AT)
            barrier.wait(60)
            outcome = ingest(SpoolBatch(f"{name}:{number}", (entry,), (number,)))
            with lock:
                outcomes.append(outcome)

    with ExitStack() as stack:
        stack.enter_context(SpanFlightServer(tmp_path / "s", store))
        writers = [FlightSpanWriter(tmp_path / "s") for _ in range(COLLECTORS)]
        threads = [
            threading.Thread(target=collect, args=(name, writer))
            for name, writer in enumerate(writers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        for writer in writers:
            writer.close()

    rejected = sum((Counter(outcome.rejected) for outcome in outcomes), Counter[str]())
    received = sum(outcome.received for outcome in outcomes)
    stored = sum(outcome.stored for outcome in outcomes)
    duplicates = sum(outcome.duplicates for outcome in outcomes)
    assert COLLECTORS * ROUNDS == len(outcomes)
    assert COLLECTORS * ROUNDS * (GOOD + BAD) == received
    assert COLLECTORS * ROUNDS * BAD == rejected.total()
    assert ROUNDS * (GOOD - 1) == stored
    assert received == stored + duplicates + rejected.total()
    settle_tick(store, now=AT + timedelta(minutes=1), ledger=None)
    query = CostQuery(tenants=("default",), window=Window(AT, AT + timedelta(days=1)))
    assert [stored] == store.costs(query).column("calls").to_pylist()
    (account,) = store.accounting(("default",)).to_pylist()
    assert (stored, stored) == (account["stored"], account["calls"])
