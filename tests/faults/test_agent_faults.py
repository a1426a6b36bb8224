"""Faults of an agent's world, with real processes: what it does when it can not be told, or write."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

AGENT_TESTS = Path(__file__).parents[1] / "agent"
RATE = {"input_nusd": 10**9, "output_nusd": 10**10}
BODY = {"model": "m", "user": "a", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}]}
WINDOW = {"window_start": "2026-01-01T00:00:00Z", "window_end": "2036-01-01T00:00:00Z"}
BUDGET = {"id": "b1", "name": "team a", "owner": "ana", "match": {"tenant": ["a"]}, **WINDOW}


class Server(msgspec.Struct):
    """The small control plane of the agent's tests, as a process of its own."""

    process: subprocess.Popen[bytes]
    url: str
    keys: dict[str, str]

    def publish(self, **changes: Any) -> None:
        """Publish a document with a hard budget for tenant a."""
        document = {
            "dimension_map": {"tenant": "user"},
            "budgets": [{**BUDGET, "limit_nusd": 10**9}],
            "rate_card": {"openai/m": RATE},
        }
        order = {**document, **changes}
        httpx.put(f"{self.url}/_rules", content=json.dumps(order)).raise_for_status()

    def state(self) -> dict[str, Any]:
        """Return the ledger and every sync request so far."""
        state: dict[str, Any] = httpx.get(f"{self.url}/_state").json()
        return state


class Node(msgspec.Struct):
    """A node agent under test."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path

    def admit(self, user: str = "a") -> httpx.Response:
        """Admit one call."""
        order = {"path": "/v1/chat/completions", "host": "api.openai.com"}
        return self.client.post("/v1/admit", json={**order, "body": {**BODY, "user": user}})

    def code(self) -> str:
        """Try to admit one call; return why it was refused, or `admitted`."""
        answer = self.admit()
        if answer.is_success:
            return "admitted"
        code: str = answer.json()["error"]["code"]
        return code


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def start(**env: str) -> Server:
        process = subprocess.Popen(
            [sys.executable, str(AGENT_TESTS / "fake_control_plane.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **env},
        )
        assert process.stdout
        ready = json.loads(process.stdout.readline())
        running.append(Server(process, f"http://127.0.0.1:{ready['port']}", ready["keys"]))
        return running[-1]

    yield start
    for server in running:
        server.process.send_signal(signal.SIGCONT)
        server.process.communicate(timeout=60)


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    running: list[Node] = []

    def start(server: Server, *, limit: Callable[[], None] | None = None, **env: str) -> Node:
        path, log = tmp_path / "agent.sock", tmp_path / f"agent{len(running)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "controlplane", "agent"],
                stderr=file,
                preexec_fn=limit,  # noqa: PLW1509 - a limit on the size of files; no threads yet
                env={
                    **os.environ,
                    "CONTROLPLANE_AGENT_SERVER_URL": server.url,
                    "CONTROLPLANE_AGENT_API_KEY": "k",
                    "CONTROLPLANE_AGENT_STATE_DIR": str(tmp_path / "state"),
                    "CONTROLPLANE_AGENT_POLICY_KEYS": ",".join(
                        f"{kid}={key}" for kid, key in server.keys.items()
                    ),
                    "CONTROLPLANE_AGENT_SOCKET": str(path),
                    "CONTROLPLANE_AGENT_SYNC_INTERVAL_SECONDS": "0.1",
                    "CONTROLPLANE_AGENT_ADMISSION_WAIT_SECONDS": "3",
                    "CONTROLPLANE_AGENT_FIRST_POLICY_WAIT_SECONDS": "20",
                    "CONTROLPLANE_AGENT_REQUEST_TIMEOUT_SECONDS": "1",
                    **env,
                },
            )
        client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)), base_url="http://agent", timeout=60
        )
        running.append(Node(process, client, log))
        _until(lambda: _serves(path), "the node agent did not start")
        return running[-1]

    yield start
    for node in running:
        node.client.close()
        node.process.send_signal(signal.SIGCONT)
        node.process.terminate()
        node.process.wait(60)


def _serves(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _until(is_so: Callable[[], bool], what: str = "it did not happen in time") -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_stopped_agent_does_not_spend_a_lease_that_expired_meanwhile(
    start_server: Callable[..., Server], start_node: Callable[..., Node]
) -> None:
    """SIGSTOP for longer than a lease lives; the server can not be asked afterwards."""
    server = start_server(FAKE_TTL_SECONDS="2")
    server.publish()
    node = start_node(server)
    for _ in range(20):
        assert node.admit().is_success
    node.process.send_signal(signal.SIGSTOP)
    time.sleep(2.2)  # the lease's life, which is what is tested
    server.process.send_signal(signal.SIGSTOP)
    node.process.send_signal(signal.SIGCONT)
    assert "budget_exhausted" == node.code()
    server.process.send_signal(signal.SIGCONT)
    _until(lambda: node.code() == "admitted")


def test_a_port_that_never_answers_costs_a_moment_and_no_money(
    start_server: Callable[..., Server], start_node: Callable[..., Node]
) -> None:
    """The policy on disk decides; what needs a lease is refused, what needs none is not held up."""
    server = start_server()
    server.publish()
    first = start_node(server)
    _until(lambda: first.code() == "admitted")
    first.process.terminate()
    first.process.wait(60)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as hole:  # connects, never accepts
        black = Server(server.process, f"http://127.0.0.1:{hole.getsockname()[1]}", server.keys)
        node = start_node(
            black,
            CONTROLPLANE_AGENT_ADMISSION_WAIT_SECONDS="0.25",
            CONTROLPLANE_AGENT_REQUEST_TIMEOUT_SECONDS="10",
        )
        assert "1.1" == node.client.get("/v1/policy").json()["policy"]
        for user, expected in (("a", 429), ("b", 200)):
            started = time.monotonic()
            assert expected == node.admit(user).status_code
            assert time.monotonic() - started < 5.0  # 250 ms and slack, not a request's 10 s


def test_a_full_disk_refuses_what_could_not_be_proven(
    start_server: Callable[..., Server], start_node: Callable[..., Node]
) -> None:
    """RLIMIT_FSIZE stands for the disk: the journal can not grow any more."""
    server = start_server()
    server.publish(budgets=[{**BUDGET, "limit_nusd": 10**12}])
    node = start_node(server, limit=_small_files)
    codes = [node.code() for _ in range(60)]
    assert "admitted" == codes[0]
    assert "journal_unwritable" == codes[-1]
    assert node.admit("b").is_success  # has no budget: nothing to write down
    assert node.client.get("/health").is_success
    _until(lambda: bool(server.state()["requests"]))
    admitted = codes.count("admitted")
    node.process.send_signal(signal.SIGKILL)
    node.process.wait(60)
    start_node(server)  # the next agent reads a journal without a torn line in the middle
    _until(lambda: admitted == len(server.state()["unproven"]))


def _small_files() -> None:
    import resource  # noqa: PLC0415 - in the child only
    import signal as signals  # noqa: PLC0415 - in the child only

    signals.signal(signals.SIGXFSZ, signals.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, 4_096))


def test_signed_by_another_or_rolled_back_is_refused_and_said(
    start_server: Callable[..., Server], start_node: Callable[..., Node]
) -> None:
    """A bad signature has no name to NACK; an older generation is NACKed; both change nothing."""
    server, thief = start_server(), start_server()
    server.publish()
    server.publish()
    thief.publish(rules=[{"action": "deny", "id": "all"}])
    node = start_node(server)
    _until(lambda: node.client.get("/v1/policy").json()["policy"] == "1.2")
    node.process.terminate()
    node.process.wait(60)
    fooled = Server(thief.process, thief.url, server.keys)
    second = start_node(fooled)
    _until(lambda: "is not pinned" in second.log.read_text())
    assert "1.2" == second.client.get("/v1/policy").json()["policy"]
    assert second.admit("b").is_success
    second.process.terminate()
    second.process.wait(60)
    both = Server(thief.process, thief.url, {**server.keys, **thief.keys})
    third = start_node(both)  # now the thief's key is pinned, but its generation is 1.1
    _until(lambda: any(request["nack"] for request in thief.state()["requests"]))
    (nack, *_) = [r["nack"] for r in thief.state()["requests"] if r["nack"]]
    assert {"epoch": 1, "gen": 1} == nack["generation"]
    assert "older" in nack["reason"]
    assert third.admit("b").is_success


def test_a_server_that_comes_back_finds_every_agent_again(
    start_server: Callable[..., Server], start_node: Callable[..., Node]
) -> None:
    """The server stops answering under load and goes on later: settles arrive, nothing twice."""
    server = start_server()
    server.publish()
    node = start_node(server)
    held = [node.admit().json()["hold_id"] for _ in range(5)]
    server.process.send_signal(signal.SIGSTOP)
    for hold_id in held:
        usage = {"prompt_tokens": 5, "completion_tokens": 7}
        node.client.post(
            "/v1/settle", json={"hold_id": hold_id, "http_status": 200, "usage": usage}
        )
    time.sleep(1.5)  # longer than a request may take: the agent has given up on some
    assert 5 == node.client.get("/health").json()["pending_settles"]
    server.process.send_signal(signal.SIGCONT)
    _until(lambda: not node.client.get("/health").json()["pending_settles"])
    assert [5 * 1_000 + 7 * 10_000] * 5 == list(server.state()["settled"].values())
