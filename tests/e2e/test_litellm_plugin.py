"""The plug-in inside the real LiteLLM proxy, against a small server that speaks the wire."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

AGENT_TESTS = Path(__file__).parents[1] / "agent"
PROXY_KEY = "sk-e2e-0123456789abcdef0123456789abcdef"
GPT_4O = {"input_nusd": 2_500_000_000, "output_nusd": 10_000_000_000, "max_output_tokens": 16_384}
MINI = {"input_nusd": 150_000_000, "output_nusd": 600_000_000, "max_output_tokens": 16_384}
LIMIT_NUSD = 1_000_000_000

Publish = Callable[..., None]


def _budget(**changes: object) -> dict[str, object]:
    return {
        "id": "b1",
        "name": "team a",
        "owner": "ana@example.com",
        "match": {"tenant": ["a"]},
        "limit_nusd": 100 * LIMIT_NUSD,
        "window_start": "2026-01-01T00:00:00Z",
        "window_end": "2036-01-01T00:00:00Z",
    } | changes


@pytest.fixture(scope="module")
def control_plane(start_program: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    ready = start_program(AGENT_TESTS / "fake_control_plane.py")
    return {**ready, "url": f"http://127.0.0.1:{ready['port']}"}


@pytest.fixture(scope="module")
def proxy(
    control_plane: dict[str, Any],
    upstream: str,
    start_proxy: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    _publish(control_plane, rules=[])

    def deployment(group: str, model: str, **info: str) -> dict[str, object]:
        params = {"model": f"openai/{model}", "api_base": f"{upstream}/v1", "api_key": "none"}
        return {"model_name": group, "litellm_params": params, "model_info": info}

    return start_proxy(
        {
            "model_list": [
                deployment("gpt-4o", "gpt-4o"),
                deployment("gpt-4o-mini", "gpt-4o-mini"),
                deployment("shaky", "gpt-4o-flaky"),
                deployment("split", "gpt-4o", id="left"),
                deployment("split", "gpt-4o-mini", id="right"),
            ],
            "litellm_settings": {"callbacks": ["controlplane.agent.litellm_proxy.handler"]},
        },
        {
            "CONTROLPLANE_AGENT_SERVER_URL": control_plane["url"],
            "CONTROLPLANE_AGENT_API_KEY": "cp_proxy_test_test",
            "CONTROLPLANE_AGENT_POLICY_KEYS": ",".join(
                f"{kid}={key}" for kid, key in control_plane["keys"].items()
            ),
            "CONTROLPLANE_AGENT_STATE_DIR": str(tmp_path_factory.mktemp("agent")),
        },
    )


def _publish(control_plane: dict[str, Any], **changes: object) -> None:
    document = {
        "dimension_map": {"tenant": "user", "team": "header.x-team"},
        "budgets": [_budget()],
        "rate_card": {
            "openai/gpt-4o": GPT_4O,
            "openai/gpt-4o-mini": MINI,
            "openai/gpt-4o-flaky": GPT_4O,
        },
    } | changes
    httpx.put(f"{control_plane['url']}/_rules", json=document).raise_for_status()


@pytest.fixture
def publish(control_plane: dict[str, Any], proxy: str) -> Publish:
    """Publish a document and wait until the proxy says that it applies it."""

    def apply(**changes: object) -> None:
        _publish(control_plane, **changes)
        wanted = httpx.get(f"{control_plane['url']}/api/v1/policy").headers["ETag"].strip('"')
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            answer = httpx.post(
                f"{proxy}/v1/chat/completions", headers=_auth(), json={"model": "none"}
            )
            if answer.headers.get("x-controlplane-policy") == wanted:
                return
            time.sleep(0.05)
        pytest.fail(f"generation {wanted} was never applied")

    return apply


def _auth() -> dict[str, str]:
    return {"Authorization": f"Bearer {PROXY_KEY}"}


@pytest.fixture
def client(proxy: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{proxy}/v1", api_key=PROXY_KEY, max_retries=0) as made:
        yield made


def _ask(client: openai.OpenAI, model: str = "gpt-4o", **options: Any) -> Any:
    asked: dict[str, Any] = {"user": "b", "max_tokens": 20, **options}
    asked["messages"] = [{"role": "user", "content": "say something"}]
    return client.chat.completions.create(model=model, **asked)


def _last_bill(upstream: str) -> dict[str, Any]:
    bills: list[dict[str, Any]] = httpx.get(f"{upstream}/_log").json()
    return bills[-1]


def _state(control_plane: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = httpx.get(f"{control_plane['url']}/_state").json()
    return state


def test_deny_answers_with_our_body(publish: Publish, client: openai.OpenAI) -> None:
    publish(rules=[{"action": "deny", "id": "no-x", "match": {"team": ["x"]}, "reason": "not x"}])
    with pytest.raises(openai.RateLimitError) as refused:
        _ask(client, extra_headers={"x-team": "x"})
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
    _ask(client, extra_headers={"x-team": "y"})


def test_cap_lowers_what_the_upstream_is_asked_for(
    publish: Publish, client: openai.OpenAI, upstream: str
) -> None:
    publish(rules=[{"action": "cap", "id": "short", "max_tokens": 7, "match": {"team": ["x"]}}])
    _ask(client, max_tokens=500, extra_headers={"x-team": "x"})
    assert 7 == _last_bill(upstream)["limit"]
    _ask(client, max_tokens=500)
    assert 500 == _last_bill(upstream)["limit"]
    _ask(client, max_tokens=3, extra_headers={"x-team": "x"})
    assert 3 == _last_bill(upstream)["limit"]


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
    _ask(client)
    assert "gpt-4o-mini" == _last_bill(upstream)["model"]


def test_weighted_route_splits_and_sticks(
    publish: Publish, client: openai.OpenAI, upstream: str
) -> None:
    route = {"action": "route", "id": "split", "match": {"model": ["split"]}}
    publish(rules=[{**route, "weights": {"left": 0, "right": 1}}])
    before = len(httpx.get(f"{upstream}/_log").json())
    for _ in range(6):
        _ask(client, "split")
    served = httpx.get(f"{upstream}/_log").json()[before:]
    assert {"gpt-4o-mini"} == {bill["model"] for bill in served}
    publish(rules=[{**route, "weights": {"left": 1, "right": 1}, "sticky": "tenant"}])
    before += 6
    for user in "cdefghij" * 2:
        _ask(client, "split", user=user)
    served = httpx.get(f"{upstream}/_log").json()[before:]
    chosen = Counter((bill["user"], bill["model"]) for bill in served)
    assert {2} == set(chosen.values())  # each user twice on the same deployment
    assert {"gpt-4o", "gpt-4o-mini"} == {model for _, model in chosen}


def test_quota_refuses_beyond_its_requests_per_minute(
    publish: Publish, client: openai.OpenAI
) -> None:
    publish(rules=[{"action": "throttle", "id": "slow", "rpm": 3, "match": {"team": ["q"]}}])
    if time.time() % 60 > 50:
        time.sleep(61 - time.time() % 60)  # a minute's edge would start a fresh quota
    for _ in range(3):
        _ask(client, extra_headers={"x-team": "q"})
    with pytest.raises(openai.RateLimitError) as refused:
        _ask(client, extra_headers={"x-team": "q"})
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 60
    _ask(client)


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
        _ask(client, user="a")


def test_every_attempt_is_held_and_settled(
    publish: Publish, client: openai.OpenAI, control_plane: dict[str, Any]
) -> None:
    publish(rules=[])
    before = _state(control_plane)
    _ask(client, "shaky", user="a")  # the upstream fails the first try, the router retries
    _wait_settled(control_plane, len(before["settled"]) + 2)
    after = _state(control_plane)
    fresh = [after["settled"][hold] for hold in after["settled"] if hold not in before["settled"]]
    assert 0 == fresh[0]  # answered with an error: free
    assert fresh[1] > 0


def test_a_stream_is_settled_and_an_abandoned_one_is_charged_in_full(
    publish: Publish, client: openai.OpenAI, control_plane: dict[str, Any]
) -> None:
    publish(rules=[])
    before = _state(control_plane)
    list(_ask(client, user="a", stream=True))
    _wait_settled(control_plane, len(before["settled"]) + 1)
    stream = _ask(client, user="a", stream=True)
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 15
    while not (unproven := _state(control_plane)["unproven"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert 1 == len(unproven)


def _wait_settled(control_plane: dict[str, Any], count: int) -> None:
    deadline = time.monotonic() + 10
    while len(_state(control_plane)["settled"]) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert count == len(_state(control_plane)["settled"])


def test_fifty_clients_spend_the_budget_and_not_more(
    publish: Publish, proxy: str, upstream: str, control_plane: dict[str, Any]
) -> None:
    before = len(httpx.get(f"{upstream}/_log").json())
    deadline = time.monotonic() + 20
    while (standing := _state(control_plane)["standing"])["leased_nusd"]:
        assert time.monotonic() < deadline  # what is idle is given back
        time.sleep(0.1)
    taken = standing["limit_nusd"] - standing["free_nusd"]  # by other tests, in whatever order
    publish(rules=[], budgets=[_budget(limit_nusd=taken + LIMIT_NUSD)])
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
    """Run 50 clients of two tenants until tenant a has been refused for a while."""
    outcome: dict[str, Counter[int]] = {"a": Counter(), "b": Counter()}
    client = openai.AsyncOpenAI(base_url=f"{proxy}/v1", api_key=PROXY_KEY, max_retries=0)
    refused_in_a_row = 0

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
        nonlocal refused_in_a_row
        while refused_in_a_row < 60:
            status = await call("a")
            outcome["a"][status] += 1
            refused_in_a_row = refused_in_a_row + 1 if status == 429 else 0

    async def run_b() -> None:
        for _ in range(8):
            outcome["b"][await call("b")] += 1

    async with client:
        await asyncio.gather(*(run_a() for _ in range(40)), *(run_b() for _ in range(10)))
    return outcome
