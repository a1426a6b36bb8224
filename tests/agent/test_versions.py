"""An agent and a server of different versions: each does what it understands, and says the rest."""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from typing_extensions import override

from controlplane.agent.bounds import bound_request
from controlplane.agent.main import build_agent
from controlplane.agent.node_api import NodeApi
from controlplane.agent.runtime import Agent, Surroundings
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request
from controlplane.policy.bundle import Signer


class OtherVersion(httpx.AsyncBaseTransport):
    """A server of another version: what it answers to each path; what it does not have is a 404."""

    def __init__(self, **answers: Callable[[httpx.Request], httpx.Response]) -> None:
        self.answers, self.asked, self.polled = answers, 0, 0

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.rpartition("/")[2]
        self.asked += name == "sync"
        self.polled += name == "policy"
        await request.aread()
        answer = self.answers.get(name)
        return answer(request) if answer else httpx.Response(404, request=request)


SIGNER = Signer(bytes(range(32)))
DOCUMENT: dict[str, Any] = {
    "epoch": 1,
    "gen": 1,
    "issued_at": "2026-01-01T00:00:00Z",
    "rate_card": {"m": {"input_nusd": 10**9, "output_nusd": 10**10}},
    "budgets": [
        {
            "id": "b1",
            "name": "team a",
            "owner": "ana",
            "match": {"tenant": ["a"]},
            "limit_nusd": 10**9,
            "window_start": "2026-01-01T00:00:00Z",
            "window_end": "2036-01-01T00:00:00Z",
        }
    ],
}


def _policy(**changes: Any) -> Callable[[httpx.Request], httpx.Response]:
    body = json.dumps({**DOCUMENT, **changes}).encode()
    etag = f'"1.{changes.get("gen", 1)}"'

    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers.get("if-none-match") == etag:
            return httpx.Response(304)
        headers = {"etag": etag, "policy-signature": SIGNER.sign(body)}
        return httpx.Response(200, content=body, headers=headers)

    return answer


def _granted(request: httpx.Request, **more: Any) -> httpx.Response:
    """Grant what is wanted, in the words of the first server that had leases."""
    said, now = json.loads(request.content), datetime.now(UTC).isoformat()
    grants = [
        {
            "budget_id": "b1",
            "lease_id": secrets.token_hex(4),
            "ttl_seconds": 20.0,
            "amount_nusd": want["need_nusd"],
            "expires_at": now,
        }
        for want in said.get("want", ())
    ]
    settled = [one["hold_id"] for one in said.get("settle", ())]
    reply = {"generation": {"epoch": 1, "gen": 1}, "grants": grants, "settled": settled}
    return httpx.Response(200, json={**reply, "server_time": now, **more})


def _request(tenant: str = "a") -> Request:
    said = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
    return Request(
        request_id="r",
        facts={"tenant": tenant, "model": "m", "operation": "chat"},
        bound=bound_request("chat", said),
        candidates=lambda group: ((group,),),
        provider="p",
    )


def _used(output: int) -> Ending:
    return Ending(ended_at=datetime.now(UTC), usage={"input_uncached": 1, "output_text": output})


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - what another task of this loop does
            await asyncio.sleep(0.01)


def _against(
    server: OtherVersion, tmp_path: Path, work: Callable[[Agent], Awaitable[None]]
) -> None:
    settings = AgentSettings(
        server_url="http://hub",
        api_key="k",
        policy_keys=SIGNER.pinned,
        node="n",
        state_dir=tmp_path,
        first_policy_wait_seconds=0.5,
        sync_interval_seconds=0.05,
    )

    async def main() -> None:
        agent = build_agent(settings, surroundings=Surroundings(transport=server))
        await agent.ready()
        await work(agent)
        await agent.stop()

    asyncio.run(main())


def test_an_older_server_is_served_by_what_it_has(tmp_path: Path) -> None:
    """No stream, no set of keys, no poll that waits, no fields in an answer that came later."""

    async def work(agent: Agent) -> None:
        ticket = await agent.admit(_request())
        agent.settle(ticket.hold_id or "", _used(5))
        await _until(lambda: not agent.holder.queue.pending)
        assert not agent.is_degraded
        assert server.polled < 5

    server = OtherVersion(policy=_policy(), sync=_granted)
    _against(server, tmp_path, work)


def test_a_server_without_leases_is_named_as_the_reason(tmp_path: Path) -> None:
    async def work(agent: Agent) -> None:
        await _until(lambda: agent.syncer.is_late)
        with pytest.raises(RefusedError, match="the control plane has not answered") as refused:
            await agent.admit(_request())
        assert 5 == refused.value.refusal.retry_after_seconds
        assert (await agent.admit(_request("b"))).hold_id is None
        told = msgspec.json.decode(NodeApi(agent).health()[2])
        assert ("degraded", True) == (told["status"], told["sync_late"])
        assert "404" in told["sync_error"]

    _against(OtherVersion(policy=_policy()), tmp_path, work)


def test_what_a_newer_server_adds_to_its_answers_is_left_alone(tmp_path: Path) -> None:
    def newer(request: httpx.Request) -> httpx.Response:
        return _granted(request, forecast={"b1": 3})

    async def work(agent: Agent) -> None:
        assert (await agent.admit(_request())).hold_id
        assert not agent.is_degraded

    _against(OtherVersion(policy=_policy(), sync=newer), tmp_path, work)


def test_answers_that_are_not_understood_are_none_and_are_not_asked_for_without_pause(
    tmp_path: Path,
) -> None:
    server = OtherVersion(policy=_policy(), sync=lambda r: _granted(r, grants=[{"v": 2}]))

    async def work(agent: Agent) -> None:
        await _until(lambda: agent.syncer.is_late)
        with pytest.raises(RefusedError, match="the control plane has not answered"):
            await agent.admit(_request())
        assert "grants[0]" in str(agent.status()["sync_error"])
        assert server.asked < 10
        server.answers["sync"] = _granted
        await _until(lambda: not agent.is_degraded)
        assert agent.status()["sync_error"] is None

    _against(server, tmp_path, work)


@pytest.mark.parametrize(
    ("newer", "why"),
    [
        ({"rules": [{"action": "teleport", "id": "t"}]}, "teleport"),
        ({"budgets": [{**DOCUMENT["budgets"][0], "forgiving": True}]}, "forgiving"),
        ({"rules": [{"action": "deny", "id": "d", "match": {"moon": ["full"]}}]}, "moon"),
        ({"capabilities_required": ["teleport"]}, "teleport"),
    ],
)
def test_a_policy_that_is_not_understood_is_refused_whole_and_says_so(
    tmp_path: Path, newer: dict[str, Any], why: str
) -> None:
    """Nothing is let through by it; the one before stays in force, where there is one."""
    server = OtherVersion(policy=_policy(**newer), sync=_granted)

    async def nothing(agent: Agent) -> None:
        with pytest.raises(RefusedError, match="can not apply the policy"):
            await agent.admit(_request("b"))
        status, _, body = NodeApi(agent).health()
        assert (503, "unhealthy") == (status, msgspec.json.decode(body)["status"])
        assert why in msgspec.json.decode(body)["policy_refused"]

    _against(server, tmp_path / "new", nothing)

    async def before(agent: Agent) -> None:
        assert (await agent.admit(_request())).hold_id
        server.answers["policy"] = _policy(**newer, gen=2)
        await _until(lambda: agent.puller.nack is not None)
        assert (await agent.admit(_request())).hold_id
        told = msgspec.json.decode(NodeApi(agent).health()[2])
        assert ("degraded", "1.1") == (told["status"], told["policy"])
        assert why in told["policy_refused"]

    server.answers["policy"] = _policy()
    _against(server, tmp_path / "before", before)
