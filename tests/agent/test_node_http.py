"""The node agent's HTTP as `deploy/docs/agent.md` has it: what is wrong is told, nothing is lost."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from controlplane.agent.bounds import bound_request
from controlplane.agent.main import build_agent
from controlplane.agent.node_api import METHODS, NodeApi
from controlplane.agent.node_gate import NodeGate
from controlplane.agent.node_server import MAX_BODY_BYTES, serve_socket
from controlplane.agent.runtime import Agent
from controlplane.agent.settings import AgentSettings
from controlplane.agent.ticket import Request

RATE = {"input_nusd": 10**9, "output_nusd": 10**10}
CARD = {"openai/m": RATE, "azure/m": RATE}
BODY = {"model": "m", "user": "a", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}]}
ORDER = {"path": "/v1/chat/completions", "host": "api.openai.com", "body": BODY}
QUOTA = {"action": "throttle", "id": "q", "concurrency": 20}
SHORT = {"action": "cap", "id": "short", "max_tokens": 40, "match": {"model": ["other"]}}
FAILOVER = {"action": "failover", "id": "f", "order": ["left", "right"], "on": ["5xx"]}
FAILOVER["breaker"] = {"failures": 2, "open_seconds": 60}  # type: ignore[assignment]


class Node(msgspec.Struct):
    """A node agent in this process."""

    agent: Agent
    client: httpx.AsyncClient
    path: Path


Work = Callable[[Node], Awaitable[None]]


@pytest.fixture
def serve(shared_control_plane: Any, tmp_path: Path) -> Callable[[Work], None]:
    """Run some work against a node agent of its own in this process."""
    budgets = [shared_control_plane.budget(limit_nusd=10**12)]
    shared_control_plane.publish(rate_card=CARD, rules=[QUOTA, FAILOVER, SHORT], budgets=budgets)
    settings = AgentSettings(
        server_url=shared_control_plane.url,
        api_key="k",
        policy_keys=shared_control_plane.keys,
        node="test",
        state_dir=tmp_path / "state",
        sync_interval_seconds=0.05,
        admission_wait_seconds=10.0,
    )

    async def main(work: Work) -> None:
        agent, path = build_agent(settings), tmp_path / "agent.sock"
        await agent.ready()
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with (
            serve_socket(path, NodeApi(agent)),
            httpx.AsyncClient(transport=transport, base_url="http://agent") as client,
        ):
            await work(Node(agent, client, path))
        await agent.stop()

    return lambda work: asyncio.run(main(work))


def test_routes_methods_and_errors_are_those_of_the_document(
    serve: Callable[[Work], None],
) -> None:
    text = (Path(__file__).parents[2] / "deploy" / "docs" / "agent.md").read_text()

    async def work(node: Node) -> None:
        for route, method in METHODS.items():
            assert f"`{method} {route}`" in text
            for other in {"GET", "POST", "PUT", "DELETE", "HEAD"} - {method}:
                wrong = await node.client.request(other, route)
                assert (405, method) == (wrong.status_code, wrong.headers["allow"])
        assert 404 == (await node.client.get("/v1/nothing")).status_code
        typed = await node.client.post(
            "/v1/admit", content=json.dumps(ORDER), headers={"content-type": "text/plain"}
        )
        said = typed.raise_for_status().json()
        assert all(f'"{field}"' in text for field in said)
        assert await _settle(node.client, hold_id=said["hold_id"], slot=said["slot"])
        assert not node.agent.holder.queue.unsettled

    serve(work)


async def _settle(client: httpx.AsyncClient, **said: Any) -> bool:
    answer = await client.post("/v1/settle", json={"http_status": 200, **said})
    return bool(answer.raise_for_status().json()["settled"])


WRONG: list[dict[str, Any]] = [
    {"surprise": 1},
    {"error": "never-sent"},
    {"http_status": 7},
    {"buckets": {"input_uncached": -1}},
    {"buckets": {"nothing_known": 1}},
    {"read": {"input_uncached": 2**41}},
    {"latency_seconds": -1},
]


def test_a_settle_that_is_not_understood_ends_nothing(serve: Callable[[Work], None]) -> None:
    async def work(node: Node) -> None:
        said = (await node.client.post("/v1/admit", json=ORDER)).json()
        for wrong in WRONG:
            order = {"hold_id": said["hold_id"], **wrong}
            answer = await node.client.post("/v1/settle", json=order)
            assert (400, True) == (answer.status_code, bool(answer.json()["detail"]))
        assert 1 == node.agent.holder.queue.unsettled
        assert await _settle(node.client, hold_id=said["hold_id"], slot=said["slot"])

    serve(work)


def test_what_is_no_http_or_too_long_is_told_and_the_next_is_served(
    serve: Callable[[Work], None],
) -> None:
    async def work(node: Node) -> None:
        reader, writer = await asyncio.open_unix_connection(node.path)
        writer.write(b"what is this\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        answer = await node.client.post("/v1/admit", content=b" " * (MAX_BODY_BYTES + 2**17))
        assert 413 == answer.status_code
        for content in (b"{", b"[]", b"\xff", b'{"body": 1}', b"[" * 100_000):
            assert 400 == (await node.client.post("/v1/admit", content=content)).status_code
        assert 200 == (await node.client.get("/health")).status_code
        assert not node.agent.holder.queue.unsettled

    serve(work)


def test_many_are_admitted_at_once_each_with_its_own_hold(serve: Callable[[Work], None]) -> None:
    async def work(node: Node) -> None:
        answers = await asyncio.gather(
            *(node.client.post("/v1/admit", json=ORDER) for _ in range(30))
        )
        statuses = sorted(answer.status_code for answer in answers)
        assert [200] * 20 + [429] * 10 == statuses
        said = [answer.json() for answer in answers if answer.is_success]
        assert 20 == len({one["hold_id"] for one in said})
        for one in said:
            assert await _settle(node.client, hold_id=one["hold_id"], slot=one["slot"])
        assert not node.agent.holder.queue.unsettled

    serve(work)


async def _until(is_so: Callable[[], bool], *, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - what another task of this loop does
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("reads", [False, True])
def test_only_who_never_read_its_admission_is_known_not_to_have_sent(
    serve: Callable[[Work], None], *, reads: bool
) -> None:
    order = json.dumps(ORDER)
    head = f"POST /v1/admit HTTP/1.1\r\nHost: agent\r\nContent-Length: {len(order)}\r\n\r\n"

    async def work(node: Node) -> None:
        admitted = node.agent.holder.tally.admitted
        reader, writer = await asyncio.open_unix_connection(node.path)
        if not reads:
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # of every socket's transport
        writer.write((head + order).encode())
        await _until(lambda: node.agent.holder.tally.admitted > admitted)
        if reads:
            assert await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        with contextlib.suppress(TimeoutError):
            await _until(
                lambda: not node.agent.holder.queue.unsettled, seconds=0.2 if reads else 60
            )
        assert int(reads) == node.agent.holder.queue.unsettled

    serve(work)


def test_azure_names_the_model_in_its_path_and_free_paths_hold_nothing(
    serve: Callable[[Work], None],
) -> None:
    async def work(node: Node) -> None:
        body = {name: value for name, value in BODY.items() if name != "model"}
        azure = {"host": "x.openai.azure.com", "path": "/openai/deployments/m/chat/completions?v=1"}
        said = (await node.client.post("/v1/admit", json={**ORDER, **azure, "body": body})).json()
        assert said["hold_id"]
        free = (await node.client.post("/v1/admit", json={**ORDER, "path": "/v1/files"})).json()
        assert {"request_id", "policy"} == free.keys()

    serve(work)


def test_the_breaker_is_the_rules_own(serve: Callable[[Work], None]) -> None:
    async def work(node: Node) -> None:
        for status, order in ((429, "left"), (503, "left"), (503, "left"), (200, "right")):
            said = (await node.client.post("/v1/admit", json=ORDER)).raise_for_status().json()
            assert order == said["deployments"][0]
            await _settle(
                node.client,
                hold_id=said["hold_id"],
                slot=said["slot"],
                http_status=status,
                deployment=order,
            )

    serve(work)


def test_what_the_rules_make_of_a_later_attempt_can_be_asked_without_a_hold(
    serve: Callable[[Work], None],
) -> None:
    async def work(node: Node) -> None:
        body, said = {**BODY, "model": "other"}, {}
        for _ in range(30):  # the quota has twenty places
            answer = await node.client.post(
                "/v1/admit", json={**ORDER, "body": body, "again": True, "hold": False}
            )
            said = answer.raise_for_status().json()
        assert (40, 40) == (said["output_tokens"], said["body"]["max_tokens"])
        assert not {"hold_id", "slot"} & said.keys()
        request = Request(
            request_id="r",
            facts={"tenant": "a", "model": "other"},
            bound=bound_request("chat", body),
            candidates=lambda model: ((f"openai/{model}",),),
            provider="openai",
        )
        gate = NodeGate(node.path)
        assert 40 == (await gate.look_again(request)).output_tokens
        gate.close()
        assert not node.agent.holder.queue.unsettled

    serve(work)
