"""The node agent as a program: its socket, its API, and several workers with one holder."""

import asyncio
import http.client
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from controlplane.agent.bounds import bound_request
from controlplane.agent.node_gate import NodeGate
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request

RATE = {"input_nusd": 10**9, "output_nusd": 10**10}
CARD = {"openai/m": RATE, "openai/m-small": RATE}
BODY = {"model": "m", "user": "a", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}]}
USAGE = {"prompt_tokens": 5, "completion_tokens": 7}
COST = 5 * 1_000 + 7 * 10_000


class Node(msgspec.Struct):
    """A running node agent."""

    process: subprocess.Popen[bytes]
    socket: Path
    client: httpx.Client

    def admit(self, **changes: Any) -> httpx.Response:
        """Admit a chat call as a proxy in any language would."""
        order = {"path": "/v1/chat/completions", "host": "api.openai.com", "body": BODY}
        return self.client.post("/v1/admit", json={**order, **changes})

    def settle(self, **said: Any) -> dict[str, bool]:
        """Say how a call ended."""
        answer: dict[str, bool] = (
            self.client.post("/v1/settle", json=said).raise_for_status().json()
        )
        return answer


Start = Callable[..., Node]


@pytest.fixture
def start_node(
    control_plane: Any, make_settings: Callable[..., Any], tmp_path: Path
) -> Iterator[Start]:
    running: list[Node] = []

    def start(*, wait: bool = True, **env: str) -> Node:
        settings = make_settings(control_plane)
        path = tmp_path / "agent.sock"
        keys = ",".join(f"{kid}={key}" for kid, key in settings.policy_keys.items())
        process = subprocess.Popen(
            [sys.executable, "-m", "controlplane", "agent"],
            stderr=subprocess.DEVNULL,
            env={
                **os.environ,
                "CONTROLPLANE_AGENT_SERVER_URL": settings.server_url,
                "CONTROLPLANE_AGENT_API_KEY": settings.api_key,
                "CONTROLPLANE_AGENT_STATE_DIR": str(settings.state_dir),
                "CONTROLPLANE_AGENT_POLICY_KEYS": keys,
                "CONTROLPLANE_AGENT_SOCKET": str(path),
                "CONTROLPLANE_AGENT_ADMISSION_WAIT_SECONDS": "3",  # a busy machine's lease
                **env,
            },
        )
        transport = httpx.HTTPTransport(uds=str(path))
        node = Node(
            process, path, httpx.Client(transport=transport, base_url="http://agent", timeout=30)
        )
        running.append(node)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as probe:
                is_there = probe.connect_ex(str(path)) == 0
            if is_there and (not wait or node.client.get("/health").is_success):
                return node
            time.sleep(0.05)
        raise AssertionError("the node agent did not start")

    yield start
    for node in running:
        node.client.close()
        node.process.terminate()
        node.process.wait(60)


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_admit_settle_and_what_is_said(control_plane: Any, start_node: Start) -> None:
    cap = {"action": "cap", "id": "c", "max_tokens": 9}
    quota = {"action": "throttle", "id": "q", "concurrency": 1}
    control_plane.publish(rate_card=CARD, rules=[cap, quota])
    node = start_node()
    assert 0o600 == stat.S_IMODE(node.socket.stat().st_mode)
    admitted = node.admit(request_id="mine").raise_for_status().json()
    assert ("mine", 9, 9) == (
        admitted["request_id"],
        admitted["output_tokens"],
        admitted["body"]["max_tokens"],
    )
    busy = node.admit()
    assert (429, "rate_limited") == (busy.status_code, busy.json()["error"]["code"])
    ends = {"hold_id": admitted["hold_id"], "slot": admitted["slot"], "http_status": 200}
    assert {"settled": True, "released": True} == node.settle(**ends, usage=USAGE)
    assert {"settled": False, "released": False} == node.settle(**ends, usage=USAGE)
    _until(lambda: [COST] == list(control_plane.state()["settled"].values()))
    _until(lambda: not node.client.get("/health").json()["pending_settles"])
    assert "controlplane_agent_unsettled_holds 0" in node.client.get("/metrics").text
    health = node.client.get("/health").json()
    assert ("healthy", "1.1", 0) == (health["status"], health["policy"], health["unsettled_holds"])
    unbounded = node.admit(request_id="other", body={**BODY, "nobody_knows": 1})
    told = unbounded.json()["error"]
    assert (429, "budget_unbounded_request", "other") == (
        unbounded.status_code,
        told["code"],
        told["request_id"],
    )
    assert {"name": "team a", "owner": "ana", "limit_usd": "1"}.items() <= told["budget"].items()
    assert {"spent_usd", "resets_at"} <= told["budget"].keys()
    policy = node.client.get("/v1/policy").json()
    assert ("1.1", {"tenant": "user"}) == (policy["policy"], policy["dimension_map"])


def test_the_first_call_waits_for_the_policy_that_says_whose_it_is(
    control_plane: Any, start_node: Start
) -> None:
    """Read without a dimension map, it would belong to nobody and pass every budget."""
    node = start_node(
        wait=False,
        CONTROLPLANE_AGENT_FIRST_POLICY_WAIT_SECONDS="60",
        CONTROLPLANE_AGENT_ADMISSION_WAIT_SECONDS="20",
    )
    order = json.dumps({"path": "/v1/chat/completions", "host": "api.openai.com", "body": BODY})
    head = "POST /v1/admit HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\n"
    with socket.socket(socket.AF_UNIX) as first:
        first.settimeout(60)
        first.connect(str(node.socket))
        first.sendall(f"{head}Content-Length: {len(order)}\r\n\r\n{order}".encode())
        for _ in range(2):  # answered in order of arrival by one loop: the call is under way
            assert not node.client.get("/health").is_success
        assert [] == select.select([first], [], [], 0)[0]  # nothing was published: no answer
        control_plane.publish(rate_card=CARD)
        answer = http.client.HTTPResponse(first)
        answer.begin()
        assert json.load(answer)["hold_id"]


def test_how_a_call_can_end(control_plane: Any, start_node: Start) -> None:
    """An error answer and a call that never left are free; what may have been served is not."""
    control_plane.publish(rate_card=CARD)
    node = start_node()
    endings: dict[str, dict[str, Any]] = {
        "error answer": {"http_status": 503},
        "never left": {"error": "connect"},
        "timed out": {"error": "timeout"},
        "lost on the way": {"http_status": 504},
        "no usage": {"http_status": 200},
    }
    names = {}
    for name, said in endings.items():
        hold_id = node.admit().json()["hold_id"]
        names[hold_id] = name
        node.settle(hold_id=hold_id, **said)
    _until(lambda: not node.client.get("/health").json()["pending_settles"])
    state = control_plane.state()
    assert {"error answer": 0, "never left": 0} == {
        names[hold]: nusd for hold, nusd in state["settled"].items()
    }
    assert {"timed out", "lost on the way", "no usage"} == {names[h] for h in state["unproven"]}


def test_what_is_not_understood_is_refused(control_plane: Any, start_node: Start) -> None:
    control_plane.publish(rate_card=CARD)
    node = start_node()
    wrong = node.client.post("/v1/admit", json={"surprise": 1})
    assert (400, True) == (wrong.status_code, "surprise" in wrong.json()["detail"])
    assert 404 == node.client.get("/v2/everything").status_code
    assert 400 == node.client.post("/v1/settle", content=b"{").status_code


def test_workers_share_one_holder_and_spend_no_more_than_the_budget(
    control_plane: Any, start_node: Start
) -> None:
    limit = 100 * 50 * 10_000
    control_plane.publish(rate_card=CARD, budgets=[control_plane.budget(limit_nusd=limit)])
    node = start_node(CONTROLPLANE_AGENT_ADMISSION_WAIT_SECONDS="1")
    bound = bound_request("chat", BODY)
    bodies: list[dict[str, Any]] = []

    def work(_: int) -> int:
        gate, served = NodeGate(node.socket), 0
        request = Request(
            request_id="r",
            facts={"tenant": "a", "model": "m", "operation": "chat"},
            bound=bound,
            candidates=lambda model: ((f"openai/{model}",),),
            provider="openai",
        )
        for _ in range(40):
            try:
                ticket = gate.admit_blocking(request)
            except RefusedError as refused:
                bodies.append(refused.refusal.body(request_id="r", policy=refused.policy))
                continue
            served += 1
            assert ticket.hold_id
            output = ticket.output_tokens or 50
            gate.settle(
                ticket.hold_id,
                Ending(ended_at=datetime.now(UTC), usage={"output_text": output}),
            )
        gate.close()
        return served

    with ThreadPoolExecutor(4) as pool:
        served = sum(pool.map(work, range(4)))
    assert 160 - served == len(bodies)
    assert {("budget_exhausted", "team a")} == {(b["code"], b["budget"]["name"]) for b in bodies}
    _until(lambda: not control_plane.state()["standing"]["leased_nusd"])
    standing = control_plane.state()["standing"]
    assert 0.95 * limit <= standing["settled_enforced_nusd"] <= limit
    holders = {request["boot_id"] for request in control_plane.state()["requests"]}
    assert 1 == len(holders)


def test_a_killed_node_agent_is_replaced_and_what_it_owed_is_said(
    control_plane: Any, start_node: Start
) -> None:
    control_plane.publish(rate_card=CARD)
    first = start_node()
    held = [first.admit().json()["hold_id"] for _ in range(3)]
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(60)
    gate = NodeGate(first.socket)
    with pytest.raises(RefusedError) as gone:
        asyncio.run(  # not the blocking way: httpcore forgets to close what could not connect
            gate.admit(
                Request(
                    request_id="r",
                    facts={"tenant": "a", "model": "m"},
                    bound=bound_request("chat", BODY),
                    candidates=lambda model: ((f"openai/{model}",),),
                    provider="openai",
                )
            )
        )
    assert ("agent_unreachable", 503) == (gone.value.refusal.code, gone.value.refusal.status)
    gate.close()
    second = start_node()
    assert second.socket == first.socket
    _until(lambda: set(held) == control_plane.state()["unproven"].keys())


def test_a_second_agent_does_not_take_the_socket(control_plane: Any, start_node: Start) -> None:
    control_plane.publish(rate_card=CARD)
    node = start_node()
    other = subprocess.run(
        [sys.executable, "-m", "controlplane", "agent"],
        capture_output=True,
        timeout=120,
        check=False,
        env={
            **os.environ,
            "CONTROLPLANE_AGENT_SERVER_URL": control_plane.url,
            "CONTROLPLANE_AGENT_API_KEY": "k",
            "CONTROLPLANE_AGENT_STATE_DIR": str(node.socket.parent / "other"),
            "CONTROLPLANE_AGENT_POLICY_KEYS": ",".join(
                f"{kid}={key}" for kid, key in control_plane.keys.items()
            ),
            "CONTROLPLANE_AGENT_SOCKET": str(node.socket),
        },
    )
    assert other.returncode
    assert json.dumps(str(node.socket)).strip('"') in other.stderr.decode()
    assert node.client.get("/health").is_success


def test_the_verified_policy_is_rendered_and_another_is_not(
    control_plane: Any, start_node: Start, make_settings: Callable[..., Any], tmp_path: Path
) -> None:
    body = {"action": "deny", "id": "body", "match": {"tenant": ["x"]}}
    control_plane.publish(
        dimension_map={"tenant": "user", "team": "header.x-team"},
        rules=[{"action": "deny", "id": "head", "match": {"team": ["x"]}, "priority": 1}, body],
    )
    start_node()
    settings = make_settings(control_plane)
    env = {
        **os.environ,
        "CONTROLPLANE_AGENT_SERVER_URL": settings.server_url,
        "CONTROLPLANE_AGENT_API_KEY": "k",
        "CONTROLPLANE_AGENT_STATE_DIR": str(settings.state_dir),
    }
    command = [sys.executable, "-m", "controlplane", "policy", "render", "--for", "nginx"]
    command += ["--out", str(tmp_path / "out"), "--json"]

    def render(keys: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        pinned = ",".join(f"{kid}={key}" for kid, key in keys.items())
        return subprocess.run(
            command,
            capture_output=True,
            check=False,
            timeout=120,
            env={**env, "CONTROLPLANE_AGENT_POLICY_KEYS": pinned},
        )

    done = render(settings.policy_keys)
    said = json.loads(done.stdout)
    assert ("1.1", 2, ["body"]) == (said["policy"], len(said["changed"]), said["left_to_an_agent"])
    other = render({"0" * 16: "A" * 43 + "="})
    assert (2, True) == (other.returncode, b"not pinned" in other.stderr)
