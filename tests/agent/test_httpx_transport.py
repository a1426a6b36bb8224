"""The transport under the real clients of OpenAI and Anthropic, against an upstream that bills."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from controlplane.agent.embedded import EmbeddedAgent
from controlplane.agent.exchange import dimensions
from controlplane.agent.httpx_transport import AsyncControlplaneTransport, ControlplaneTransport
from controlplane.agent.main import build_agent

STUB = Path(__file__).parents[1] / "e2e" / "stub_upstream.py"
IN_NUSD, OUT_NUSD = 1_000, 10_000  # a token; the fake control plane prices everything so
SAY = [{"role": "user", "content": "say something short"}]
CARD = {
    f"openai/{model}": {"input_nusd": IN_NUSD * 10**6, "output_nusd": OUT_NUSD * 10**6}
    for model in ("m", "m-small", "m-busy", "m-cut", "m-hang", "m-flaky")
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(STUB)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    port = json.loads(process.stdout.readline())["port"]
    yield f"http://127.0.0.1:{port}"
    process.communicate(timeout=60)


@pytest.fixture
def gate(control_plane: Any, make_settings: Callable[..., Any]) -> Iterator[EmbeddedAgent]:
    control_plane.publish(rate_card=CARD, budgets=[control_plane.budget(limit_nusd=10**12)])
    embedded = EmbeddedAgent(build_agent(make_settings(control_plane)))
    yield embedded
    embedded.close()


@pytest.fixture
def client(gate: EmbeddedAgent, upstream: str) -> Iterator[openai.OpenAI]:
    transport = ControlplaneTransport(gate, provider="openai")
    with openai.OpenAI(
        base_url=f"{upstream}/v1",
        api_key="none",
        max_retries=0,
        http_client=_http(transport),
    ) as made:
        yield made


def _http(transport: ControlplaneTransport) -> Any:
    return httpx2.Client(transport=transport)  # type: ignore[arg-type]  # the same by shape only


def _bills(upstream: str) -> list[dict[str, Any]]:
    bills: list[dict[str, Any]] = httpx.get(f"{upstream}/_log").json()
    return bills


def _cost(bill: dict[str, Any]) -> int:
    return int(bill["input_tokens"] * IN_NUSD + bill["output_tokens"] * OUT_NUSD)


def _settled(control_plane: Any, count: int, *, kind: str = "settled") -> list[int]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found: dict[str, int] = control_plane.state()[kind]
        if len(found) >= count:
            return list(found.values())
        time.sleep(0.05)
    raise AssertionError(f"{count} {kind} never came")


def test_a_chat_is_held_and_settled_exactly(
    client: openai.OpenAI, upstream: str, control_plane: Any
) -> None:
    answer = client.chat.completions.create(model="m", messages=SAY, user="a", max_tokens=30)  # type: ignore[arg-type]
    assert "some words" == answer.choices[0].message.content
    assert [_cost(_bills(upstream)[-1])] == _settled(control_plane, 1)
    standing = control_plane.state()["standing"]
    assert 0 == standing["settled_unproven_nusd"]


def test_a_stream_is_settled_and_its_usage_hidden_unless_asked_for(
    client: openai.OpenAI, upstream: str, control_plane: Any
) -> None:
    order: dict[str, Any] = {"model": "m", "messages": SAY, "user": "a", "max_tokens": 30}
    chunks = list(client.chat.completions.create(**order, stream=True))
    assert "some words" == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    first = _cost(_bills(upstream)[-1])
    asked = list(
        client.chat.completions.create(**order, stream=True, stream_options={"include_usage": True})
    )
    bill = _bills(upstream)[-1]
    assert asked[-1].usage is not None
    assert bill["output_tokens"] == asked[-1].usage.completion_tokens
    assert [first, _cost(bill)] == _settled(control_plane, 2)


def test_responses_and_embeddings_are_settled(
    client: openai.OpenAI, upstream: str, control_plane: Any
) -> None:
    client.responses.create(model="m", input="say something", user="a", max_output_tokens=40)
    events = list(
        client.responses.create(
            model="m", input="say something", user="a", max_output_tokens=40, stream=True
        )
    )
    assert "response.completed" == events[-1].type
    client.embeddings.create(model="m", input="some words", user="a")
    assert [_cost(bill) for bill in _bills(upstream)[-3:]] == _settled(control_plane, 3)


def test_the_client_of_anthropic_is_held_settled_and_refused(
    gate: EmbeddedAgent, upstream: str, control_plane: Any
) -> None:
    transport = ControlplaneTransport(gate, provider="openai", known={"tenant": "a"})
    with anthropic.Anthropic(
        base_url=upstream, api_key="none", http_client=_http(transport)
    ) as client:
        order: dict[str, Any] = {"model": "m", "messages": SAY, "max_tokens": 50}
        client.messages.create(**order)
        with client.messages.stream(**order) as stream:
            assert "some words" == stream.get_final_text()
        assert [_cost(bill) for bill in _bills(upstream)[-2:]] == _settled(control_plane, 2)
        control_plane.publish(
            rules=[{"action": "deny", "id": "stop", "reason": "no more"}], rate_card=CARD
        )
        _until_policy(gate, "1.2")
        with pytest.raises(anthropic.RateLimitError) as refused:
            client.messages.create(**order)
    assert isinstance(refused.value.body, dict)
    error = refused.value.body["error"]
    assert ("policy_denied", "stop", "no more") == (error["code"], error["rule"], error["message"])


def _until_policy(gate: EmbeddedAgent, policy: str) -> None:
    deadline = time.monotonic() + 60
    while gate.policy != policy and time.monotonic() < deadline:
        time.sleep(0.02)
    assert policy == gate.policy


def test_a_refusal_names_the_budget_and_is_not_retried(
    gate: EmbeddedAgent, upstream: str, control_plane: Any
) -> None:
    control_plane.publish(rate_card=CARD, budgets=[control_plane.budget(limit_nusd=5)])
    gate.ready()
    _until_policy(gate, "1.2")
    transport = ControlplaneTransport(gate, provider="openai")
    before = len(_bills(upstream))
    with (
        openai.OpenAI(
            base_url=f"{upstream}/v1", api_key="none", http_client=_http(transport)
        ) as client,
        pytest.raises(openai.RateLimitError) as refused,
    ):
        client.chat.completions.create(
            model="m",
            messages=SAY,  # type: ignore[arg-type]
            user="a",
            max_tokens=30,
            extra_headers={"x-request-id": "mine"},
        )
    assert isinstance(refused.value.body, dict)
    body = refused.value.body
    assert ("budget_exhausted", "mine", "1.2") == (
        body["code"],
        body["request_id"],
        body["policy_generation"],
    )
    budget = body["budget"]
    assert ("team a", "ana", "0.000000005") == (
        budget["name"],
        budget["owner"],
        budget["limit_usd"],
    )
    assert {"spent_usd", "resets_at"} <= budget.keys()
    seconds = int(refused.value.response.headers["retry-after"])
    left = datetime(2036, 1, 1, tzinfo=UTC) - datetime.now(UTC)  # nothing runs: the window's end
    assert abs(left.total_seconds() - seconds) < 60
    assert before == len(_bills(upstream))
    deadline = time.monotonic() + 60
    while not (said := control_plane.refused()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert {("b1", "", "budget_exhausted", 1)} == said


def test_a_stream_that_is_left_or_breaks_is_charged_in_full(
    client: openai.OpenAI, control_plane: Any
) -> None:
    order: dict[str, Any] = {"messages": SAY, "user": "a", "max_tokens": 30, "stream": True}
    left = client.chat.completions.create(model="m", **order)
    next(iter(left))
    left.close()
    with pytest.raises(openai.APIConnectionError):
        list(client.chat.completions.create(model="m-cut", **order))
    charged = _settled(control_plane, 2, kind="unproven")
    assert all(nusd > 30 * OUT_NUSD for nusd in charged)


def test_an_error_is_free_and_a_timeout_is_not(client: openai.OpenAI, control_plane: Any) -> None:
    order: dict[str, Any] = {"messages": SAY, "user": "a", "max_tokens": 30}
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="m-busy", **order)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="m-hang", **order, timeout=1.0)
    with pytest.raises(openai.APIConnectionError):
        client.with_options(base_url="http://127.0.0.1:9").chat.completions.create(
            model="m", **order
        )
    assert [0, 0] == _settled(control_plane, 2)
    assert 1 == len(_settled(control_plane, 1, kind="unproven"))


def test_each_retry_of_the_client_has_a_hold(client: openai.OpenAI, control_plane: Any) -> None:
    client.with_options(max_retries=2).chat.completions.create(
        model="m-flaky",
        messages=SAY,  # type: ignore[arg-type]
        user="a",
        max_tokens=30,
    )
    costs = _settled(control_plane, 2)
    assert 0 == costs[0]
    assert costs[1] > 0


def test_policy_changes_what_is_sent(
    client: openai.OpenAI, gate: EmbeddedAgent, upstream: str, control_plane: Any
) -> None:
    rules = [
        {"action": "downgrade", "id": "small", "to": "m-small", "match": {"team": ["x"]}},
        {"action": "cap", "id": "short", "max_tokens": 7, "match": {"team": ["x"]}},
    ]
    control_plane.publish(rate_card=CARD, rules=rules)
    gate.ready()
    _until_policy(gate, "1.2")
    with dimensions(team="x"):
        client.chat.completions.create(model="m", messages=SAY, max_tokens=30)  # type: ignore[arg-type]
    bill = _bills(upstream)[-1]
    assert ("m-small", 7) == (bill["model"], bill["limit"])


def test_a_plain_httpx_client_is_governed_too(
    gate: EmbeddedAgent, upstream: str, control_plane: Any
) -> None:
    order = {"model": "m", "messages": SAY, "user": "a", "max_tokens": 30}
    with httpx.Client(transport=ControlplaneTransport(gate, provider="openai")) as plain:
        answer = plain.post(f"{upstream}/v1/chat/completions", json=order)
    assert "some words" == answer.json()["choices"][0]["message"]["content"]
    assert gate.policy == answer.headers["x-controlplane-policy"]
    assert [_cost(_bills(upstream)[-1])] == _settled(control_plane, 1)


def test_what_nobody_bills_passes(gate: EmbeddedAgent, upstream: str) -> None:
    with httpx.Client(transport=ControlplaneTransport(gate)) as plain:
        assert plain.get(f"{upstream}/_log").is_success
    assert not gate.agent.holder.queue.unsettled


def test_an_operation_without_a_bound_is_refused_under_a_hard_budget(
    gate: EmbeddedAgent, upstream: str
) -> None:
    transport = ControlplaneTransport(gate, provider="openai", known={"tenant": "a"})
    with (
        openai.OpenAI(
            base_url=f"{upstream}/v1", api_key="none", http_client=_http(transport)
        ) as client,
        pytest.raises(openai.RateLimitError, match="operation batches"),
    ):
        client.batches.create(
            completion_window="24h", endpoint="/v1/chat/completions", input_file_id="file-1"
        )


def test_the_async_client_in_parallel(
    gate: EmbeddedAgent, upstream: str, control_plane: Any
) -> None:
    before = len(_bills(upstream))

    async def main() -> None:
        transport = AsyncControlplaneTransport(gate, provider="openai")
        async with openai.AsyncOpenAI(
            base_url=f"{upstream}/v1",
            api_key="none",
            http_client=httpx2.AsyncClient(transport=transport),  # type: ignore[arg-type]  # the same by shape only
        ) as client:

            async def call(number: int) -> None:
                order: dict[str, Any] = {"model": "m", "messages": SAY, "user": "a"}
                if number % 2:
                    await client.chat.completions.create(**order, max_tokens=30)
                    return
                stream = await client.chat.completions.create(**order, max_tokens=30, stream=True)
                assert [chunk async for chunk in stream]

            await asyncio.gather(*(call(number) for number in range(12)))

    asyncio.run(main())
    fresh = _bills(upstream)[before:]
    assert 12 == len(fresh)
    assert sum(map(_cost, fresh)) == sum(_settled(control_plane, 12))
