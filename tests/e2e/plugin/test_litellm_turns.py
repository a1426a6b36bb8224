"""Turns that a call takes inside the real LiteLLM proxy: each ends its hold once, and its place."""

import time
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.e2e.plugin.conftest import (
    GPT_4O,
    PROXY_KEY,
    WAIT_SECONDS,
    Fresh,
    Publish,
    ask,
    auth,
    budget,
    last_bill,
    until,
)

IN_NUSD, OUT_NUSD = 2_500, 10_000
FIXED_NUSD = 10 * IN_NUSD + 10 * OUT_NUSD
TENANT = {"X-Tenant": "a"}
SAY: Any = [{"role": "user", "content": "say something"}]
BY_HEADER = {"tenant": "header.x-tenant", "team": "header.x-team"}
ONE = {"action": "throttle", "id": "one", "concurrency": 1, "match": {"team": ["one"]}}


def test_an_answer_that_is_blocked_is_paid_all_the_same(
    publish: Publish, client: openai.OpenAI, fresh: Fresh
) -> None:
    publish(dimension_map=BY_HEADER, rules=[])
    with pytest.raises(openai.BadRequestError, match="not this answer"):
        ask(client, "blocked-after", extra_headers=TENANT)
    until(lambda: any(fresh()))
    assert ([FIXED_NUSD], []) == fresh()


def test_a_call_that_is_blocked_meanwhile_may_have_been_billed(
    publish: Publish, client: openai.OpenAI, fresh: Fresh
) -> None:
    publish(dimension_map=BY_HEADER, rules=[])
    with pytest.raises(openai.BadRequestError, match="not this question"):
        ask(client, "blocked-meanwhile", extra_headers=TENANT)
    until(lambda: any(fresh()))
    settled, unproven = fresh()
    assert not settled
    assert unproven[0] >= 20 * OUT_NUSD


@pytest.mark.parametrize("stream", [False, True])
def test_one_api_spoken_through_another_is_one_attempt(
    publish: Publish, client: openai.OpenAI, proxy: str, fresh: Fresh, *, stream: bool
) -> None:
    """Anthropic's clients with OpenAI's models, and the other way round: two calls of LiteLLM."""
    publish(dimension_map=BY_HEADER, rules=[])
    with anthropic.Anthropic(base_url=proxy, api_key=PROXY_KEY, max_retries=0) as claude:
        said = claude.messages.create(
            model="gpt-fixed", messages=SAY, max_tokens=10, extra_headers=TENANT, stream=stream
        )
        _ = list(said) if stream else said
    answer: Any = client.responses.create(
        model="claude", input="hi", max_output_tokens=10, extra_headers=TENANT, stream=stream
    )
    _ = list(answer) if stream else answer
    until(lambda: len(fresh()[0]) >= 2)
    assert ([FIXED_NUSD] * 2, []) == fresh()


DENY = {"action": "deny", "id": "no", "match": {"model": ["gpt-fixed"]}}
UNPRICED = {"budgets": [budget(match={"model": ["gpt-fixed"]})], "rate_card": {}}


@pytest.mark.parametrize(
    ("group", "policy"), [("busy", {"rules": [DENY]}), ("shut", UNPRICED)], ids=["busy", "shut"]
)
def test_a_fallback_is_held_and_judged_as_the_model_that_it_is(
    publish: Publish,
    client: openai.OpenAI,
    fresh: Fresh,
    upstream: str,
    group: str,
    policy: dict[str, Any],
) -> None:
    """It is dearer than what was asked for; of the one that is shut nothing was sent before."""
    publish(dimension_map=BY_HEADER, rules=[])
    ask(client, group, extra_headers=TENANT)
    until(lambda: FIXED_NUSD in fresh()[0])
    settled, unproven = fresh()
    assert ({0, FIXED_NUSD}, []) == (set(settled), unproven)
    publish(**{"dimension_map": BY_HEADER, "rules": [], **policy})
    before = len(httpx.get(f"{upstream}/_log").json())
    with pytest.raises(openai.APIStatusError):
        ask(client, group)
    assert before == len(httpx.get(f"{upstream}/_log").json())


SHORT = {"action": "cap", "id": "short", "max_tokens": 17, "match": {"model": ["gpt-fixed"]}}
PLAIN = {"action": "strip", "id": "plain", "features": ["logprobs"], "match": SHORT["match"]}
CHEAPER = {"action": "downgrade", "id": "cheaper", "to": "gpt-4o-mini", "match": SHORT["match"]}


@pytest.mark.parametrize("api", ["chat", "stream", "messages", "responses"])
def test_a_fallback_is_changed_as_its_own_model_is(
    publish: Publish, client: openai.OpenAI, proxy: str, fresh: Fresh, upstream: str, api: str
) -> None:
    publish(dimension_map=BY_HEADER, rules=[SHORT, PLAIN])
    _fall_back(client, proxy, api)
    until(lambda: FIXED_NUSD in fresh()[0])
    bill = last_bill(upstream)
    assert ("gpt-fixed", 17) == (bill["model"], bill["limit"])
    assert "logprobs" not in bill["fields"]


@pytest.mark.parametrize("api", ["chat", "stream", "messages", "responses"])
def test_the_model_of_a_fallback_is_replaced_as_its_own_is(
    publish: Publish, client: openai.OpenAI, proxy: str, fresh: Fresh, upstream: str, api: str
) -> None:
    short = {**SHORT, "match": {"model": ["gpt-4o-mini"]}}
    card = {f"openai/{one}": GPT_4O for one in ("gpt-busy", "gpt-fixed", "gpt-4o-mini")}
    publish(dimension_map=BY_HEADER, rules=[CHEAPER, short], rate_card=card)
    _fall_back(client, proxy, api)
    bill = last_bill(upstream)
    assert ("gpt-4o-mini", 17) == (bill["model"], bill["limit"])
    cost = bill["input_tokens"] * IN_NUSD + bill["output_tokens"] * OUT_NUSD
    until(lambda: cost in fresh()[0])


def test_a_fallback_whose_deployment_was_chosen_unasked_is_refused_where_a_rule_replaces_it(
    publish: Publish, client: openai.OpenAI, upstream: str
) -> None:
    by_id = {**CHEAPER, "match": {"model": ["by-id"]}}
    publish(dimension_map=BY_HEADER, rules=[by_id])
    before = len(httpx.get(f"{upstream}/_log").json())
    with pytest.raises(openai.APIStatusError):
        ask(client, "busy-by-id", extra_headers=TENANT)
    assert before == len(httpx.get(f"{upstream}/_log").json())


def _fall_back(client: openai.OpenAI, proxy: str, api: str) -> None:
    if api == "messages":
        with anthropic.Anthropic(base_url=proxy, api_key=PROXY_KEY, max_retries=0) as claude:
            claude.messages.create(model="busy", messages=SAY, max_tokens=20, extra_headers=TENANT)
    elif api == "responses":
        client.responses.create(
            model="busy", input="hi", max_output_tokens=20, extra_headers=TENANT
        )
    else:
        said = ask(client, "busy", extra_headers=TENANT, logprobs=True, stream=api == "stream")
        _ = list(said) if api == "stream" else said


def test_several_models_in_one_request_do_not_pass_by_a_rule(
    publish: Publish, client: openai.OpenAI, upstream: str
) -> None:
    publish(dimension_map=BY_HEADER, rules=[DENY])
    before = len(httpx.get(f"{upstream}/_log").json())
    with pytest.raises(openai.APIStatusError):
        ask(client, "gpt-4o-mini,gpt-fixed")
    assert before == len(httpx.get(f"{upstream}/_log").json())


def test_what_is_passed_through_goes_as_it_came(
    publish: Publish, proxy: str, upstream: str
) -> None:
    publish(dimension_map=BY_HEADER, rules=[ONE])
    order = {"model": "claude-fixed", "max_tokens": 10, "messages": SAY}

    def passed() -> bool:
        answer = httpx.post(
            f"{proxy}/anthropic/v1/messages", headers={**auth(), "x-team": "one"}, json=order
        )
        return answer.status_code == 200

    for _ in range(2):
        until(passed)  # as soon as the call before has given its place back
        assert {"model", "max_tokens", "messages"} == set(last_bill(upstream)["fields"])


def test_a_moderation_costs_nothing_and_is_let_through(
    publish: Publish, client: openai.OpenAI
) -> None:
    publish(dimension_map=BY_HEADER, rules=[])
    try:
        client.moderations.create(input="hi", extra_headers=TENANT)
    except openai.RateLimitError as refused:
        pytest.fail(str(refused))
    except openai.APIStatusError:
        pass  # the stub has none


def test_a_cached_reply_is_free(
    publish: Publish, client: openai.OpenAI, fresh: Fresh, upstream: str
) -> None:
    publish(dimension_map=BY_HEADER, rules=[])
    order: Any = {"extra_headers": TENANT, "extra_body": {"cache": {"use-cache": True}}}
    served = 0

    def is_cached() -> bool:
        """LiteLLM keeps a reply a little after it was given."""
        nonlocal served
        before = len(httpx.get(f"{upstream}/_log").json())
        ask(client, "gpt-fixed", max_tokens=33, **order)
        fresh_bills = len(httpx.get(f"{upstream}/_log").json()) - before
        served += fresh_bills
        return not fresh_bills

    until(is_cached)
    until(lambda: len(fresh()[0]) > served)
    assert [0] + [FIXED_NUSD] * served == sorted(fresh()[0])


TURNS: dict[str, Callable[[openai.OpenAI], object]] = {
    "blocked": lambda c: ask(c, "blocked-after", extra_headers={"x-team": "one"}),
    "blocked meanwhile": lambda c: ask(c, "blocked-meanwhile", extra_headers={"x-team": "one"}),
    "failed": lambda c: ask(c, "gpt-4o", extra_headers={"x-team": "one"}, tools="no list"),
    "cut": lambda c: list(ask(c, "cut", stream=True, extra_headers={"x-team": "one"})),
    "left": lambda c: ask(c, "gpt-4o", stream=True, extra_headers={"x-team": "one"}).close(),
    "embedded": lambda c: c.embeddings.create(
        model="gpt-fixed", input="hi", extra_headers={"x-team": "one"}
    ),
    "responses": lambda c: c.responses.create(
        model="claude", input="hi", max_output_tokens=9, extra_headers={"x-team": "one"}
    ),
    "image": lambda c: c.images.generate(
        model="gpt-fixed", prompt="x", extra_headers={"x-team": "one"}
    ),
    "batch": lambda c: c.batches.create(
        input_file_id="f",
        completion_window="24h",
        endpoint="/v1/chat/completions",
        extra_headers={"x-team": "one"},
    ),
}


def test_every_turn_gives_its_place_back(publish: Publish, client: openai.OpenAI) -> None:
    publish(dimension_map=BY_HEADER, rules=[ONE])
    held = {}
    for name, call in TURNS.items():
        try:
            call(client)
        except openai.APIError as wrong:
            if "rule one allows" in str(wrong):
                held[name] = "refused"
        if not _is_free(client):
            held[name] = "held"
            publish(dimension_map=BY_HEADER, rules=[{**ONE, "id": f"one-{len(held)}"}])
    assert not held


def _is_free(client: openai.OpenAI) -> bool:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            ask(client, "gpt-fixed", extra_headers={"x-team": "one"})
        except openai.RateLimitError:
            time.sleep(0.1)
        else:
            return True
    return False
