"""Lives of a collector process under load: started, sent to, killed, started again."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import grpc
import httpx
from typing_extensions import override

ROOT = Path(__file__).parents[2]
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
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
ANYWHERE = "anywhere"
START_SECONDS = 120.0

SpanId = tuple[int, int, int]
MakeRequest = Callable[[], tuple[set[SpanId], bytes]]


class Collector:
    """One life of the collector process."""

    def __init__(
        self,
        directory: Path,
        *,
        store: str,
        step: str = "never",
        occurrence: int = 0,
        may_die_at_once: bool = True,
        faults: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> None:
        arguments = [str(PROCESS), str(directory), store, step, str(occurrence)]
        command = [*under, sys.executable, "-c", WITHOUT_PANDAS, str(ROOT), *arguments]
        self.log = directory / "collector.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **(faults or {})},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.ports: dict[str, int] = {}
        if line:
            self.ports = json.loads(line)
        elif self.process.wait(START_SECONDS) != -signal.SIGKILL or not may_die_at_once:
            self.end()
            raise AssertionError(self.log.read_text()[-2000:])  # else: died while replaying

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

    def __init__(self, transport: str, make_request: MakeRequest) -> None:
        super().__init__(daemon=True)
        self.transport = transport
        self.make_request = make_request
        self.acked: set[SpanId] = set()
        self.ports: dict[str, int] = {}
        self.stop = threading.Event()

    @override
    def run(self) -> None:
        while not self.stop.is_set():
            ids, body = self.make_request()
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


def live_and_die(
    directory: Path, senders: list[Sender], *, store: str, draw: random.Random, window: str
) -> None:
    """One life under load, ended in a window, or anywhere when the window is `anywhere`."""
    occurrence = draw.randint(1, 8) if window != ANYWHERE else 0
    collector = Collector(directory, store=store, step=window, occurrence=occurrence)
    for sender in senders:
        sender.ports = collector.ports
    if window != ANYWHERE:
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


def finish(directory: Path, senders: list[Sender], *, store: str) -> set[SpanId]:
    """Stop sending, let a last life drain the spool, and return what was acknowledged in all."""
    for sender in senders:
        sender.stop.set()
    for sender in senders:
        sender.join(60)
    last = Collector(directory, store=store)
    assert 0 == last.end(240), last.log.read_text()[-2000:]
    return set().union(*(sender.acked for sender in senders))
