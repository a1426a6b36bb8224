"""The failure families of 45 LiteLLM budget threads, as a conformance suite of our agents.

Each test is named by its family and the threads (BerriAI/litellm) whose failure it looks for. What
a family says of the real proxy is in tests/e2e/plugin; of the ledger's windows, in
the ledger's own suite.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from controlplane.agent.bounds import bound_request
from controlplane.agent.embedded import EmbeddedAgent
from controlplane.agent.httpx_transport import ControlplaneTransport
from controlplane.agent.main import build_agent
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request, Ticket
from controlplane.policy.ceiling import call_ceiling_nusd
from controlplane.policy.document import RatePerMillion

STUB = Path(__file__).parents[1] / "e2e" / "stub_upstream.py"
SAY: Any = [{"role": "user", "content": "hello"}]
IN_NUSD, OUT_NUSD = 1_000, 10_000
RATE = {"input_nusd": IN_NUSD * 10**6, "output_nusd": OUT_NUSD * 10**6}
CARD = {f"openai/{model}": RATE for model in ("m", "m-fixed", "m-busy", "m-hang", "m-cut")}
FREE = {"input_nusd": 0, "output_nusd": 0}
FIXED_COST = 10 * IN_NUSD + 10 * OUT_NUSD

Gates = Callable[..., EmbeddedAgent]


@pytest.fixture
def start_gate(
    control_plane: Any, make_settings: Callable[..., Any], tmp_path: Path
) -> Iterator[Gates]:
    """Start agents, each on a machine of its own."""
    running: list[EmbeddedAgent] = []

    def start(**settings: Any) -> EmbeddedAgent:
        here = {"state_dir": tmp_path / f"node{len(running)}"} | settings
        made = make_settings(control_plane)
        fields = {name: getattr(made, name) for name in made.__struct_fields__}
        running.append(EmbeddedAgent(build_agent(type(made)(**{**fields, **here}))))
        running[-1].ready()
        return running[-1]

    yield start
    for gate in running:
        gate.close()


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(STUB), "0.05"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    process.communicate(timeout=60)


def _request(tenant: str = "a", *, max_tokens: int = 10, model: str = "m") -> Request:
    return Request(
        request_id="r",
        facts={"tenant": tenant, "model": model, "operation": "chat"},
        bound=bound_request("chat", {"messages": SAY, "max_tokens": max_tokens}),
        candidates=lambda name: ((f"openai/{name}",),),
        provider="openai",
    )


CEILING = (bound_request("chat", {"messages": SAY}).input_tokens * IN_NUSD) + 10 * OUT_NUSD
"""Of `_request()`, but for a few nano-USD of rounding."""


def _serve(gate: EmbeddedAgent, request: Request, *, seconds: float = 0.005) -> int | None:
    """Make one call that costs its whole ceiling in tokens; None when it is refused."""
    try:
        ticket = gate.admit_blocking(request)
    except RefusedError as refused:
        return None if refused.refusal.status == 429 else pytest.fail(refused.refusal.reason)
    time.sleep(seconds)
    output = ticket.output_tokens or request.bound.output_tokens or 0
    usage = {"input_uncached": request.bound.input_tokens, "output_text": output}
    _end(gate, ticket, usage)
    return request.bound.input_tokens * IN_NUSD + output * OUT_NUSD


def _end(gate: EmbeddedAgent, ticket: Ticket, usage: dict[str, int] | None) -> None:
    ending = Ending(ended_at=datetime.now(UTC), usage=usage)
    if ticket.hold_id:
        gate.settle(ticket.hold_id, ending)
    if ticket.slot:
        gate.release(ticket.slot, ending)


def _client(gate: EmbeddedAgent, upstream: str, **known: str) -> openai.OpenAI:
    transport: Any = ControlplaneTransport(gate, provider="openai", known=known)
    return openai.OpenAI(
        base_url=f"{upstream}/v1",
        api_key="none",
        max_retries=0,
        http_client=httpx2.Client(transport=transport),
    )


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _standing(control_plane: Any) -> dict[str, int]:
    standing: dict[str, int] = control_plane.state()["standing"]
    return standing


# Concurrency bypass: many calls pass a check that reads what was spent before any of them ended.


def test_concurrency_bypass_34732_40095_26672_23714(control_plane: Any, start_gate: Gates) -> None:
    """Forty at once, from the first request of a tenant on: not one nano-dollar over."""
    limit = 60 * CEILING
    control_plane.publish(
        rate_card=CARD, budgets=[control_plane.budget(limit_nusd=limit)], tenant="a"
    )
    gate = start_gate()
    with ThreadPoolExecutor(40) as pool:
        costs = list(pool.map(lambda _: _serve(gate, _request()), range(200)))
    spent = sum(cost for cost in costs if cost)
    assert 0.95 * limit <= spent <= limit
    assert None in costs


def test_concurrency_bypass_18730_tokens_per_minute(control_plane: Any, start_gate: Gates) -> None:
    """663 tokens went through a limit of 100: the limit counts what may be used, before."""
    quota = {"action": "throttle", "id": "q", "tpm": 1_000}
    control_plane.publish(rate_card=CARD, rules=[quota], budgets=[])
    gate = start_gate()
    if time.time() % 60 > 45:
        time.sleep(61 - time.time() % 60)  # a minute's edge would start a fresh quota
    admitted, codes = 0, set()
    for _ in range(20):
        try:
            gate.admit_blocking(_request(max_tokens=150))  # none has ended yet
        except RefusedError as refused:
            codes.add(refused.refusal.code)
        else:
            admitted += 1
    assert 0 < admitted * 150 <= 1_000
    assert {"rate_limited"} == codes


def test_concurrency_bypass_16011_27900_parallel_limit(
    control_plane: Any, start_gate: Gates
) -> None:
    """A limit on calls at once is one limit for every thread of a process."""
    control_plane.publish(
        rate_card=CARD, budgets=[], rules=[{"action": "throttle", "id": "q", "concurrency": 3}]
    )
    gate = start_gate()
    tickets = []
    for _ in range(5):
        try:
            tickets.append(gate.admit_blocking(_request()))
        except RefusedError:
            continue
    assert 3 == len(tickets)
    _end(gate, tickets[0], {})
    assert gate.admit_blocking(_request()).slot


# Multi-instance lag: counters of one process do not know what the others spend.


def test_multi_instance_lag_6288_24682_33325_30661_34238_20886_32618(
    control_plane: Any, start_gate: Gates
) -> None:
    """Four machines, answers of the server lost on the way: one budget, not four."""
    limit = 60 * CEILING
    control_plane.publish(rate_card=CARD, budgets=[control_plane.budget(limit_nusd=limit)])
    gates = [start_gate() for _ in range(4)]
    control_plane.fail_syncs(6)

    def work(number: int) -> int:
        gate, spent, refused = gates[number % 4], 0, 0
        while refused < 8:
            cost = _serve(gate, _request())
            spent += cost or 0
            refused = refused + 1 if cost is None else 0
            time.sleep(0.02 * bool(refused))
        return spent

    with ThreadPoolExecutor(8) as pool:
        spent = sum(pool.map(work, range(8)))
    assert spent <= limit
    assert _standing(control_plane)["free_nusd"] >= 0


# Phantom spend: money that nobody spent stays taken, and calls that could be paid are refused.


def test_phantom_spend_27639_36926_27735_30522_holds_of_failed_calls_come_back(
    control_plane: Any, start_gate: Gates, upstream: str
) -> None:
    limit = 3 * CEILING
    control_plane.publish(rate_card=CARD, budgets=[control_plane.budget(limit_nusd=limit)])
    gate = start_gate()
    with _client(gate, upstream) as client:
        for _ in range(12):  # four times what the budget could hold at once
            with pytest.raises(openai.RateLimitError) as refused:
                client.chat.completions.create(
                    model="m-busy", messages=SAY, user="a", max_tokens=10
                )
            assert "slow down" in str(refused.value)  # the upstream's own, not ours
    _until(lambda: not gate.agent.holder.queue.pending)
    assert 0 == _standing(control_plane)["settled_enforced_nusd"]
    standing = _standing(control_plane)
    assert limit == standing["free_nusd"] + standing["leased_nusd"]
    assert _serve(gate, _request())  # what came back is of use


def test_phantom_spend_30460_28247_a_resent_settle_counts_once(
    control_plane: Any, start_gate: Gates
) -> None:
    control_plane.publish(rate_card=CARD)
    gate = start_gate()
    ticket = gate.admit_blocking(_request())
    control_plane.fail_syncs(4)
    _end(gate, ticket, {"output_text": 1})
    _until(lambda: not gate.agent.holder.queue.pending)
    sent = [one for request in control_plane.state()["requests"] for one in request["settle"]]
    assert len(sent) > 1
    assert OUT_NUSD == _standing(control_plane)["settled_enforced_nusd"]


def test_phantom_spend_22726_20615_29912_no_budget_and_no_price_to_pay(
    control_plane: Any, start_gate: Gates
) -> None:
    """Tenants without a budget, and models that cost nothing, are never refused for money."""
    control_plane.publish(
        rate_card={**CARD, "openai/free": FREE}, budgets=[control_plane.budget(limit_nusd=0)]
    )
    gate = start_gate()
    assert gate.admit_blocking(_request("b")).hold_id is None
    with pytest.raises(RefusedError):
        gate.admit_blocking(_request("a"))
    assert gate.admit_blocking(_request("a", model="free")).hold_id is None


def test_a_bound_that_an_upstream_breaks_is_no_bound_any_more(
    control_plane: Any, start_gate: Gates
) -> None:
    """An upstream that bills beyond the limit it was given: the next call is not held so (L3)."""
    control_plane.publish(rate_card=CARD, budgets=[control_plane.budget(limit_nusd=10**12)])
    gate = start_gate()
    ticket = gate.admit_blocking(_request())
    gate.agent.syncer.retire()  # the small ledger of these tests takes no call above its hold
    _end(gate, ticket, {"output_text": 10_000})
    with pytest.raises(RefusedError, match="used more than its bound"):
        gate.admit_blocking(_request())
    assert gate.admit_blocking(_request("b")).hold_id is None
    assert 1 == gate.agent.status()["demoted_bounds"]
    gate.agent.holder.queue.forget_all()


# Fail-closed gap: when the counter can not be read, the call goes through.


def test_fail_closed_gap_33923(control_plane: Any, start_gate: Gates) -> None:
    """Without an answer a lease is spent to its end, then calls are refused, not let through."""
    control_plane.publish(rate_card=CARD, budgets=[control_plane.budget(limit_nusd=60 * CEILING)])
    gate = start_gate(admission_wait_seconds=1.0)
    _until(lambda: _serve(gate, _request(), seconds=0.5) is not None)
    control_plane.fail_syncs(10_000)
    costs: list[int | None] = []
    while costs[-5:] != [None] * 5:
        costs.append(_serve(gate, _request(), seconds=0))
        assert len(costs) <= 65, "more calls than the whole budget could pay"
    assert sum(cost for cost in costs if cost) <= 60 * CEILING


# Streaming and disconnect undercount: what was billed is not what was counted.


def test_streaming_undercount_37923_35958_36008_37558_39893_usage_is_asked_for(
    control_plane: Any, start_gate: Gates, upstream: str
) -> None:
    """A stream that would have said nothing of its usage is counted, not counted as nothing."""
    control_plane.publish(rate_card=CARD)
    gate = start_gate()
    with _client(gate, upstream) as client:
        list(
            client.chat.completions.create(
                model="m-fixed", messages=SAY, user="a", max_tokens=10, stream=True
            )
        )
    _until(lambda: FIXED_COST == _standing(control_plane)["settled_enforced_nusd"])


def test_disconnect_undercount_33736_30630_13245(
    control_plane: Any, start_gate: Gates, upstream: str
) -> None:
    """A client that leaves, a stream that breaks, a timeout: charged in full, never as nothing."""
    control_plane.publish(rate_card=CARD)
    gate = start_gate()
    order: dict[str, Any] = {"messages": SAY, "user": "a", "max_tokens": 10}
    with _client(gate, upstream) as client:
        left = client.chat.completions.create(model="m", **order, stream=True)
        next(iter(left))
        left.close()
        with pytest.raises(openai.APIConnectionError):
            list(client.chat.completions.create(model="m-cut", **order, stream=True))
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="m-hang", **order, timeout=1.0)
    _until(lambda: 3 == len(control_plane.state()["unproven"]))
    assert all(held >= 10 * OUT_NUSD for held in control_plane.state()["unproven"].values())


# Path not counted: a budget that some endpoints or identities pass by.


def test_path_not_counted_38176_messages_responses_embeddings(
    control_plane: Any, start_gate: Gates, upstream: str
) -> None:
    control_plane.publish(rate_card=CARD)
    gate = start_gate()
    with _client(gate, upstream) as client:
        client.responses.create(model="m-fixed", input="hi", user="a", max_output_tokens=10)
        client.chat.completions.create(model="m-fixed", messages=SAY, user="a", max_tokens=10)
        client.completions.create(model="m-fixed", prompt="hi", user="a", max_tokens=10)
        client.embeddings.create(model="m-fixed", input="hi", user="a")
    transport: Any = ControlplaneTransport(gate, provider="openai", known={"tenant": "a"})
    with anthropic.Anthropic(
        base_url=upstream, api_key="none", http_client=httpx2.Client(transport=transport)
    ) as theirs:
        theirs.messages.create(model="m-fixed", messages=SAY, max_tokens=10)
    _until(lambda: 5 == len(control_plane.state()["settled"]))
    assert 4 * FIXED_COST + 10 * IN_NUSD == _standing(control_plane)["settled_enforced_nusd"]


def test_path_not_counted_11083_9658_end_user_by_header(
    control_plane: Any, start_gate: Gates, upstream: str
) -> None:
    control_plane.publish(rate_card=CARD, dimension_map={"tenant": "header.x-end-user"})
    gate = start_gate()
    with _client(gate, upstream) as client:
        client.chat.completions.create(
            model="m-fixed", messages=SAY, max_tokens=10, extra_headers={"X-End-User": "a"}
        )
    _until(lambda: FIXED_COST == _standing(control_plane)["settled_enforced_nusd"])


# Reset: a new window starts with old money, or wipes fresh spend.


def test_reset_7129_5651_8364_20532_22013_24675_34492_34733(
    control_plane: Any, start_gate: Gates
) -> None:
    """A fresh window is used at once, though its predecessor was refused a moment ago, and a call
    that began in the old one is still counted once."""
    control_plane.publish(rate_card=CARD, budgets=[control_plane.budget(limit_nusd=2 * CEILING)])
    gate = start_gate(admission_wait_seconds=2.0)
    running = gate.admit_blocking(_request())
    _until(lambda: _serve(gate, _request()) is None)
    spent = _standing(control_plane)["settled_enforced_nusd"]
    fresh = {"window_start": "2036-01-01T00:00:00Z", "window_end": "2037-01-01T00:00:00Z"}
    control_plane.publish(
        rate_card=CARD, budgets=[control_plane.budget(limit_nusd=100 * CEILING, **fresh)]
    )
    _until(lambda: gate.policy == "1.2")
    _until(lambda: _serve(gate, _request()) is not None)
    _end(gate, running, {"output_text": 1})
    _until(lambda: not gate.agent.holder.queue.pending)
    after = _standing(control_plane)["settled_enforced_nusd"]
    assert after >= spent + OUT_NUSD
    assert 1 == sum(cost == OUT_NUSD for cost in control_plane.state()["settled"].values())


# Boundary and quota refund: one too many at equality; a refused call uses up a quota.


@pytest.mark.parametrize(("missing_nusd", "expected"), [(0, True), (1, False)])
def test_boundary_33321_equality(
    control_plane: Any, start_gate: Gates, missing_nusd: int, *, expected: bool
) -> None:
    """A budget of exactly one ceiling admits one call; a nano-dollar less admits none."""
    body = {"messages": SAY, "max_tokens": 10, "response_format": {"type": "json_object"}}
    bound = bound_request("chat", body)  # structured output: never cut to fit
    rate = RatePerMillion(input_nusd=IN_NUSD * 10**6, output_nusd=OUT_NUSD * 10**6)
    ceiling = call_ceiling_nusd(rate, input_tokens=bound.input_tokens, output_tokens=10)
    limit = ceiling - missing_nusd
    control_plane.publish(rate_card=CARD, budgets=[control_plane.budget(limit_nusd=limit)])
    gate, request = start_gate(admission_wait_seconds=2.0), _request()
    asked = Request(
        request_id="r",
        facts=request.facts,
        bound=bound,
        candidates=request.candidates,
        provider="openai",
    )
    try:
        is_admitted = gate.admit_blocking(asked).hold_id is not None
    except RefusedError:
        is_admitted = False
    assert expected == is_admitted
    if is_admitted:
        with pytest.raises(RefusedError):
            gate.admit_blocking(asked)


def test_quota_refund_39309(control_plane: Any, start_gate: Gates) -> None:
    """A call that a budget refuses, or that never leaves, does not use up the rate."""
    quota = {"action": "throttle", "id": "q", "rpm": 2}
    control_plane.publish(
        rate_card=CARD, rules=[quota], budgets=[control_plane.budget(limit_nusd=1)]
    )
    gate = start_gate()
    if time.time() % 60 > 45:
        time.sleep(61 - time.time() % 60)  # a minute's edge would start a fresh quota
    for _ in range(3):
        with pytest.raises(RefusedError) as refused:
            gate.admit_blocking(_request("a"))
        assert "budget_exhausted" == refused.value.refusal.code
    unsent = gate.admit_blocking(_request("b"))
    assert unsent.slot
    gate.release(unsent.slot, Ending(ended_at=datetime.now(UTC), usage={}, was_sent=False))
    assert gate.admit_blocking(_request("b")).slot
    assert gate.admit_blocking(_request("b")).slot
    with pytest.raises(RefusedError) as limited:
        gate.admit_blocking(_request("b"))
    assert "rate_limited" == limited.value.refusal.code


def test_async_and_threads_share_one_agent(control_plane: Any, start_gate: Gates) -> None:
    """Loops and threads of one process admit from the same leases."""
    control_plane.publish(rate_card=CARD)
    gate = start_gate()

    async def main() -> list[Ticket]:
        return await asyncio.gather(*(gate.admit(_request()) for _ in range(5)))

    with ThreadPoolExecutor(2) as pool:
        many = [*pool.map(lambda _: asyncio.run(main()), range(2))]
    holds = {ticket.hold_id for tickets in many for ticket in tickets}
    assert 10 == len(holds - {None})


THREADS = {
    "concurrency_bypass": "34732 40095 18730 16011 27900 26672 23714",
    "multi_instance_lag": "6288 24682 33325 30661 34238 20886 32618",
    "phantom_spend": "27639 30460 28247 36926 27735 30522 22726 20615 29912",
    "fail_closed_gap": "33923",
    "streaming_undercount": "37923 35958 36008 37558 39893",
    "disconnect_undercount": "33736 30630 13245",
    "path_not_counted": "38176 11083 9658",
    "reset": "7129 5651 8364 20532 22013 24675 34492 34733",
    "boundary": "33321",
    "quota_refund": "39309",
}
"""Family → threads of BerriAI/litellm, as they were read in November 2026."""


def test_every_thread_has_a_test_of_its_family() -> None:
    tests = [name for name in globals() if name.startswith("test_")]
    for family, threads in THREADS.items():
        named = {
            part
            for name in tests
            if name.startswith(f"test_{family}_")
            for part in name.split("_")
            if part.isdigit()
        }
        assert set(threads.split()) == named
    assert 45 == sum(len(threads.split()) for threads in THREADS.values())
