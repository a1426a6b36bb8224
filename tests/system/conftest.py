"""The whole system as a person starts it, and one model call to send it."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

STOP_SECONDS = 15.0
START_SECONDS = 90.0
PROTOBUF = {"content-type": "application/x-protobuf"}
_PORTS = (
    "API__PORT",
    "COLLECTOR__GRPC_PORT",
    "COLLECTOR__HTTP_PORT",
    "COLLECTOR__METRICS_PORT",
    "DASHBOARD__PORT",
)

ProcessId = tuple[int, str]
"""A process and when it started: numbers are used again."""


class Program:
    """One `controlplane` command that serves, and everything it has started."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.log = folder / f"{'-'.join(a for a in arguments if a.isalpha())}.log"
        command = [sys.executable, "-m", "controlplane", *arguments]
        free = {f"CONTROLPLANE_{name}": "0" for name in _PORTS}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(folder / "data")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **free, **(env or {})},
            )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.log.read_text()[-3000:]
        self.ready: dict[str, Any] = json.loads(line)
        self.family = _family(self.process.pid)

    def end(self, number: int) -> float:
        """Signal it; answer after how many seconds no process of it was left."""
        began = time.monotonic()
        self.process.send_signal(number)
        while self.survivors() and time.monotonic() < began + 2 * STOP_SECONDS:
            self.process.poll()  # a child that nobody reaps stays in the table
            time.sleep(0.02)
        return time.monotonic() - began

    def survivors(self) -> list[ProcessId]:
        return [one for one in self.family if _alive(one)]

    def clear_away(self) -> list[ProcessId]:
        """Kill what is left, and name it."""
        left = self.survivors()
        for pid, _ in left:
            os.kill(pid, signal.SIGKILL)
        self.process.communicate(timeout=STOP_SECONDS)
        return left


def _family(pid: int) -> list[ProcessId]:
    """Return the process and all that descend from it."""
    parents = {int(p.name): _stat(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()}
    found = [pid]
    for one in found:
        found += [child for child, stat in parents.items() if stat and int(stat[1]) == one]
    return [(one, stat[19]) for one in found if (stat := parents[one])]


def _alive(process: ProcessId) -> bool:
    stat = _stat(process[0])
    return stat is not None and stat[19] == process[1] and stat[0] != "Z"


def _stat(pid: int) -> list[str] | None:
    """Read proc(5)'s fields from the state on: parent at 1, start time at 19."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


class System:
    """A running system as its users reach it: keys from the command line, OTLP and the API."""

    def __init__(self, folder: Path, ready: dict[str, Any]) -> None:
        self.data_dir = folder / "data"
        self.otlp = ready["otlp_http"]
        self.otlp_grpc = ready["otlp_grpc"]
        self.metrics_url = ready["metrics"]
        self.dashboard = ready["dashboard"]
        self.sign_in_url = ready["sign_in_url"]
        self.api = httpx.Client(base_url=ready["api"], timeout=60, trust_env=False)
        self.sender = httpx.Client(base_url=self.otlp, timeout=60, trust_env=False)
        self.admin = self.make_key("service", "admin")

    def make_key(self, kind: str, role: str, *more: str, tenant: str = "default") -> str:
        command = [sys.executable, "-m", "controlplane", "keys", "create", "--json", *more]
        command += ["--kind", kind, "--role", role, "--tenant", tenant]
        command += ["--data-dir", str(self.data_dir)]
        made = subprocess.run(command, check=True, capture_output=True)
        text: str = json.loads(made.stdout)["text"]
        return text

    def send(self, body: bytes, *, key: str = "", **headers: str) -> httpx.Response:
        """Post a body as protobuf, unless the headers (`content_type=…`) say otherwise."""
        told = {name.replace("_", "-"): text for name, text in headers.items()}
        held = {"Authorization": f"Bearer {key}"} if key else {}
        return self.sender.post("/v1/traces", content=body, headers={**PROTOBUF, **told, **held})

    def ask(self, path: str, *, key: str = "", **params: str | int) -> httpx.Response:
        held = {"Authorization": f"Bearer {key or self.admin}"}
        return self.api.get(f"/api/v1/{path}", params=params, headers=held)

    def put(self, path: str, body: dict[str, Any], *, key: str, **params: str) -> Any:
        held = {"Authorization": f"Bearer {key}"}
        answer = self.api.put(f"/api/v1/{path}", json=body, params=params, headers=held)
        assert answer.is_success, answer.text
        return answer.json()

    def totals(self, team: str, *, key: str = "") -> dict[str, Any]:
        """Return what a team's calls of the last day come to."""
        params: dict[str, Any] = {"range": "24h", "filter.team": team}
        answer = self.ask("costs", key=key, **params).raise_for_status()
        totals: dict[str, Any] = answer.json()["meta"]["totals"]
        return totals

    def wait_for(self, team: str, *, calls: int, key: str = "", seconds: float = 60) -> Any:
        """Return a team's totals as soon as they count this many calls."""
        end = time.monotonic() + seconds
        while (seen := self.totals(team, key=key))["calls"] != calls and time.monotonic() < end:
            time.sleep(0.02)  # a real process is polled; nothing here can be told
        assert calls == seen["calls"]
        return seen

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of the collector's own metrics; 0 where nothing was counted yet."""
        page = httpx.get(self.metrics_url, trust_env=False).raise_for_status().text
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def close(self) -> None:
        self.api.close()
        self.sender.close()


@pytest.fixture(scope="session")
def start_program() -> type[Program]:
    """Start `controlplane` with these arguments in a folder; the caller ends it."""
    return Program


@pytest.fixture
def system_over() -> Iterator[Callable[[Path, Program], System]]:
    """Reach what a program started over a folder as its users do."""
    opened: list[System] = []

    def reach(folder: Path, program: Program) -> System:
        opened.append(System(folder, program.ready))
        return opened[-1]

    yield reach
    for one in opened:
        one.close()


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Start the system that tests share; each keeps to a team of its own."""
    folder = tmp_path_factory.mktemp("system")
    program = Program(folder, "up", "--json")
    try:
        shared = System(folder, program.ready)
        yield shared
        shared.close()
    finally:
        took = program.end(signal.SIGINT)
        left = program.clear_away()
    assert [] == left
    assert took < STOP_SECONDS
    assert 0 == program.process.returncode


class Chat(msgspec.Struct, frozen=True):
    """One model call as its client reports it."""

    trace_id: str
    body: bytes


@pytest.fixture(scope="session")
def chat() -> Callable[..., Chat]:
    """Build a request of one call that ends now; unknown usage is left out."""

    def build(team: str, *, model: str = "gpt-4o-mini", **usage: int) -> Chat:
        request = ExportTraceServiceRequest()
        scope = request.resource_spans.add().scope_spans.add()
        scope.scope.name = "opentelemetry.instrumentation.openai_v2"
        span = scope.spans.add(name=f"chat {model}", kind=3)
        span.trace_id, span.span_id = secrets.token_bytes(16), secrets.token_bytes(8)
        span.end_time_unix_nano = time.time_ns()
        span.start_time_unix_nano = span.end_time_unix_nano - 250_000_000
        texts = {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "openai",
            "gen_ai.request.model": model,
            "gen_ai.response.model": model,
            "gen_ai.response.id": f"chatcmpl-{secrets.token_hex(12)}",
            "team.id": team,
        }
        for name, text in texts.items():
            span.attributes.add(key=name).value.string_value = text
        for name, count in usage.items():
            span.attributes.add(key=f"gen_ai.usage.{name}").value.int_value = count
        return Chat(span.trace_id.hex(), request.SerializeToString())

    return build


@pytest.fixture
def team(request: pytest.FixtureRequest) -> str:
    """Name a team that no other test uses."""
    return f"{request.node.name[:60]}-{secrets.token_hex(4)}"
