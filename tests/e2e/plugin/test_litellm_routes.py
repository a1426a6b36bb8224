"""Every API of the real LiteLLM proxy that is billed, under real clients, with the plug-in in it."""

import json
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.e2e.plugin.conftest import (
    PROXY_KEY,
    Fresh,
    Publish,
    ask,
    auth,
    budget,
    taken_nusd,
    until,
)

IN_NUSD, OUT_NUSD = 2_500, 10_000  # a token of every model that these tests call
FIXED_NUSD = 10 * IN_NUSD + 10 * OUT_NUSD
BY_HEADER = {"dimension_map": {"tenant": "header.x-tenant"}, "rules": []}
TENANT = {"X-Tenant": "a"}
SAY: Any = [{"role": "user", "content": "say something"}]
ROUNDING_NUSD = 100
SWITCH_SECONDS = 0.5
SWITCH_CALLS = 3
"""On a busy machine a switch may take as long as this many calls without one (a fifth of a second
each on a quiet one, most of it the upstream's)."""


@pytest.fixture
def claude(proxy: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=proxy, api_key=PROXY_KEY, max_retries=0) as made:
        yield made


def test_each_api_is_held_and_settled_to_the_nano_dollar(
    publish: Publish,
    client: openai.OpenAI,
    claude: anthropic.Anthropic,
    fresh: Fresh,
) -> None:
    """Messages, responses, chat, completions, embeddings: the family of thread 38176."""
    publish(**BY_HEADER)
    told: Any = {"model": "gpt-fixed", "extra_headers": TENANT}
    claude.messages.create(model="claude", messages=SAY, max_tokens=10, extra_headers=TENANT)
    client.responses.create(input="hi", max_output_tokens=10, **told)
    client.chat.completions.create(messages=SAY, max_tokens=10, **told)
    client.completions.create(prompt="hi", max_tokens=10, **told)
    client.embeddings.create(input="hi", **told)
    until(lambda: len(fresh()[0]) >= 5)
    assert [10 * IN_NUSD] + [FIXED_NUSD] * 4 == sorted(fresh()[0])


def test_each_api_is_settled_when_it_streams(
    publish: Publish,
    client: openai.OpenAI,
    claude: anthropic.Anthropic,
    fresh: Fresh,
) -> None:
    publish(**BY_HEADER)
    with claude.messages.stream(
        model="claude", messages=SAY, max_tokens=10, extra_headers=TENANT
    ) as stream:
        assert "some words" == stream.get_final_text()
    told: Any = {"model": "gpt-fixed", "extra_headers": TENANT, "stream": True}
    list(client.responses.create(input="hi", max_output_tokens=10, **told))
    list(client.chat.completions.create(messages=SAY, max_tokens=10, **told))
    until(lambda: len(fresh()[0]) >= 3)
    assert [FIXED_NUSD] * 3 == fresh()[0]


def test_each_api_is_refused_when_its_budget_is_empty(
    publish: Publish,
    client: openai.OpenAI,
    claude: anthropic.Anthropic,
    upstream: str,
    control_plane: dict[str, Any],
) -> None:
    publish(**BY_HEADER, budgets=[budget(limit_nusd=taken_nusd(control_plane))])
    before = len(httpx.get(f"{upstream}/_log").json())
    told: Any = {"model": "gpt-fixed", "extra_headers": TENANT}
    with pytest.raises(anthropic.RateLimitError, match="team a"):
        claude.messages.create(model="claude", messages=SAY, max_tokens=10, extra_headers=TENANT)
    for call in (
        lambda: client.responses.create(input="hi", max_output_tokens=10, **told),
        lambda: client.chat.completions.create(messages=SAY, max_tokens=10, **told),
        lambda: client.completions.create(prompt="hi", max_tokens=10, **told),
        lambda: client.embeddings.create(input="hi", **told),
    ):
        with pytest.raises(openai.RateLimitError, match="team a"):
            call()
    assert before == len(httpx.get(f"{upstream}/_log").json())


def test_what_has_no_bound_is_refused_with_our_body_and_not_sent(
    publish: Publish, client: openai.OpenAI, upstream: str
) -> None:
    """What a file asks for is not known here; under a hard budget it can not be let through."""
    publish(**BY_HEADER)
    ask(client, "gpt-fixed", extra_headers=TENANT)  # with its lease comes how the budget stands
    before = _batches(upstream)
    order: Any = {"input_file_id": "file-1", "completion_window": "24h"}
    order["endpoint"] = "/v1/chat/completions"
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}
    line["body"] = {"model": "gpt-fixed", "messages": SAY, "max_tokens": 10}
    file: Any = {"file": ("a.jsonl", json.dumps(line).encode()), "purpose": "batch"}
    for call in (
        lambda: client.batches.create(**order, extra_headers=TENANT),
        lambda: client.files.create(**file, extra_headers=TENANT),
    ):
        with pytest.raises(openai.RateLimitError, match="no bound") as refused:
            call()
        told: Any = refused.value.body
        _check_body(told["provider_specific_fields"], refused.value)
        assert "false" == refused.value.response.headers["x-should-retry"]
    with pytest.raises(openai.RateLimitError) as refused:
        client.images.generate(model="gpt-fixed", prompt="a cat", extra_headers=TENANT)
    told = refused.value.body
    _check_body(json.loads(told["message"]), refused.value)  # LiteLLM passes on no more
    assert before == _batches(upstream)
    client.batches.create(**order, extra_headers={"X-Tenant": "b"})  # nobody's budget
    assert before + 1 == _batches(upstream)


def _check_body(body: dict[str, Any], refused: openai.APIStatusError) -> None:
    """Everything that a sender needs: which budget, whose, how it stands, until when, which call."""
    assert body["request_id"]
    told_id = refused.response.headers.get("x-litellm-call-id")  # none on a file's answer
    assert told_id in {None, body["request_id"]}
    told = body["budget"]
    assert ("b1", "team a", "ana@example.com") == (told["id"], told["name"], told["owner"])
    assert "100" == told["limit_usd"]
    assert float(told["spent_usd"]) >= 0
    assert "2036-01-01T00:00:00+00:00" == told["resets_at"]


def _batches(upstream: str) -> int:
    bills = httpx.get(f"{upstream}/_log").json()
    return sum(bill["path"] == "/batches" for bill in bills)


def test_a_stream_left_early_is_charged_what_its_chunks_prove(
    publish: Publish, claude: anthropic.Anthropic, fresh: Fresh
) -> None:
    """A message says at once what it read: that, and all that it might still write, is charged."""
    publish(**BY_HEADER)
    long: Any = [{"role": "user", "content": "word " * 2_000}]  # held: a token for every byte
    with claude.messages.create(
        model="claude-slow", messages=long, max_tokens=20, stream=True, extra_headers=TENANT
    ) as stream:
        next(iter(stream))
    until(lambda: bool(fresh()[1]))
    most = 10 * IN_NUSD + 20 * OUT_NUSD
    assert most <= fresh()[1][0] <= most + ROUNDING_NUSD


def test_a_stream_left_after_its_usage_came_is_settled_exactly(
    publish: Publish, client: openai.OpenAI, fresh: Fresh
) -> None:
    publish(**BY_HEADER)
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    stream = ask(client, "gpt-fixed", max_tokens=500, extra_headers=TENANT, **options)
    for chunk in stream:
        if chunk.usage:
            break
    stream.close()
    until(lambda: any(fresh()))
    assert ([FIXED_NUSD], []) == fresh()


def test_failover_from_a_dead_deployment(
    publish: Publish, client: openai.OpenAI, fresh: Fresh
) -> None:
    """The order is kept, the switch is quick, the dead one costs nothing and is then left alone."""
    rule = {"action": "failover", "id": "f", "order": ["dead", "alive"]}
    publish(**{**BY_HEADER, "rules": [{**rule, "match": {"model": ["tough"]}}]})
    failing = [_seconds(client, "tough") for _ in range(5)]  # then its breaker is open
    until(lambda: len(fresh()[0]) >= 10)
    assert [0] * 5 + [FIXED_NUSD] * 5 == sorted(fresh()[0])
    direct = [_seconds(client, "tough") for _ in range(5)]
    until(lambda: len(fresh()[0]) >= 15)
    assert [0] * 5 + [FIXED_NUSD] * 10 == sorted(fresh()[0])  # one attempt each
    switch = statistics.median(failing) - statistics.median(direct)
    sys.stderr.write(f"failover from a dead deployment: {switch * 1e3:.0f} ms\n")
    assert switch <= max(SWITCH_SECONDS, SWITCH_CALLS * statistics.median(direct))


def _seconds(client: openai.OpenAI, model: str) -> float:
    started = time.perf_counter()
    ask(client, model, extra_headers=TENANT)
    return time.perf_counter() - started


def test_a_policy_is_told_on_every_answer(publish: Publish, proxy: str) -> None:
    publish(**BY_HEADER)
    order = {"model": "gpt-fixed", "input": "hi"}
    answer = httpx.post(f"{proxy}/v1/embeddings", headers=auth(), json=order)
    assert "1." == answer.headers["x-controlplane-policy"][:2]
