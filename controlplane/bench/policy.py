"""Publish → received by thousands of subscribers, applied by real agents; and all of them back.

The server is the hub as it is shipped, on an empty SQLite. Subscribers and agents are processes of
their own on the same machine, so their work is in the figures. The clock starts before the request
that publishes: compiling, signing and the commit are in them too.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import httpx

from controlplane.bench.policy_clients import Order
from controlplane.bench.processes import cpu_seconds, free_port
from controlplane.bootstrap.supervisor import Supervisor
from controlplane.core.errors import UnavailableError

AGENTS: Final = 20
AGENT_PROCESSES: Final = 4
"""An agent is a process of its own in a proxy: their writes to disk do not wait for each other."""
WARM_UPS: Final = 2
SPARE_DESCRIPTORS: Final = 500
PERCENT: Final = 100
SIZES: Final = (1_000, 10_000)
HOST: Final = "127.0.0.1"


def run(
    sizes: tuple[int, ...] = SIZES,
    *,
    publishes: int = 10,
    agents: int = AGENTS,
    every_model: bool = False,
) -> dict[str, object]:
    """Measure each size on a fresh server, with so many real agents beside the subscribers.

    With `every_model` a hard budget on any model is in the policy, and so is every model's rate.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = hard - SPARE_DESCRIPTORS
    stages = {
        str(size): _measure(
            min(size, most), publishes=publishes, agents=agents, every_model=every_model
        )
        for size in sizes
    }
    return {
        "stages": stages,
        "whole": {
            f"{name}_at_{size}": stage[name]
            for size, stage in stages.items()
            for name in (
                "received_p99_ms",
                "applied_p99_ms",
                "reconnect_seconds",
                "agents_reconnect_seconds",
            )
        },
        "peers": {},
        "load_average": list(os.getloadavg()),
        "config": {
            "agents": agents,
            "publishes": publishes,
            "every_model": every_model,
            "descriptor_limit": hard,
            "descriptor_limit_soft": soft,
            "cpus": os.cpu_count(),
        },
    }


def _measure(subscribers: int, *, publishes: int, agents: int, every_model: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="controlplane-bench-policy-") as folder:
        root = Path(folder)
        port = free_port()
        proxy, admin = _key(root, "proxy", "proxy"), _key(root, "user", "admin")
        with contextlib.ExitStack() as running:
            hub = running.enter_context(_hub(root, port))
            publisher = running.enter_context(_publisher(port, admin["text"]))
            if every_model:
                publisher.hold_every_model()
            publisher.publish()
            base = Order(HOST, port, proxy["text"], proxy["policy_keys"])
            raw = running.enter_context(_clients(_sized(base, subscribers=subscribers)))
            fleet = _Together(
                [
                    running.enter_context(_clients(_sized(base, agents=part)))
                    for part in _parts(agents, AGENT_PROCESSES)
                ]
            )
            started = time.monotonic()
            connect = _since(started, raw.ask("connected")["at"])
            together = _latest(fleet.ask("connected"))
            figures = _publish_often(publisher, raw, fleet, hub=hub, times=publishes)
            figures |= {
                "subscribers": subscribers,
                "document_bytes": publisher.document_bytes(proxy["text"]),
                "agents": agents,
                "connect_seconds": connect,
                "agents_connect_seconds": _since(started, together),
            }
            running.enter_context(_restarted(hub, root, port))
            restarted = time.monotonic()
            back = raw.ask("connected")
            figures["reconnect_seconds"] = _since(restarted, back["at"])
            figures["agents_reconnect_seconds"] = _since(restarted, _latest(fleet.ask("connected")))
            figures["told_to_wait"] = back["refused"]
            return figures


def _publish_often(
    publisher: "_Publisher", raw: "_Clients", agents: "_Together", *, hub: int, times: int
) -> dict[str, Any]:
    received: list[float] = []
    applied: list[float] = []
    missing = 0
    before, began = cpu_seconds([hub]), time.monotonic()
    for number in range(times + WARM_UPS):
        at, generation = publisher.publish()
        got = [each - at for each in raw.ask(f"received {generation}")["at"]]
        have = [each - at for each in agents.ask(f"received {generation}") if each is not None]
        if number >= WARM_UPS:
            received += got
            applied += have
            missing += raw.size - len(got) + agents.size - len(have)
    return {
        **_percentiles("received", received),
        **_percentiles("applied", applied),
        "missing": missing,
        "hub_cpu_seconds_per_publish": round((cpu_seconds([hub]) - before) / (times + WARM_UPS), 4),
        "seconds": round(time.monotonic() - began, 1),
    }


class _Publisher:
    """Changes a rule over HTTP, to all at once."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._number = 0

    def hold_every_model(self) -> None:
        """Make a hard budget that a call of any model may be charged to."""
        budget = {"name": "all", "owner": "bench", "tenant": "default", "period": "month"}
        self._client.post(
            "/api/v1/budgets", json={**budget, "limit_usd": "1000"}
        ).raise_for_status()

    def document_bytes(self, key: str) -> int:
        """Return the size of what is published, as a proxy gets it."""
        proxy = {"Authorization": f"Bearer {key}"}
        answer = self._client.get("/api/v1/policy", headers=proxy).raise_for_status()
        return len(answer.content)

    def publish(self) -> tuple[float, str]:
        """Return the instant before the request, and the generation it made."""
        self._number += 1
        rules = [
            {"action": "cap", "id": f"r{i}", "match": {"model": [f"m{i}"]}, "max_tokens": 100}
            for i in range(30)
        ]
        rules[0]["max_tokens"] = 1_000 + self._number
        at = time.monotonic()
        answer = self._client.put(
            "/api/v1/policy/rules", params={"rollout": "at_once"}, json={"rules": rules}
        ).raise_for_status()
        made = answer.json()
        return at, f"{made['epoch']}.{made['gen']}"


@contextlib.contextmanager
def _publisher(port: int, key: str) -> Iterator[_Publisher]:
    with httpx.Client(
        base_url=f"http://{HOST}:{port}",
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
        trust_env=False,
    ) as client:
        yield _Publisher(client)


class _Clients:
    """A process of clients."""

    def __init__(self, stdin: IO[str], stdout: IO[str], order: Order) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self.size = order.subscribers + order.agents

    def ask(self, line: str) -> dict[str, Any]:
        """Say a line and return the answer.

        Raises:
            UnavailableError: the process has ended.
        """
        self.say(line)
        return self.answer()

    def say(self, line: str) -> None:
        """Send a line."""
        self._stdin.write(line + "\n")
        self._stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for a line.

        Raises:
            UnavailableError: the process has ended.
        """
        answer = self._stdout.readline()
        if not answer:
            raise UnavailableError("the process of clients has ended")
        found: dict[str, Any] = json.loads(answer)
        return found


class _Together:
    """Several processes of clients, asked at once."""

    def __init__(self, parts: list[_Clients]) -> None:
        self._parts = parts
        self.size = sum(part.size for part in parts)

    def ask(self, line: str) -> list[float | None]:
        """Say a line to all and return their instants together; None where time was over."""
        for part in self._parts:
            part.say(line)
        answers = [part.answer()["at"] for part in self._parts]
        return [each for at in answers for each in (at if isinstance(at, list) else [at])]


@contextlib.contextmanager
def _clients(order: Order) -> Iterator[_Clients]:
    process = subprocess.Popen(
        [sys.executable, "-m", "controlplane.bench.policy_clients"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        if process.stdin is None or process.stdout is None:
            raise UnavailableError("the process of clients has no pipes")
        clients = _Clients(process.stdin, process.stdout, order)
        clients.say(json.dumps(_plain(order)))
        yield clients
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def _hub(root: Path, port: int) -> Iterator[int]:
    supervisor = Supervisor(root / "log")
    env = {"CONTROLPLANE_DATA_DIR": str(root / "data"), "CONTROLPLANE_API__PORT": str(port)}
    try:
        hub = supervisor.start("hub", ["serve", "--role", "api", "--supervised"], env)
        hub.wait_ready()
        yield hub.process.pid
    finally:
        supervisor.stop()


@contextlib.contextmanager
def _restarted(pid: int, root: Path, port: int) -> Iterator[int]:
    """Kill the hub without warning and start another on the same port and data."""
    os.kill(pid, signal.SIGKILL)
    while _lives(pid):
        time.sleep(0.01)
    with _hub(root, port) as again:
        yield again


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _key(root: Path, kind: str, role: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "controlplane", "keys", "create", "--kind", kind]
    command += ["--role", role, "--all-tenants", "--data-dir", str(root / "data"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def _parts(whole: int, most: int) -> list[int]:
    """Split a number into at most so many parts that differ by one at most."""
    parts = min(whole, most)
    return [whole // parts + (at < whole % parts) for at in range(parts)]


def _sized(order: Order, *, subscribers: int = 0, agents: int = 0) -> Order:
    return Order(order.host, order.port, order.key, order.policy_keys, subscribers, agents)


def _plain(order: Order) -> dict[str, object]:
    return {name: getattr(order, name) for name in order.__struct_fields__}


def _since(started: float, at: float | None) -> float | None:
    return None if at is None else round(at - started, 2)


def _latest(instants: list[float | None]) -> float | None:
    """Return the last; None when somebody did not come."""
    there = [at for at in instants if at is not None]
    return max(there) if there and len(there) == len(instants) else None


def _percentiles(name: str, seconds: list[float]) -> dict[str, float | None]:
    ordered = sorted(seconds)
    return {
        f"{name}_p{percent}_ms": round(
            1_000 * ordered[min(len(ordered) - 1, len(ordered) * percent // PERCENT)], 1
        )
        if ordered
        else None
        for percent in (50, 99)
    }
