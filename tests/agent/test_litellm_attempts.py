"""Attempts of LiteLLM's router, without LiteLLM: where each goes, what is changed, what it holds."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from controlplane.agent.bounds import bound_request
from controlplane.agent.health import Deployments
from controlplane.agent.litellm_attempts import LEAST_OUTPUT_TOKENS, Attempts
from controlplane.agent.litellm_calls import Call, Calls
from controlplane.agent.refusal import Refusal
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request, Ticket

SAY = [{"role": "user", "content": "hello"}]
ENDED = Ending(ended_at=datetime(2026, 1, 1, tzinfo=UTC), status="error", usage={})


class Router:
    """As much of LiteLLM's router as is asked."""

    def __init__(self) -> None:
        self.model_group_alias = {"nick": "b"}
        self.asks: Callable[[str], Any] | None = None

    def get_model_list(self, model_name: str) -> list[dict[str, Any]]:
        return [_deployment(model_name)]

    async def async_get_healthy_deployments(self, *, model: str, **_: object) -> list[Any]:
        """Ask the plug-in again, as LiteLLM does."""
        assert self.asks
        found: list[Any] = await self.asks(model)
        return found


class Agent:
    """A gate that answers what it was told to, and writes down what it was asked."""

    policy = "1.1"

    def __init__(self, **rules: Ticket) -> None:
        self.rules, self.deployments = rules, Deployments()
        self.looked: list[Request] = []
        self.held: list[Request] = []
        self.settled: list[tuple[str, Ending]] = []
        self.closed: set[str] = set()

    async def look_again(self, request: Request) -> Ticket:
        self.looked.append(request)
        if request.facts["model"] in self.closed:
            raise RefusedError(Refusal(code="policy_denied", reason="closed"), "1.1")
        return self.rules.get(request.facts["model"], Ticket())

    async def admit_again(self, request: Request) -> Ticket:
        self.held.append(request)
        return Ticket(hold_id=f"hold{len(self.held)}")

    def settle(self, hold_id: str, ending: Ending) -> None:
        self.settled.append((hold_id, ending))


class World(msgspec.Struct):
    """A call for model a that was admitted with a limit of 50, and LiteLLM around it."""

    agent: Agent
    router: Router
    attempts: Attempts
    call: Call
    metadata: dict[str, Any]

    async def route(self, group: str) -> list[Any]:
        """Choose for an attempt; `kwargs` are what LiteLLM has for it."""
        self.metadata["model_group"] = group
        kwargs = self.kwargs()

        async def choose(model: str) -> list[Any]:
            healthy = [_deployment(model)]
            return await self.attempts.choose(
                self.call, model, healthy, kwargs=kwargs, messages=SAY
            )

        self.router.asks = choose
        return await choose(self.router.model_group_alias.get(group, group))

    def kwargs(self, upstream: str = "openai/a") -> dict[str, Any]:
        """Return a fresh request, as the router makes one for each attempt."""
        said = {"messages": SAY, "max_tokens": 50, "logprobs": True, "metadata": self.metadata}
        return {**said, "model": upstream}

    async def attempt(self, group: str) -> dict[str, Any]:
        """Route and begin an attempt; return what is sent."""
        chosen = await self.route(group)
        sent = self.kwargs(chosen[0]["litellm_params"]["model"])
        await self.attempts.begin(self.call, sent)
        return sent


def _deployment(group: str) -> dict[str, Any]:
    return {"litellm_params": {"model": f"openai/{group}"}, "model_info": {"id": f"id-{group}"}}


def _world(**rules: Ticket) -> World:
    agent, router = Agent(**rules), Router()
    gate: Any = agent
    calls = Calls(gate)
    bound = bound_request("chat", {"messages": SAY, "max_tokens": 50})
    ticket = Ticket(hold_id="hold0")
    call = Call(
        group="a",
        facts={"model": "a", "tenant": "a", "provider": "anthropic"},
        operation="chat",
        bound=bound,
        ticket=ticket,
        rules=ticket,
        hold_id="hold0",
        is_governed=True,
        point=0.0,
    )
    data: dict[str, Any] = {"metadata": {}}
    calls.remember(data, call)
    return World(agent, router, Attempts(gate, calls, lambda: router), call, data["metadata"])


def test_a_retry_is_the_same_request_with_a_hold_of_its_own() -> None:
    world = _world()
    first = asyncio.run(world.attempt("a"))
    assert (50, True) == (first["max_tokens"], first["logprobs"])
    assert not world.agent.held  # it has the hold of its admission
    world.call.hold_id = None  # LiteLLM told that it failed
    asyncio.run(world.attempt("a"))
    assert not world.agent.looked
    (held,) = world.agent.held
    assert ("a", LEAST_OUTPUT_TOKENS) == (held.facts["model"], held.bound.least_output_tokens)


def test_every_attempt_of_a_fallback_is_changed_by_its_own_rules() -> None:
    world = _world(b=Ticket(output_tokens=20, strip=("logprobs",), headers={"x-b": "1"}))
    asyncio.run(world.attempt("a"))
    for _ in range(2):
        sent = asyncio.run(world.attempt("b"))
        assert (20, False) == (sent["max_tokens"], "logprobs" in sent)
        assert ({"x-b": "1"}, 0) == (sent["extra_headers"], sent["max_retries"])
    (looked,) = world.agent.looked
    assert {"model": "b", "tenant": "a", "provider": "openai"} == dict(looked.facts)
    assert [20, 20] == [held.bound.output_tokens for held in world.agent.held]
    assert {"b"} == {held.facts["model"] for held in world.agent.held}
    assert [("openai/b",)] == list(world.agent.held[0].candidates("b"))
    other = asyncio.run(world.attempt("c"))  # begins from the request that was admitted
    assert (50, True) == (other["max_tokens"], other["logprobs"])


def test_the_model_of_a_fallback_is_replaced_by_who_serves_the_other() -> None:
    world = _world(b=Ticket(model="small", output_tokens=20))
    sent = asyncio.run(world.attempt("b"))
    assert ("openai/small", 20) == (sent["model"], sent["max_tokens"])
    assert "small" == world.agent.held[-1].facts["model"]
    assert not world.call.is_replacing
    (looked,) = world.agent.looked
    assert "b" == looked.facts["model"]
    sent = asyncio.run(world.attempt("c"))
    assert ("openai/c", 50) == (sent["model"], sent["max_tokens"])


def test_a_name_of_the_operators_for_the_same_group_is_no_fallback() -> None:
    world = _world()
    world.call.group = "nick"
    asyncio.run(world.attempt("b"))
    assert not world.agent.looked


def test_where_litellm_did_not_ask_who_serves_a_replaced_fallback_is_refused() -> None:
    world = _world(b=Ticket(model="small"), c=Ticket(output_tokens=20))
    world.metadata["model_group"] = "b"
    with pytest.raises(RefusedError, match="another model in the place of this fallback"):
        asyncio.run(world.attempts.begin(world.call, world.kwargs("openai/b")))
    assert not world.agent.held
    world.metadata["model_group"] = "c"
    sent = world.kwargs("openai/c")
    asyncio.run(world.attempts.begin(world.call, sent))
    assert 20 == sent["max_tokens"]


def test_a_fallback_that_a_rule_closes_ends_and_holds_nothing() -> None:
    world = _world()
    world.agent.closed.add("b")
    with pytest.raises(RefusedError, match="closed"):
        asyncio.run(world.route("b"))
    assert (False, "a") == (world.call.is_fallback, world.call.group)
    sent = asyncio.run(world.attempt("c"))
    assert "openai/c" == sent["model"]


@pytest.mark.parametrize("was_sent", [False, True])
def test_the_hold_before_is_ended_as_far_as_it_is_known(*, was_sent: bool) -> None:
    """Unknown is charged in full; what was never sent is free."""
    world = _world()
    world.call.is_sent = was_sent
    asyncio.run(world.attempt("b"))
    ((hold_id, ending),) = world.agent.settled
    assert ("hold0", None if was_sent else {}) == (hold_id, ending.usage)
    assert was_sent == ending.was_sent
