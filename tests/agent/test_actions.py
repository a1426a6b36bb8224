"""Every action of a policy, enforced by the agent in front of two real upstreams."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from controlplane.agent.embedded import EmbeddedAgent
from controlplane.agent.httpx_transport import ControlplaneTransport
from controlplane.agent.lease import Instant
from controlplane.agent.main import build_agent
from controlplane.agent.settle import Ending
from controlplane.agent.slots import Slot, Slots
from controlplane.agent.targets import Target
from controlplane.policy.document import AbortIf, Canary
from controlplane.policy.quota import ThrottleState

STUB = Path(__file__).parents[1] / "e2e" / "stub_upstream.py"
RATE = {"input_nusd": 10**9, "output_nusd": 10**10}
CARD = {f"openai/{model}": RATE for model in ("m", "m-small", "m-busy", "m-hang", "m-flaky")}


class World(msgspec.Struct):
    """A program's client, its agent, the control plane, and an upstream behind two names."""

    client: httpx.Client
    gate: EmbeddedAgent
    control_plane: Any
    upstream: str

    def publish(self, *rules: dict[str, Any], **changes: Any) -> None:
        """Publish rules and wait until the agent applies them."""
        budgets = [self.control_plane.budget(limit_nusd=10**12)]
        order = {"rate_card": CARD, "budgets": budgets, **changes}
        self.control_plane.publish(rules=list(rules), **order)
        self.gate.ready()
        wanted = httpx.get(f"{self.control_plane.url}/api/v1/policy").headers["ETag"].strip('"')
        deadline = time.monotonic() + 60
        while self.gate.policy != wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        assert wanted == self.gate.policy

    def ask(self, model: str = "m", *, user: str = "a", **more: Any) -> httpx.Response:
        """Make one chat call."""
        order = {"model": model, "user": user, "max_tokens": 20, **more}
        order["messages"] = [{"role": "user", "content": "say something"}]
        return self.client.post(f"{self.upstream}/v1/chat/completions", json=order)

    def bills(self) -> list[dict[str, Any]]:
        """Return what the upstream served."""
        bills: list[dict[str, Any]] = httpx.get(f"{self.upstream}/_log").json()
        return bills


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(STUB)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    process.communicate(timeout=60)


@pytest.fixture
def world(control_plane: Any, make_settings: Callable[..., Any], upstream: str) -> Iterator[World]:
    gate = EmbeddedAgent(build_agent(make_settings(control_plane)))
    targets = {
        name: Target(base_url=f"{upstream}/v1", model=model, headers={"x-to": name})
        for name, model in (
            ("left", "m"),
            ("right", "m-small"),
            ("busy", "m-busy"),
            ("hung", "m-hang"),
            ("gone", "m"),
        )
    }
    targets["gone"] = msgspec.structs.replace(targets["gone"], base_url="http://127.0.0.1:9/v1")
    transport = ControlplaneTransport(gate, provider="openai", targets=targets)
    with httpx.Client(transport=transport, timeout=20) as client:
        yield World(client, gate, control_plane, upstream)
    gate.close()


def _code(answer: httpx.Response) -> str:
    code: str = answer.json()["error"]["code"]
    return code


def test_throttle_concurrency_holds_and_lets_go(world: World) -> None:
    world.publish({"action": "throttle", "id": "two", "concurrency": 2})
    httpx.put(f"{world.upstream}/_latency", json=3.0)  # nobody ends before all have asked
    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(
            answer.status_code for answer in pool.map(lambda _: world.ask(), range(8))
        )
    httpx.put(f"{world.upstream}/_latency", json=0.1)
    assert {200: 2, 429: 6} == statuses
    assert 200 == world.ask().status_code  # both have ended


def test_throttle_rps_allows_its_burst_then_says_when(world: World) -> None:
    world.publish({"action": "throttle", "id": "slow", "rps": 0.1, "burst": 3})
    answers = [world.ask() for _ in range(4)]
    assert [200, 200, 200, 429] == [answer.status_code for answer in answers]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
    assert "x-should-retry" not in answers[-1].headers


def test_throttle_tpm_counts_what_was_used_not_what_was_asked(world: World) -> None:
    world.publish({"action": "throttle", "id": "tokens", "tpm": 1_000})
    if time.time() % 60 > 45:
        time.sleep(61 - time.time() % 60)  # a minute's edge would start a fresh quota
    assert 200 == world.ask(max_tokens=800).status_code  # reserves 800, gives the rest back
    used = sum(world.bills()[-1][part] for part in ("input_tokens", "output_tokens"))
    refused = world.ask(max_tokens=1_000 - used + 1)
    assert (429, "rate_limited") == (refused.status_code, _code(refused))
    assert 200 == world.ask(max_tokens=max(1, 900 - used)).status_code


def test_a_call_that_the_budget_refuses_uses_no_quota(world: World) -> None:
    world.publish(
        {"action": "throttle", "id": "few", "rpm": 1},
        budgets=[world.control_plane.budget(limit_nusd=3)],
    )
    for _ in range(3):
        refused = world.ask()
        assert (429, "budget_exhausted") == (refused.status_code, _code(refused))
    assert 200 == world.ask(user="b").status_code  # no budget of its own: the quota is untouched
    assert "rate_limited" == _code(world.ask(user="b"))


def test_cap_lowers_output_and_choices(world: World) -> None:
    world.publish({"action": "cap", "id": "short", "max_tokens": 7, "n": 2})
    world.ask(max_tokens=100, n=5)
    bill = world.bills()[-1]
    assert 7 == bill["limit"]
    assert bill["output_tokens"] <= 14


def test_annotate_adds_headers_of_every_rule(world: World) -> None:
    world.publish(
        {"action": "annotate", "id": "one", "headers": {"x-team": "a", "x-one": "1"}},
        {"action": "annotate", "id": "two", "priority": 5, "headers": {"x-team": "b"}},
    )
    world.ask()
    headers = world.bills()[-1]["headers"]
    assert ("b", "1") == (headers["x-team"], headers["x-one"])


def test_route_weights_split_and_stick(world: World) -> None:
    world.publish(
        {"action": "route", "id": "split", "weights": {"left": 1, "right": 1}, "sticky": "tenant"}
    )
    seen = {
        user: {world.ask(user=user).headers and world.bills()[-1]["model"]} for user in "bcdefgh"
    }
    for user, models in seen.items():
        world.ask(user=user)
        models.add(world.bills()[-1]["model"])
        assert 1 == len(models)
    assert {"m", "m-small"} == set().union(*seen.values())


@pytest.mark.parametrize(
    ("first", "reason"), [("busy", "429"), ("gone", "connect"), ("hung", "timeout")]
)
def test_failover_goes_on_at_once_and_holds_each_attempt(
    world: World, first: str, reason: str
) -> None:
    rule = {"action": "failover", "id": "f", "order": [first, "right"], "on": [reason]}
    world.publish({**rule, "timeout_ms": 400, "breaker": {"failures": 2, "open_seconds": 60}})
    took = []
    for _ in range(3):
        started = time.monotonic()
        answer = world.ask()
        took.append(time.monotonic() - started)
        assert 200 == answer.status_code
        assert "m-small" == world.bills()[-1]["model"]
    waited = 0.4 if first == "hung" else 0.0
    # The rule's timeout, the stub's latency, the switch: of the quicker of two, on a busy machine.
    assert min(took[:2]) < waited + 0.25 + 1.0
    state = _settled(world, 3)
    free = [nusd for nusd in state["settled"].values() if nusd == 0]
    if reason == "timeout":  # it may have been served: charged in full
        assert 2 == len(state["unproven"])
    else:
        assert 2 == len(free)


def _settled(world: World, count: int) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state: dict[str, Any] = world.control_plane.state()
        paid = [nusd for nusd in state["settled"].values() if nusd]
        if len(paid) == count and not world.gate.agent.holder.queue.is_busy:
            return state
        time.sleep(0.05)
    raise AssertionError("not settled in time")


def test_an_answer_that_the_rule_does_not_name_is_passed_on(world: World) -> None:
    world.publish({"action": "failover", "id": "f", "order": ["busy", "right"], "on": ["5xx"]})
    assert 429 == world.ask().status_code
    assert not [bill for bill in world.bills() if bill["user"] == "only-here"]


def test_a_canary_that_errs_is_ended_here(world: World) -> None:
    canary = {"action": "canary", "id": "c", "to": "m-busy", "share_percent": 50, "min_calls": 5}
    world.publish({**canary, "abort_if": {"error_ratio": 0.2}})
    statuses = [world.ask().status_code for _ in range(40)]
    assert 5 == statuses.count(429)  # the fifth was enough
    slots = world.gate.agent.admission.desk.slots
    assert {"c"} == slots.ended_canaries.keys()
    world.publish({**canary, "share_percent": 0})
    assert 200 == world.ask().status_code
    assert {} == slots.ended_canaries  # a new generation is a new trial


def test_a_dearer_canary_is_ended_here(world: World) -> None:
    canary = {"action": "canary", "id": "c", "to": "m-small", "share_percent": 50, "min_calls": 4}
    dear = {"input_nusd": 10**10, "output_nusd": 10**11}
    world.publish(
        {**canary, "abort_if": {"cost_ratio": 1.3}}, rate_card={**CARD, "openai/m-small": dear}
    )
    for _ in range(40):
        world.ask(max_tokens=5)
        if world.gate.agent.admission.desk.slots.ended_canaries:
            break
    (why,) = world.gate.agent.admission.desk.slots.ended_canaries.values()
    assert why.startswith("cost ratio")
    before = len(world.bills())
    for _ in range(5):
        world.ask()
    assert {"m"} == {bill["model"] for bill in world.bills()[before:]}


def test_deny_is_cheaper_than_admission(world: World) -> None:
    world.publish({"action": "deny", "id": "stop", "match": {"tenant": ["x"]}})
    took = {"x": 0.0, "a": 0.0}
    for user in ("x", "a"):
        world.ask(user=user)
        started = time.thread_time()
        for _ in range(10):
            world.ask(user=user)
        took[user] = time.thread_time() - started
    assert took["x"] < took["a"]


def test_strip_takes_features_out_and_a_hard_budget_admits_the_rest(world: World) -> None:
    search: dict[str, Any] = {"tools": [{"type": "web_search"}], "logprobs": True}
    world.publish()
    refused = world.ask(**search)
    assert (429, "budget_unbounded_request") == (
        refused.status_code,
        refused.json()["error"]["code"],
    )
    world.publish({"action": "strip", "id": "s", "features": ["server_tools", "logprobs"]})
    before = len(world.bills())
    assert 200 == world.ask(**search).status_code
    (bill,) = world.bills()[before:]
    assert ["max_tokens", "messages", "model", "user"] == bill["fields"]


@pytest.mark.parametrize(("error_type", "ended"), [("other", {"c"}), ("cancelled", set())])
def test_a_canary_that_nobody_answers_for_is_ended_and_one_that_nobody_called_is_not(
    error_type: str, ended: set[str]
) -> None:
    """Neither was sent: one found no connection, the other was refused on its way."""
    canary = Canary(id="c", to="dead", min_calls=3, abort_if=AbortIf(error_ratio=0.2))
    slots, now = Slots(ThrottleState()), datetime(2026, 1, 1, tzinfo=UTC)
    ending = Ending(ended_at=now, usage={}, status="error", error_type=error_type, was_sent=False)
    for name in "abc":
        slots.open(name, Slot(started=Instant(now, 0.0), trial=canary, is_canary=True))
        assert slots.close(name, ending, now=now)
    assert ended == slots.ended_canaries.keys()
