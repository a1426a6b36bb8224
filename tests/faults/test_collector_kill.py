"""Kill -9 of a collector under load: what was acknowledged is stored, once.

SIGKILL leaves the operating system's page cache, so this proves the order of steps and the
replay; that a commit is synced is SQLite's `synchronous=FULL` and DuckDB's log, not shown here.
"""

import contextlib
import json
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from typing_extensions import override

PROCESS = Path(__file__).with_name("collector_process.py")
WITHOUT_PANDAS = """
import importlib.abc, importlib.machinery, runpy, sys
class Pandas(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    # pyarrow imports it where it is installed, which is half of so short a life
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "pandas" else None
    def create_module(self, spec):
        raise ImportError(spec.name)
sys.meta_path.insert(0, Pandas())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
WINDOWS = ("before_fsync", "after_fsync", "after_commit", "before_drop")
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SPANS = 20
START_SECONDS = 60.0

SpanId = tuple[int, int, int]


class Collector:
    """One life of the collector process."""

    def __init__(
        self, directory: Path, *, store: str, step: str = "never", occurrence: int = 0
    ) -> None:
        arguments = [str(PROCESS), str(directory), store, step, str(occurrence)]
        command = [sys.executable, "-c", WITHOUT_PANDAS, *arguments]
        with (directory / "collector.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.ports: dict[str, int] = {}
        if line:
            self.ports = json.loads(line)
        elif self.process.wait(START_SECONDS) != -signal.SIGKILL:  # else: died while replaying
            raise AssertionError((directory / "collector.log").read_text()[-2000:])

    def end(self, timeout: float = START_SECONDS) -> int:
        """Close its stdin and wait for its end; one that does not come is brought about."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self.process.stdout.close()


class Sender(threading.Thread):
    """Sends requests for ever, each again until it is acknowledged, and remembers those that were.

    One half of the senders speaks gRPC, the other HTTP. A sender does not know that the collector
    dies: it sees broken connections, and at its next try another address.
    """

    def __init__(self, transport: str) -> None:
        super().__init__(daemon=True)
        self.transport = transport
        self.acked: set[SpanId] = set()
        self.ports: dict[str, int] = {}
        self.stop = threading.Event()

    @override
    def run(self) -> None:
        while not self.stop.is_set():
            ids, body = _request()
            while not self._try(body):
                if self.stop.wait(0.02):
                    return
            self.acked |= ids

    def _try(self, body: bytes) -> bool:
        ports = self.ports
        if not ports:
            return False
        try:
            return self._grpc(ports, body) if self.transport == "grpc" else self._http(ports, body)
        except (httpx.TransportError, grpc.RpcError):
            return False

    def _http(self, ports: dict[str, int], body: bytes) -> bool:
        answer = httpx.post(
            f"http://127.0.0.1:{ports['http']}/v1/traces",
            content=body,
            headers={"content-type": "application/x-protobuf"},
            timeout=10,
        )
        return answer.status_code == 200

    def _grpc(self, ports: dict[str, int], body: bytes) -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
            export = channel.unary_unary(
                EXPORT, request_serializer=bytes, response_deserializer=bytes
            )
            answer: bytes = export(body, timeout=10)
            return answer == b""


def _request() -> tuple[set[SpanId], bytes]:
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


@pytest.fixture
def senders() -> Iterator[list[Sender]]:
    """Two of each transport, idle until they are told where to send."""
    threads = [Sender(transport) for transport in ("http", "grpc") * 2]
    yield threads
    for thread in threads:
        thread.stop.set()
    for thread in threads:
        thread.join(30)


def _live_and_die(
    directory: Path, senders: list[Sender], *, store: str, draw: random.Random, window: str
) -> None:
    """One life under load, ended in a window, or anywhere when the window is `anywhere`."""
    occurrence = draw.randint(1, 8) if window in WINDOWS else 0
    collector = Collector(directory, store=store, step=window, occurrence=occurrence)
    for sender in senders:
        sender.ports = collector.ports
    if window in WINDOWS:
        with contextlib.suppress(subprocess.TimeoutExpired):
            collector.process.wait(START_SECONDS)
        died_in_window = collector.process.returncode == -signal.SIGKILL
    else:
        time.sleep(draw.uniform(0.05, 0.8))
        collector.process.send_signal(signal.SIGKILL)
        died_in_window = True
    for sender in senders:
        sender.ports = {}
    assert -signal.SIGKILL == collector.end()
    assert died_in_window, f"{window} was not reached"


def _finish(directory: Path, senders: list[Sender], *, store: str) -> set[SpanId]:
    """Stop sending, let a last life drain the spool, and return what was acknowledged in all."""
    for sender in senders:
        sender.stop.set()
    for sender in senders:
        sender.join(30)
    assert 0 == Collector(directory, store=store).end(120)
    return set().union(*(sender.acked for sender in senders))


def _stored(directory: Path) -> Counter[SpanId]:
    with duckdb.connect(str(directory / "spans.duckdb"), read_only=True) as database:
        rows = database.execute("SELECT trace_hi, trace_lo, span_id FROM span").fetchall()
    return Counter(rows)


def _lost_and_doubled(directory: Path, acked: set[SpanId]) -> tuple[int, int]:
    stored = _stored(directory)
    return len(acked - stored.keys()), sum(1 for count in stored.values() if count > 1)


@pytest.mark.slow
def test_acknowledged_spans_are_stored_once_whenever_the_collector_dies(
    tmp_path: Path,
    senders: list[Sender],
    full_size: bool,  # noqa: FBT001 - a fixture
) -> None:
    draw = random.Random(4)
    lives = [*WINDOWS * (12 if full_size else 4), *["anywhere"] * (12 if full_size else 4)]
    draw.shuffle(lives)
    for sender in senders:
        sender.start()
    for window in lives:
        _live_and_die(tmp_path, senders, store="duckdb", draw=draw, window=window)
    acked = _finish(tmp_path, senders, store="duckdb")
    assert len(acked) > SPANS * len(lives), "there was load"
    assert (0, 0) == _lost_and_doubled(tmp_path, acked)


def test_a_store_without_dedupe_is_caught(tmp_path: Path, senders: list[Sender]) -> None:
    """The check above can fail: replayed batches double in a store that does not know them."""
    draw = random.Random(5)
    for sender in senders:
        sender.start()
    for window in ("after_commit", "before_drop"):
        _live_and_die(tmp_path, senders, store="careless", draw=draw, window=window)
    acked = _finish(tmp_path, senders, store="careless")
    lost, doubled = _lost_and_doubled(tmp_path, acked)
    assert 0 == lost
    assert doubled > 0
