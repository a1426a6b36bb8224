"""Every operation through the real clients, and what a policy does to it, with an upstream in process."""

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import msgspec
import openai
import pytest

from controlplane.agent.embedded import EmbeddedAgent
from controlplane.agent.httpx_transport import AsyncControlplaneTransport, ControlplaneTransport
from controlplane.agent.main import build_agent
from controlplane.agent.settings import AgentSettings
from controlplane.agent.targets import Target
from tests.agent.upstream import READ, WROTE, Upstream

IN_NUSD, OUT_NUSD = 1_000, 10_000
RATE = {"input_nusd": IN_NUSD * 10**6, "output_nusd": OUT_NUSD * 10**6}
CARD = {"openai/m": RATE, "openai/m-small": RATE, "anthropic/m": RATE}
SAY: Any = [{"role": "user", "content": "say something short"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


class World(msgspec.Struct):
    """An agent with its control plane, and clients that go through it to the upstream."""

    gate: EmbeddedAgent
    plane: Any
    upstream: Upstream
    transport: ControlplaneTransport
    openai: openai.OpenAI
    anthropic: anthropic.Anthropic

    def publish(self, *rules: dict[str, Any], **changes: Any) -> None:
        """Publish rules and wait until the agent applies them; the upstream is as new."""
        order = {"rate_card": CARD, "budgets": [self.plane.budget(limit_nusd=10**12)], **changes}
        self.plane.publish(rules=list(rules), **order)
        self.gate.ready()
        wanted = httpx.get(f"{self.plane.url}/api/v1/policy").headers["ETag"].strip('"')
        self.until(lambda: self.gate.policy == wanted)
        fresh = Upstream()
        fresh.gate = self.gate
        self.upstream.__dict__.update(fresh.__dict__)

    def ask(self, **more: Any) -> httpx.Response:
        """Make one chat call without a client that retries or raises."""
        order = {"model": "m", "user": "a", "max_tokens": 20, "messages": SAY, **more}
        with httpx.Client(transport=self.transport, follow_redirects=True) as plain:
            return plain.post("http://up/v1/chat/completions", json=order)

    def settled(self, ask: Callable[[], object]) -> list[dict[str, Any]]:
        """Return what the control plane is told of the calls that are made meanwhile."""
        self.until(lambda: not self.gate.agent.holder.queue.is_busy)  # what a test before left
        before = len(self._told())
        sent = len(self.upstream.sent)
        ask()
        self.until(lambda: not self.gate.agent.holder.queue.is_busy)
        self.until(lambda: len(self._told()) >= before + len(self.upstream.sent) - sent)
        return self._told()[before:]

    def _told(self) -> list[dict[str, Any]]:
        told = [one for said in self.plane.state()["requests"] for one in said["settle"]]
        return list({one["hold_id"]: one for one in told}.values())

    @staticmethod
    def until(is_so: Callable[[], bool]) -> None:
        """Wait for what another thread or process does."""
        deadline = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture(scope="module")
def world(shared_control_plane: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with _world(shared_control_plane, tmp_path_factory.mktemp("state")) as made:
        yield made


@contextlib.contextmanager
def _world(plane: Any, state_dir: Path) -> Iterator[World]:
    settings = AgentSettings(
        server_url=plane.url,
        api_key="cp_proxy_test_test",
        policy_keys=plane.keys,
        node="test",
        state_dir=state_dir,
        sync_interval_seconds=0.05,
        admission_wait_seconds=10.0,
    )
    gate, upstream = EmbeddedAgent(build_agent(settings)), Upstream()
    targets = {
        name: Target(base_url=f"http://{name}/v1", provider="openai") for name in ("left", "right")
    }
    transport = ControlplaneTransport(gate, inner=upstream, provider="openai", targets=targets)
    messages = ControlplaneTransport(
        gate, inner=upstream, provider="anthropic", known={"tenant": "a"}
    )
    http: Any = httpx2.Client(transport=transport)  # type: ignore[arg-type]  # the same by shape
    other: Any = httpx2.Client(transport=messages)  # type: ignore[arg-type]  # the same by shape
    yield World(
        gate,
        plane,
        upstream,
        transport,
        openai.OpenAI(base_url="http://up/v1", api_key="k", http_client=http, max_retries=0),
        anthropic.Anthropic(base_url="http://up", api_key="k", http_client=other, max_retries=0),
    )
    gate.close()


@pytest.fixture
def plain(world: World) -> World:
    world.publish()
    return world


CALLS: dict[str, tuple[Callable[[World], object], int]] = {
    "chat": (lambda w: _chat(w, max_tokens=30), 30),
    "chat n": (lambda w: _chat(w, max_tokens=30, n=3), 90),
    "chat newer limit": (lambda w: _chat(w, max_completion_tokens=40), 40),
    "chat tools": (lambda w: _chat(w, max_tokens=30, tools=[TOOL]), 30),
    "chat stream": (lambda w: list(_chat(w, max_tokens=30, stream=True)), 30),
    "chat stream n": (lambda w: list(_chat(w, max_tokens=30, stream=True, n=2)), 60),
    "completions": (lambda w: w.openai.completions.create(prompt="x", **_of(max_tokens=30)), 30),
    "completions best of": (
        lambda w: w.openai.completions.create(prompt=["x", "y"], **_of(max_tokens=30, best_of=3)),
        180,
    ),
    "responses": (lambda w: w.openai.responses.create(input="x", **_of(max_output_tokens=30)), 30),
    "responses stream": (
        lambda w: list(
            w.openai.responses.create(input="x", stream=True, **_of(max_output_tokens=9))
        ),
        9,
    ),
    "messages": (lambda w: w.anthropic.messages.create(**_message(max_tokens=30)), 30),
    "messages stream": (
        lambda w: list(w.anthropic.messages.create(stream=True, **_message(max_tokens=30))),
        30,
    ),
    "embeddings": (lambda w: w.openai.embeddings.create(input="x", **_of()), 0),
}


def _of(**more: Any) -> dict[str, Any]:
    return {"model": "m", "user": "a", **more}


def _message(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": SAY, **more}


def _chat(world: World, **more: Any) -> Any:
    return world.openai.chat.completions.create(messages=SAY, **_of(**more))


@pytest.mark.parametrize("name", CALLS)
def test_every_operation_holds_its_ceiling_and_settles_what_was_used(
    plain: World, name: str
) -> None:
    call, most = CALLS[name]
    (told,) = plain.settled(lambda: call(plain))
    assert plain.upstream.held[-1] >= most * OUT_NUSD + READ * IN_NUSD
    written = 0 if name == "embeddings" else WROTE
    cost = sum(
        count * (IN_NUSD if bucket.startswith("input") else OUT_NUSD)
        for bucket, count in told["usage"].items()
    )
    assert READ * IN_NUSD + written * OUT_NUSD == cost
    assert ("ok", None) == (told["status"], told["error_type"])


def test_a_stream_without_usage_is_charged_in_full(plain: World) -> None:
    plain.upstream.says_usage = False
    (told,) = plain.settled(lambda: list(_chat(plain, max_tokens=30, stream=True)))
    assert (None, "ok") == (told["usage"], told["status"])


def test_a_redirect_costs_nothing_and_where_it_leads_is_held(plain: World) -> None:
    plain.upstream.statuses = [307]
    told = plain.settled(lambda: plain.ask().raise_for_status())
    assert [{}, WROTE] == [told[0]["usage"], told[1]["usage"]["output_text"]]


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"max_tokens": 90}, {"max_tokens": 50}),
        ({"max_completion_tokens": 90}, {"max_completion_tokens": 50}),
        (
            {"max_tokens": 90, "max_completion_tokens": 90},
            {"max_tokens": 50, "max_completion_tokens": 50},
        ),
        ({}, {"max_completion_tokens": 50}),  # reasoning models of OpenAI take no other
        ({"max_tokens": 20}, {"max_tokens": 20}),
    ],
)
def test_cap_of_a_chat_in_whichever_field(
    world: World, asked: dict[str, int], sent: dict[str, int]
) -> None:
    world.publish({"action": "cap", "id": "c", "max_tokens": 50})
    _chat(world, **asked)
    limits = {name: n for name, n in world.upstream.sent[-1].items() if name.startswith("max_")}
    assert sent == limits


def test_cap_of_responses_and_messages_and_the_thinking_within(world: World) -> None:
    world.publish({"action": "cap", "id": "c", "max_tokens": 2_000})
    world.openai.responses.create(input="x", **_of(max_output_tokens=9_000))
    assert 2_000 == world.upstream.sent[-1]["max_output_tokens"]
    thinking: Any = {"type": "enabled", "budget_tokens": 5_000}
    world.anthropic.messages.create(thinking=thinking, **_message(max_tokens=9_000))
    sent = world.upstream.sent[-1]
    assert (2_000, 1_999) == (sent["max_tokens"], sent["thinking"]["budget_tokens"])
    world.publish({"action": "cap", "id": "c", "max_tokens": 500})
    world.anthropic.messages.create(thinking=thinking, **_message(max_tokens=9_000))
    assert "thinking" not in world.upstream.sent[-1]  # less than the API's least


def test_cap_of_choices_holds_every_prompt(world: World) -> None:
    world.publish({"action": "cap", "id": "c", "n": 2})
    order: Any = _of(max_tokens=30, n=5)
    world.openai.completions.create(prompt=["a", "b", "c"], **order)
    assert 2 == world.upstream.sent[-1]["n"]
    assert world.upstream.held[-1] >= 2 * 3 * 30 * OUT_NUSD


@pytest.mark.parametrize("odd", [{"n": 3.0}, {"n": "3"}, {"n": 10**9}, {"max_tokens": 2**62}])
def test_counts_that_servers_read_in_several_ways_have_no_bound(
    plain: World, odd: dict[str, Any]
) -> None:
    answer = plain.ask(**odd)
    assert (429, "budget_unbounded_request") == (answer.status_code, _code(answer))
    assert not plain.upstream.sent


def _code(answer: httpx.Response) -> str:
    code: str = answer.json()["error"]["code"]
    return code


def test_weights_converge_and_a_key_stays_on_its_arm(world: World) -> None:
    weights = {"left": 3, "right": 1}
    world.publish({"action": "route", "id": "r", "weights": weights, "sticky": "tenant"})
    arms: dict[str, set[str]] = {}
    for number in range(400):
        world.ask(user=f"u{number % 200}")
        arms.setdefault(f"u{number % 200}", set()).add(world.upstream.hosts[-1])
    assert {1} == {len(hosts) for hosts in arms.values()}
    seen = Counter(next(iter(hosts)) for hosts in arms.values())
    assert abs(seen["left"] / 200 - 0.75) < 0.11  # 3.6 standard deviations of 200 draws


FAILOVER = {"action": "failover", "id": "f", "order": ["left", "right"]}


@pytest.mark.parametrize("wrong", [httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError])
def test_a_connection_that_breaks_is_gone_on_from_and_charged_if_it_was_sent(
    world: World, wrong: type[Exception]
) -> None:
    world.publish(FAILOVER)
    world.upstream.failures = [wrong]
    told = world.settled(lambda: world.ask().raise_for_status())
    assert ["left", "right"] == world.upstream.hosts
    assert ({} if wrong is httpx.ConnectError else None) == told[0]["usage"]
    assert WROTE == told[1]["usage"]["output_text"]


def test_the_next_attempt_is_held_as_it_is_sent(world: World) -> None:
    """Without a limit of its own, with a tool that has no bound: the policy made both harmless."""
    world.publish(
        FAILOVER,
        {"action": "cap", "id": "c", "max_tokens": 50, "n": 1},
        {"action": "strip", "id": "s", "features": ["server_tools"]},
    )
    world.upstream.statuses = [503]
    told = world.settled(
        lambda: world.ask(max_tokens=None, n=4, tools=[{"type": "web_search"}]).raise_for_status()
    )
    assert [{}, WROTE] == [told[0]["usage"], told[1]["usage"]["output_text"]]
    assert told[0]["held_nusd"] >= told[1]["held_nusd"] >= 50 * OUT_NUSD + READ * IN_NUSD
    assert told[1]["held_nusd"] < 2 * 50 * OUT_NUSD  # one choice, not four


def _async_client(world: World) -> httpx.AsyncClient:
    transport = AsyncControlplaneTransport(
        world.gate,
        inner=world.upstream,
        provider="openai",
        targets={"probed": Target(base_url="http://probed/v1", provider="openai")},
    )
    return httpx.AsyncClient(transport=transport)


def _order(**more: Any) -> dict[str, Any]:
    return {
        "url": "http://up/v1/chat/completions",
        "json": {**_of(max_tokens=20, messages=SAY), **more},
    }


def test_a_probe_whose_sender_leaves_is_followed_by_another(world: World) -> None:
    breaker = {"failures": 1, "open_seconds": 0}
    world.publish({**FAILOVER, "order": ["probed"], "breaker": breaker})
    deployments = world.gate.deployments

    async def main() -> None:
        async with _async_client(world) as client:
            world.upstream.statuses = [503]
            assert 503 == (await client.post(**_order())).status_code
            world.upstream.hangs = asyncio.Event()
            probe = asyncio.create_task(client.post(**_order()))
            await world.upstream.hangs.wait()
            probe.cancel()
            with pytest.raises(asyncio.CancelledError):
                await probe

    told = world.settled(lambda: asyncio.run(main()))
    assert [{}, None] == [one["usage"] for one in told]
    assert not deployments.is_open("probed", time.monotonic())


def test_who_leaves_while_waiting_for_money_keeps_no_quota_and_no_hold(
    control_plane: Any, tmp_path: Path
) -> None:
    """The first call holds nearly the whole budget; those behind it wait for what it leaves."""
    with _world(control_plane, tmp_path) as world:
        world.publish(
            {"action": "throttle", "id": "q", "concurrency": 3},
            budgets=[control_plane.budget(limit_nusd=400_000)],
        )
        asyncio.run(_four_leave(world))
        world.until(lambda: not world.gate.agent.holder.queue.unsettled)
        assert 1 == world.gate.agent.holder.tally.admitted
        assert not world.gate.agent.admission.desk.refusals  # the quota had room for each of them
        assert 200 == world.ask(user="b").status_code  # who has no budget, but the same quota


async def _four_leave(world: World) -> None:
    async with _async_client(world) as client:
        world.upstream.hangs = asyncio.Event()
        first = asyncio.create_task(client.post(**_order()))
        await world.upstream.hangs.wait()
        for number in range(4):
            waiting = asyncio.create_task(client.post(**_order(max_tokens=16 + number)))
            await asyncio.sleep(0)  # it is answered at once or it waits: there is a policy
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.sleep(0.5)  # for the agent's own loop to hear of it
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        world.upstream.hangs = None


@pytest.mark.parametrize("events", [1, 4])
def test_a_stream_that_is_left_in_the_middle_holds_nothing_more(plain: World, events: int) -> None:
    """After one of three pieces what was written is not known; the fourth event is the usage."""

    async def main() -> None:
        async with _async_client(plain) as client:
            order = _order(stream=True, stream_options={"include_usage": True})
            async with client.stream("POST", order["url"], json=order["json"]) as answer:
                left = events
                async for line in answer.aiter_lines():
                    left -= line.startswith("data:")
                    if not left:
                        break

    (told,) = plain.settled(lambda: asyncio.run(main()))
    if events == 1:
        assert (None, "error", "cancelled") == (told["usage"], told["status"], told["error_type"])
    else:
        assert ("ok", WROTE) == (told["status"], told["usage"]["output_text"])


def test_a_canary_is_not_blamed_for_who_leaves(world: World) -> None:
    canary = {"action": "canary", "id": "c", "to": "m-small", "share_percent": 100, "min_calls": 2}
    world.publish({**canary, "abort_if": {"error_ratio": 0.1}})
    slots = world.gate.agent.admission.desk.slots
    for _ in range(4):
        stream = _chat(world, max_tokens=30, stream=True)
        next(iter(stream))
        stream.close()
    assert {} == slots.ended_canaries
    assert {"m-small"} == {body["model"] for body in world.upstream.sent}
    world.upstream.statuses = [500, 500]
    assert [500, 500] == [world.ask().status_code for _ in range(2)]
    assert {"c"} == slots.ended_canaries.keys()
    world.ask()
    assert "m" == world.upstream.sent[-1]["model"]


def test_a_full_disk_refuses_and_keeps_neither_money_nor_quota(world: World) -> None:
    world.publish({"action": "throttle", "id": "q", "concurrency": 1})
    world.settled(lambda: world.ask().raise_for_status())
    holder = world.gate.agent.holder
    left = holder.book.left_nusd("b1")
    assert left
    file = next(
        int(link.name)
        for link in Path("/proc/self/fd").iterdir()
        if link.exists() and link.resolve() == holder.journal.path.resolve()
    )
    kept, full = os.dup(file), os.open("/dev/full", os.O_WRONLY)
    try:
        os.dup2(full, file)
        answer = world.ask()
    finally:
        os.dup2(kept, file)
        os.close(kept)
        os.close(full)
    assert (503, "journal_unwritable") == (answer.status_code, _code(answer))
    assert left == holder.book.left_nusd("b1")
    assert 200 == world.ask().status_code
