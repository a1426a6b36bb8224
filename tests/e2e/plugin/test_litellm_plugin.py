"""The plug-in inside the real LiteLLM proxy: each action, budgets, attempts."""

import asyncio
import time
from collections import Counter
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.plugin.conftest import (
    LIMIT_NUSD,
    PROXY_KEY,
    Fresh,
    Publish,
    ask,
    budget,
    last_bill,
    taken_nusd,
    until,
)

REFUSED_SECONDS = 3.0


def test_deny_answers_with_our_body(publish: Publish, client: openai.OpenAI) -> None:
    publish(rules=[{"action": "deny", "id": "no-x", "match": {"team": ["x"]}, "reason": "not x"}])
    with pytest.raises(openai.RateLimitError) as refused:
        ask(client, extra_headers={"x-team": "x"})
    body = refused.value.body
    assert isinstance(body, dict)
    fields = body["provider_specific_fields"]
    assert ("policy_denied", "no-x", "not x") == (
        fields["code"],
        fields["rule"],
        fields["message"],
    )
    assert fields["request_id"] == refused.value.response.headers["x-litellm-call-id"]
    assert "say" not in str(body)
    ask(client, extra_headers={"x-team": "y"})


def test_cap_lowers_what_the_upstream_is_asked_for(
    publish: Publish, client: openai.OpenAI, upstream: str
) -> None:
    publish(rules=[{"action": "cap", "id": "short", "max_tokens": 7, "match": {"team": ["x"]}}])
    ask(client, max_tokens=500, extra_headers={"x-team": "x"})
    assert 7 == last_bill(upstream)["limit"]
    ask(client, max_tokens=500)
    assert 500 == last_bill(upstream)["limit"]
    ask(client, max_tokens=3, extra_headers={"x-team": "x"})
    assert 3 == last_bill(upstream)["limit"]


def test_downgrade_changes_the_model(
    publish: Publish, client: openai.OpenAI, upstream: str
) -> None:
    rule = {
        "action": "downgrade",
        "id": "small",
        "to": "gpt-4o-mini",
        "match": {"model": ["gpt-4o"]},
    }
    publish(rules=[rule])
    ask(client)
    assert "gpt-4o-mini" == last_bill(upstream)["model"]


def test_weighted_route_splits_and_sticks(
    publish: Publish, client: openai.OpenAI, upstream: str
) -> None:
    route = {"action": "route", "id": "split", "match": {"model": ["split"]}}
    publish(rules=[{**route, "weights": {"left": 0, "right": 1}}])
    before = len(httpx.get(f"{upstream}/_log").json())
    for _ in range(6):
        ask(client, "split")
    served = httpx.get(f"{upstream}/_log").json()[before:]
    assert {"gpt-4o-mini"} == {bill["model"] for bill in served}
    publish(rules=[{**route, "weights": {"left": 1, "right": 1}, "sticky": "tenant"}])
    before += 6
    for user in "cdefghij" * 2:
        ask(client, "split", user=user)
    served = httpx.get(f"{upstream}/_log").json()[before:]
    chosen = Counter((bill["user"], bill["model"]) for bill in served)
    assert {2} == set(chosen.values())  # each user twice on the same deployment
    assert {"gpt-4o", "gpt-4o-mini"} == {model for _, model in chosen}


def test_quota_refuses_beyond_its_requests_per_minute(
    publish: Publish, client: openai.OpenAI
) -> None:
    publish(rules=[{"action": "throttle", "id": "slow", "rpm": 3, "match": {"team": ["q"]}}])
    if time.time() % 60 > 45:
        time.sleep(61 - time.time() % 60)  # a minute's edge would start a fresh quota
    for _ in range(3):
        ask(client, extra_headers={"x-team": "q"})
    with pytest.raises(openai.RateLimitError) as refused:
        ask(client, extra_headers={"x-team": "q"})
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 60
    ask(client)


def test_unbounded_and_unpriced_requests_are_refused_under_a_hard_budget(
    publish: Publish, client: openai.OpenAI
) -> None:
    publish(rules=[])
    image = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    with pytest.raises(openai.RateLimitError, match="no bound"):
        client.chat.completions.create(
            model="gpt-4o",
            user="a",
            messages=[{"role": "user", "content": [image]}],  # type: ignore[list-item,misc]  # the type of a literal is lost
        )
    publish(rules=[], rate_card={})
    with pytest.raises(openai.RateLimitError, match="without a price"):
        ask(client, user="a")


def test_every_attempt_is_held_and_settled(
    publish: Publish, client: openai.OpenAI, fresh: Fresh
) -> None:
    publish(rules=[])
    ask(client, "shaky", user="a")  # the upstream fails the first try, the router retries
    until(lambda: len(fresh()[0]) >= 2)
    failed, answered = sorted(fresh()[0])
    assert 0 == failed  # answered with an error: free
    assert answered > 0


def test_a_stream_is_settled_and_an_abandoned_one_is_charged_in_full(
    publish: Publish, client: openai.OpenAI, fresh: Fresh
) -> None:
    publish(rules=[])
    list(ask(client, user="a", stream=True))
    until(lambda: any(fresh()))
    settled, unproven = fresh()
    assert (1, []) == (len(settled), unproven)
    stream = ask(client, user="a", stream=True)
    next(iter(stream))
    stream.close()
    until(lambda: bool(fresh()[1]))
    assert settled == fresh()[0]
    assert 20 * 10_000 <= fresh()[1][0]  # all that it might have said


def test_fifty_clients_spend_the_budget_and_not_more(
    publish: Publish, proxy: str, upstream: str, control_plane: dict[str, Any]
) -> None:
    before = len(httpx.get(f"{upstream}/_log").json())
    publish(rules=[], budgets=[budget(limit_nusd=taken_nusd(control_plane) + LIMIT_NUSD)])
    outcome = asyncio.run(_storm(proxy))
    bills = httpx.get(f"{upstream}/_log").json()[before:]
    spent = sum(
        bill["input_tokens"] * 2_500 + bill["output_tokens"] * 10_000
        for bill in bills
        if bill["user"] == "a"
    )
    assert 0.95 * LIMIT_NUSD <= spent <= LIMIT_NUSD
    assert {200} == set(outcome["b"])
    assert {200, 429} == set(outcome["a"])


async def _storm(proxy: str) -> dict[str, Counter[int]]:
    """Run 50 clients of two tenants until tenant a has been refused for a while.

    Many calls in a row, and for longer than a lease takes on a busy machine.
    """
    outcome: dict[str, Counter[int]] = {"a": Counter(), "b": Counter()}
    client = openai.AsyncOpenAI(base_url=f"{proxy}/v1", api_key=PROXY_KEY, max_retries=0)
    refused_in_a_row, served_at = 0, time.monotonic()

    async def call(tenant: str) -> int:
        try:
            await client.chat.completions.create(
                model="gpt-4o",
                user=tenant,
                max_tokens=1_000,
                messages=[{"role": "user", "content": "a question of some length " * 8}],
            )
        except openai.APIStatusError as refused:
            return refused.status_code
        return 200

    async def run_a() -> None:
        nonlocal refused_in_a_row, served_at
        while refused_in_a_row < 60 or time.monotonic() < served_at + REFUSED_SECONDS:
            status = await call("a")
            outcome["a"][status] += 1
            if status == 429:
                refused_in_a_row += 1
                await asyncio.sleep(0.05)  # as a client that is told to wait
            else:
                refused_in_a_row, served_at = 0, time.monotonic()

    async def run_b() -> None:
        for _ in range(8):
            outcome["b"][await call("b")] += 1

    async with client:
        await asyncio.gather(*(run_a() for _ in range(40)), *(run_b() for _ in range(10)))
    return outcome
