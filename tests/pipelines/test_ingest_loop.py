"""The loop between a real spool and whatever stores: nothing is lost, nothing blocks."""

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from collectors.spool import SqliteSpool
from controlplane.core.errors import StoreUnavailableError
from controlplane.core.ids import SequentialIds
from controlplane.ingest.ports import Payload, SpoolBatch, SpoolEntry
from controlplane.pipelines.ingest import IngestOutcome
from controlplane.signals.sender import KEYLESS_SENDER
from controlplane.telemetry import REGISTRY
from controlplane.workers import ingest_loop
from controlplane.workers.ingest_loop import IngestLoop

SECONDS = 60.0


class Sink:
    """Stores bodies by batch id, as a store with a ledger would; told to fail, it does."""

    def __init__(self) -> None:
        self.stored: dict[str, list[bytes]] = {}
        self.calls = 0
        self.failures: list[Exception] = []
        self.unknown: dict[str, int] = {}
        self.poison = b"\x00never"
        self.changed = threading.Condition()

    def ingest(self, batch: SpoolBatch) -> IngestOutcome:
        bodies = [entry.payload.body for entry in batch.entries]
        with self.changed:
            self.calls += 1
            if self.failures:
                raise self.failures.pop(0)
            if self.poison in bodies:
                raise KeyError(self.poison)
            replayed = batch.batch_id in self.stored
            self.stored.setdefault(batch.batch_id, bodies)
            self.changed.notify_all()
        count = len(bodies)
        return IngestOutcome(
            count,
            count,
            0,
            {"test_reason": 1},
            replayed=replayed,
            unknown_dialects=self.unknown,
        )

    def bodies(self) -> list[bytes]:
        with self.changed:
            return [body for bodies in self.stored.values() for body in bodies]

    def wait_for(self, count: int) -> None:
        with self.changed:
            done = self.changed.wait_for(
                lambda: sum(map(len, self.stored.values())) >= count, SECONDS
            )
        assert done, f"stored {self.bodies()}"


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SqliteSpool]:
    spool = SqliteSpool(tmp_path / "spool.sqlite", key=b"k" * 32, ids=SequentialIds())
    yield spool
    spool.close()


@pytest.fixture
def start(spool: SqliteSpool, sink: Sink) -> Iterator[Callable[..., IngestLoop]]:
    loops: list[IngestLoop] = []

    def begin(**options: Callable[[str], None]) -> IngestLoop:
        loop = IngestLoop(spool, ingest=sink.ingest, linger_seconds=0.0, **options)
        loops.append(loop)
        loop.start()
        return loop

    yield begin
    for loop in loops:
        loop.stop(drain_seconds=1)


def _append(spool: SqliteSpool, *bodies: bytes) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for body in bodies:
        spool.append(SpoolEntry(Payload(body), KEYLESS_SENDER, now))


def _sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"controlplane_ingest_{name}_total", labels) or 0.0


def _until_empty(spool: SqliteSpool) -> None:
    deadline = threading.Event()
    for _ in range(6_000):
        if spool.wait(0.0) == 0:
            return
        deadline.wait(0.01)
    raise AssertionError("the spool does not drain")


def test_spooled_requests_are_stored_then_dropped_and_counted(
    spool: SqliteSpool, sink: Sink, start: Callable[..., IngestLoop]
) -> None:
    before = _sample("stored_spans"), _sample("rejected", reason="test_reason")
    start()
    _append(spool, b"a", b"b")
    sink.wait_for(2)
    _until_empty(spool)
    assert [b"a", b"b"] == sorted(sink.bodies())
    assert before[0] + 2 == _sample("stored_spans")
    assert before[1] + len(sink.stored) == _sample("rejected", reason="test_reason")


def test_scopes_of_unknown_dialect_are_named_while_they_are_few(
    spool: SqliteSpool, sink: Sink, start: Callable[..., IngestLoop]
) -> None:
    """A sender that invents scope names does not fill the collector's memory with series."""
    name = "unknown_dialect_spans"
    before = _sample(name, scope_name="other")
    sink.unknown = {f"scope-{number}-{'x' * 200}": 2 for number in range(130)}
    start()
    _append(spool, b"a")
    sink.wait_for(1)
    _until_empty(spool)
    assert 2.0 == _sample(name, scope_name="scope-7-" + "x" * 112)
    assert before + 2 * 30 == _sample(name, scope_name="other")


def test_store_that_is_away_is_tried_again_with_the_same_batch(
    spool: SqliteSpool,
    sink: Sink,
    start: Callable[..., IngestLoop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingest_loop, "FIRST_RETRY_SECONDS", 0.001)
    sink.failures = [StoreUnavailableError("away"), StoreUnavailableError("still away")]
    _append(spool, b"a", b"b")
    start()
    sink.wait_for(2)
    assert 3 == sink.calls
    assert [[b"a", b"b"]] == list(sink.stored.values())


def test_poison_is_set_aside_and_its_neighbours_are_stored(
    spool: SqliteSpool, sink: Sink, start: Callable[..., IngestLoop]
) -> None:
    before = _sample("rejected", reason="poison_entry")
    _append(spool, b"a", sink.poison, b"c")
    start()
    sink.wait_for(2)
    _until_empty(spool)
    assert [b"a", b"c"] == sorted(sink.bodies())
    assert before + 1 == _sample("rejected", reason="poison_entry")
    _append(spool, b"d")
    sink.wait_for(3)


def test_log_of_a_failure_quotes_nothing_of_the_payload(
    spool: SqliteSpool,
    sink: Sink,
    start: Callable[..., IngestLoop],
    capsys: pytest.CaptureFixture[str],
) -> None:
    sink.poison = b"my secret prompt"
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        processors=[structlog.processors.JSONRenderer()],
    )
    try:
        _append(spool, sink.poison)
        start()
        _until_empty(spool)
    finally:
        structlog.configure(**before)
    said = capsys.readouterr()
    assert "ingest_failed" in said.out + said.err
    assert "secret" not in said.out + said.err


def test_stop_stores_what_is_spooled(
    spool: SqliteSpool, sink: Sink, start: Callable[..., IngestLoop]
) -> None:
    loop = start()
    _append(spool, *[bytes([i]) for i in range(50)])
    loop.stop()
    assert 50 == len(sink.bodies())
    assert 0 == spool.wait(0.0)


def test_stop_does_not_wait_for_a_store_that_is_away(
    spool: SqliteSpool, sink: Sink, start: Callable[..., IngestLoop]
) -> None:
    sink.failures = [StoreUnavailableError("away") for _ in range(1000)]
    loop = start()
    _append(spool, b"kept")
    loop.stop(drain_seconds=5)
    assert [] == sink.bodies()
    assert spool.wait(0.0) > 0, "it is still in the spool"


def test_batch_left_by_a_crash_is_replayed_under_its_id(
    spool: SqliteSpool, sink: Sink, start: Callable[..., IngestLoop]
) -> None:
    """The crash: stored under an id, not dropped. The store knows the id and does nothing."""
    before = _sample("stored_spans")
    _append(spool, b"a")
    batch = spool.claim(max_bytes=1, max_entries=1)
    assert batch is not None
    sink.stored[batch.batch_id] = [b"a"]
    start()
    _until_empty(spool)
    assert {batch.batch_id: [b"a"]} == sink.stored
    assert before == _sample("stored_spans")


def test_steps_are_reached_in_order(
    spool: SqliteSpool, sink: Sink, start: Callable[..., IngestLoop]
) -> None:
    """The windows that the kill test ends the process in."""
    steps: list[str] = []
    start(fail_point=steps.append)
    _append(spool, b"a")
    sink.wait_for(1)
    _until_empty(spool)
    assert ["after_claim", "after_commit", "before_drop"] == steps
