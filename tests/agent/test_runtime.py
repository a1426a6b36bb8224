"""The agent against a real server on loopback."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from typing_extensions import override

from controlplane.agent.bounds import bound_request
from controlplane.agent.clock import AgentClock
from controlplane.agent.main import build_agent
from controlplane.agent.node_api import NodeApi
from controlplane.agent.runtime import Agent, Surroundings
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request, Ticket
from controlplane.core.clock import FakeClock
from controlplane.core.ids import SequentialIds
from controlplane.policy.bundle import Verifier

Make = Callable[..., AgentSettings]


def _request(tenant: str = "a", *, max_tokens: int | None = 100, model: str = "m") -> Request:
    body = {"messages": [{"role": "user", "content": "hello"}]}
    request = body if max_tokens is None else {**body, "max_tokens": max_tokens}
    return Request(
        request_id="r",
        facts={"tenant": tenant, "model": model, "operation": "chat"},
        bound=bound_request("chat", request),
        candidates=lambda group: ((group,),),
        provider="p",
    )


def _used(output: int) -> Ending:
    return Ending(ended_at=datetime.now(UTC), usage={"input_uncached": 1, "output_text": output})


async def _until(is_so: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait for what another task or the server does."""
    for _ in range(int(seconds / 0.05)):
        if is_so():
            return
        await asyncio.sleep(0.05)
    pytest.fail("it did not happen in time")


def _run(settings: AgentSettings, work: Callable[[Agent], Awaitable[None]]) -> None:
    async def main() -> None:
        agent = build_agent(settings)
        await agent.ready()
        try:
            await work(agent)
        finally:
            await agent.stop()

    asyncio.run(main())


class _Latest(random.Random):
    """Draws the far end of every range."""

    @override
    def uniform(self, a: float, b: float) -> float:
        return b


def test_another_policy_is_acknowledged_long_before_the_next_sync_and_dated(
    control_plane: Any, make_settings: Make
) -> None:
    """However late its moment; what it says is how long ago it acted, so no delay is measured."""
    control_plane.publish()

    async def main() -> None:
        agent = build_agent(
            make_settings(control_plane, sync_interval_seconds=30.0),
            surroundings=Surroundings(jitter=_Latest()),
        )
        await agent.ready()
        try:
            await _until(lambda: agent.policy == "1.1" and not agent.puller.unacknowledged)
            before = agent.syncer.syncs
            applied_at: list[float] = []
            agent.on_change(lambda: applied_at.append(time.monotonic()))
            await asyncio.to_thread(control_plane.publish)
            await _until(lambda: agent.policy == "1.2")
            assert before == agent.syncer.syncs
            await _until(lambda: not agent.puller.unacknowledged)
            assert time.monotonic() - applied_at[0] < 10.0
        finally:
            await agent.stop()

    asyncio.run(main())
    said = [one for one in control_plane.state()["requests"] if one["applied"]]
    first = next(one for one in said if one["applied"]["gen"] == 2)
    assert 0.2 < first["applied_ago_seconds"] < 10.0


def test_admission_does_not_touch_the_network_when_the_lease_suffices(
    control_plane: Any, make_settings: Make
) -> None:
    control_plane.publish()

    async def work(agent: Agent) -> None:
        for _ in range(3):  # a busy budget gets a lease sized for its rate
            await agent.admit(_request(max_tokens=1_000))
            await asyncio.sleep(0.15)
        before = agent.syncer.syncs
        for _ in range(20):
            ticket = await agent.admit(_request(max_tokens=10))
            assert ticket.hold_id
        assert before == agent.syncer.syncs

    _run(make_settings(control_plane, sync_interval_seconds=0.1), work)


def test_a_budget_is_spent_to_the_end_and_not_beyond(
    control_plane: Any, make_settings: Make
) -> None:
    control_plane.publish()
    refused: list[RefusedError] = []

    async def call(agent: Agent, number: int) -> None:
        try:
            ticket = await agent.admit(_request(max_tokens=1_000))
        except RefusedError as answer:
            refused.append(answer)
            return
        await asyncio.sleep(0.01)
        limit = ticket.output_tokens or 1_000
        assert ticket.hold_id
        agent.settle(ticket.hold_id, _used(1 + number * 7_919 % limit))

    async def work(agent: Agent) -> None:
        number = 0
        while len(refused) < 60:
            await asyncio.gather(*(call(agent, number + n) for n in range(20)))
            number += 20

    _run(make_settings(control_plane), work)
    standing = control_plane.state()["standing"]
    assert 0.99 * 1_000_000_000 <= standing["settled_enforced_nusd"] <= 1_000_000_000
    assert 0 == standing["leased_nusd"]  # a clean stop gives everything back
    body = refused[-1].refusal.body(request_id="r", policy="1.1")
    assert "budget_exhausted" == body["code"]
    budget = body["budget"]
    assert isinstance(budget, dict)
    assert ("team a", "ana", "1") == (budget["name"], budget["owner"], budget["limit_usd"])
    assert budget["spent_usd"].startswith("0.99")


def test_a_retry_inside_an_admitted_call_holds_its_whole_ceiling_again(
    control_plane: Any, make_settings: Make
) -> None:
    """Both attempts may be billed in full, so the cap has to have room for both (L14).

    An attempt of at most 100 tokens at $10 a million costs at most 1,000,000 nano-USD and what
    rounding adds; 2,500,000 are room for two, and for 49 tokens more: a retry is sent as it was,
    so it can not be cut to fit. It is one request to a quota all the same.
    """
    rates = {"m": {"input_nusd": 0, "output_nusd": 10_000_000_000}}
    once = {"action": "throttle", "id": "once", "match": {"tenant": ["a"]}, "rps": 0.001}
    control_plane.publish(
        budgets=[control_plane.budget(limit_nusd=2_500_000)], rate_card=rates, rules=[once]
    )

    async def work(agent: Agent) -> None:
        first = await agent.admit(_request())
        second = await agent.admit_again(_request())
        assert first.hold_id != second.hold_id
        for ticket in (first, second):
            hold = agent.holder.queue.find(ticket.hold_id or "")
            assert hold
            assert 1_000_000 <= hold.held_nusd <= 1_000_100
        with pytest.raises(RefusedError) as refused:
            await agent.admit_again(_request())
        assert "budget_exhausted" == refused.value.refusal.code
        with pytest.raises(RefusedError) as again:
            await agent.admit(_request())
        assert "once" == again.value.refusal.rule
        for ticket in (first, second):
            assert ticket.hold_id
            agent.settle(
                ticket.hold_id, Ending(ended_at=datetime.now(UTC), usage={"output_text": 100})
            )
        await _until(lambda: not agent.holder.queue.pending)

    _run(make_settings(control_plane, admission_wait_seconds=2.0), work)
    settled = [one for said in control_plane.state()["requests"] for one in said["settle"]]
    assert [100, 100] == [one["usage"]["output_text"] for one in settled]


def test_an_empty_budget_refuses_at_once(control_plane: Any, make_settings: Make) -> None:
    control_plane.publish(budgets=[control_plane.budget(limit_nusd=1)])

    async def work(agent: Agent) -> None:
        for attempt in range(4):
            started = time.perf_counter()
            with pytest.raises(RefusedError):
                await agent.admit(_request())
            if attempt:
                assert time.perf_counter() - started < 5.0  # half of what money on its way is worth

    settings = make_settings(control_plane, sync_interval_seconds=5.0, admission_wait_seconds=10.0)
    _run(settings, work)


def test_a_retiring_agent_serves_who_still_comes(control_plane: Any, make_settings: Make) -> None:
    """Clients of a process that is about to end are not told that the money is gone."""
    control_plane.publish()

    async def work(agent: Agent) -> None:
        agent.retire()
        ticket = await agent.admit(_request())
        assert ticket.hold_id
        agent.settle(ticket.hold_id, _used(10))
        await _until(lambda: not agent.holder.book.leases)

    _run(make_settings(control_plane, sync_interval_seconds=0.1), work)


def test_a_lost_answer_settles_once(control_plane: Any, make_settings: Make) -> None:
    control_plane.publish()

    async def work(agent: Agent) -> None:
        ticket = await agent.admit(_request())
        assert ticket.hold_id
        control_plane.fail_syncs(3)
        agent.settle(ticket.hold_id, _used(10))
        assert not agent.settle(ticket.hold_id, _used(99))
        await _until(lambda: not agent.holder.queue.pending)
        assert not agent.holder.queue.pending
        assert agent.syncer.failures >= 3

    _run(make_settings(control_plane), work)
    state = control_plane.state()
    assert 1 == len(state["settled"])
    sent = [settle for request in state["requests"] for settle in request["settle"]]
    assert len(sent) >= 2


def test_a_call_that_waits_is_asked_for_again_when_the_answer_is_lost(
    control_plane: Any, make_settings: Make
) -> None:
    """Not at the next interval, when it would have been refused long ago."""
    control_plane.publish()

    async def work(agent: Agent) -> None:
        control_plane.fail_syncs(1)
        ticket = await agent.admit(_request())
        assert ticket.hold_id
        assert 1 == agent.syncer.failures

    settings = make_settings(control_plane, sync_interval_seconds=60.0, admission_wait_seconds=20.0)
    _run(settings, work)


def test_a_call_nobody_ends_is_settled_as_unknown(control_plane: Any, make_settings: Make) -> None:
    control_plane.publish()

    async def work(agent: Agent) -> None:
        await agent.admit(_request())
        assert 1 == agent.holder.queue.unsettled
        await _until(lambda: not agent.holder.queue.unsettled)

    _run(make_settings(control_plane, max_call_seconds=0.5), work)
    assert 1 == len(control_plane.state()["unproven"])


def test_without_a_policy_the_operator_decides(control_plane: Any, make_settings: Make) -> None:
    async def denies(agent: Agent) -> None:
        with pytest.raises(RefusedError) as refused:
            await agent.admit(_request())
        assert ("policy_missing", 503) == (refused.value.refusal.code, refused.value.refusal.status)

    async def allows(agent: Agent) -> None:
        assert Ticket() == await agent.admit(_request())

    _run(make_settings(control_plane, first_policy_wait_seconds=0.1), denies)
    _run(
        make_settings(control_plane, first_policy_wait_seconds=0.1, without_policy="allow"), allows
    )


def test_a_stale_policy_does_not_spend_a_hard_budget(
    control_plane: Any, make_settings: Make
) -> None:
    control_plane.publish(on_stale={"dead_after_seconds": 60, "mode": "pessimistic"})
    clock = FakeClock(datetime.now(UTC))
    settings = make_settings(control_plane)

    async def main() -> None:
        verify = Verifier(settings.policy_keys).verify
        agent = Agent(settings, clock=clock, ids=SequentialIds(), verify=verify)
        await agent.puller.poll(0.0)
        clock.advance(61)
        with pytest.raises(RefusedError) as refused:
            await agent.admit(_request("a"))
        assert "policy_stale" == refused.value.refusal.code
        assert (await agent.admit(_request("b"))).hold_id is None
        await agent.stop()

    asyncio.run(main())


def test_a_policy_that_nobody_confirms_is_late_before_it_is_too_old(
    control_plane: Any, make_settings: Make
) -> None:
    """An operator sees it while calls still go through; a confirmation ends it."""
    control_plane.publish(on_stale={"warn_after_seconds": 20, "dead_after_seconds": 60})
    clock = FakeClock(datetime.now(UTC))
    settings = make_settings(control_plane)

    async def main() -> None:
        verify = Verifier(settings.policy_keys).verify
        agent = Agent(settings, clock=clock, ids=SequentialIds(), verify=verify)
        assert agent.status()["policy_late"]
        await agent.puller.poll(0.0)
        clock.advance(20)
        assert not agent.status()["policy_late"]
        clock.advance(1)
        told = msgspec.json.decode(NodeApi(agent).health()[2])
        assert ("degraded", True) == (told["status"], told["policy_late"])
        assert b"controlplane_agent_policy_late 1\n" in NodeApi(agent).metrics()[2]
        await agent.puller.poll(0.0)
        assert b"controlplane_agent_policy_late 0\n" in NodeApi(agent).metrics()[2]
        await agent.stop()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("stale", "mode", "expected"),
    [
        ("block", "last_known_good", "policy_stale"),
        ("policy", "last_known_good", "budget_exhausted"),
        ("ceiling", "pessimistic", "budget_exhausted"),
        ("allow", "pessimistic", None),
    ],
)
def test_each_budget_says_what_a_stale_policy_means(
    control_plane: Any, make_settings: Make, *, stale: str, mode: str, expected: str | None
) -> None:
    """With no money: `ceiling` still needs a lease, `allow` needs none."""
    control_plane.publish(
        budgets=[control_plane.budget(limit_nusd=0, stale=stale)],
        on_stale={"dead_after_seconds": 60, "mode": mode},
    )
    clock = FakeClock(datetime.now(UTC))
    settings = make_settings(control_plane, admission_wait_seconds=0.0)

    async def main() -> None:
        verify = Verifier(settings.policy_keys).verify
        agent = Agent(settings, clock=clock, ids=SequentialIds(), verify=verify)
        await agent.puller.poll(0.0)
        clock.advance(61)
        if expected is None:
            assert (await agent.admit(_request("a"))).hold_id is None
        else:
            with pytest.raises(RefusedError) as refused:
                await agent.admit(_request("a"))
            assert expected == refused.value.refusal.code
        await agent.stop()

    asyncio.run(main())


KILLED = """
import asyncio, json, os, sys
from controlplane.agent.bounds import bound_request
from controlplane.agent.main import build_agent
from controlplane.agent.ticket import Request
from controlplane.agent.settings import load_agent_settings
from controlplane.agent.settle import Ending
from datetime import UTC, datetime

async def main():
    agent = build_agent(load_agent_settings())
    await agent.ready()
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
    tickets = []
    for n in range(5):
        tickets.append(await agent.admit(Request(
            request_id="r", facts={"tenant": "a", "model": "m"}, bound=bound_request("chat", body),
            candidates=lambda group: ((group,),), provider="p")))
    for task in agent._tasks:
        task.cancel()  # from here on nothing reaches the server
    for ticket in tickets[:3]:
        agent.settle(ticket.hold_id, Ending(
            ended_at=datetime.now(UTC), usage={"input_uncached": 1, "output_text": 10}))
    print(json.dumps({"held": agent.holder.queue.open_nusd()}), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_killed_agent_is_spoken_for_by_the_next(control_plane: Any, make_settings: Make) -> None:
    """Settles that were never sent arrive, open holds are charged in full, the rest is free."""
    control_plane.publish()
    settings = make_settings(control_plane)
    env = {
        **os.environ,
        "CONTROLPLANE_AGENT_SERVER_URL": settings.server_url,
        "CONTROLPLANE_AGENT_API_KEY": settings.api_key,
        "CONTROLPLANE_AGENT_STATE_DIR": str(settings.state_dir),
        "CONTROLPLANE_AGENT_POLICY_KEYS": ",".join(
            f"{kid}={key}" for kid, key in settings.policy_keys.items()
        ),
    }
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, env=env)
    assert process.stdout
    held = json.loads(process.stdout.readline())["held"]["b1"]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = control_plane.state()["standing"]
    assert before["leased_nusd"] > held
    assert 0 == before["settled_enforced_nusd"]

    async def work(_: Agent) -> None:
        await _until(lambda: len(list(settings.state_dir.glob("journal-*"))) == 1)

    _run(settings, work)
    after = control_plane.state()["standing"]
    assert 3 * (10 * 10_000 + 1_000) == after["settled_enforced_nusd"]
    assert held == after["settled_unproven_nusd"]
    assert 0 == after["leased_nusd"]


def test_a_forked_child_owns_no_lease(control_plane: Any, make_settings: Make) -> None:
    control_plane.publish()

    async def work(agent: Agent) -> None:
        ticket = await agent.admit(_request())
        assert agent.holder.book.leases or agent.holder.queue.unsettled
        parent = agent.holder.name
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            fresh = agent.holder
            said = [fresh.name != parent, not fresh.book.leases, not fresh.queue.unsettled]
            os.write(write, json.dumps(said).encode())
            os._exit(0)
        os.close(write)
        assert [True, True, True] == json.loads(os.read(read, 100))  # EOF if it died
        await asyncio.to_thread(os.waitpid, child, 0)
        os.close(read)
        assert parent == agent.holder.name
        assert ticket.hold_id
        assert agent.settle(ticket.hold_id, _used(1))

    _run(make_settings(control_plane), work)
    standing = control_plane.state()["standing"]
    assert 0 == standing["leased_nusd"]


def test_monotonic_counts_suspended_time() -> None:
    clock = AgentClock()
    assert abs(clock.monotonic() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1.0


def test_a_later_attempt_is_no_way_around_a_rule_on_its_model(
    control_plane: Any, make_settings: Make
) -> None:
    """A front may fall back to another model than the one that was admitted."""
    deny = {"action": "deny", "id": "no", "match": {"model": ["big"]}}
    control_plane.publish(rules=[deny])

    async def work(agent: Agent) -> None:
        await agent.admit(_request())
        assert (await agent.admit_again(_request())).hold_id
        with pytest.raises(RefusedError) as refused:
            await agent.admit_again(_request(model="big"))
        assert ("policy_denied", "no") == (refused.value.refusal.code, refused.value.refusal.rule)

    _run(make_settings(control_plane), work)
