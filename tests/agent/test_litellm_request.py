from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.agent.litellm_request import (
    call_of,
    deployment_names,
    facts_of,
    failure_ending,
    group_of,
    mark,
    pick,
    provider_of,
    route_point,
    sent_fields,
    success_ending,
)
from controlplane.agent.usage import usage_buckets

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MAP = {
    "tenant": "user",
    "team": "header.X-Team",
    "project": "metadata.project",
    "api_key": "key.alias",
    "customer": "key.team",
}


def test_facts_come_from_where_the_policy_says() -> None:
    data = {
        "user": "acme",
        "proxy_server_request": {"headers": {"x-team": "red"}, "body": {"user": 1, "model": 2}},
        "metadata": {"requester_metadata": {"project": "p1"}, "project": "forged"},
    }
    key = SimpleNamespace(key_alias="prod", team_id="t1")
    expected = {
        "tenant": "acme",
        "team": "red",
        "project": "p1",
        "api_key": "prod",
        "customer": "t1",
    }
    assert expected == facts_of(data, key, MAP)
    assert {} == facts_of({}, object(), MAP)
    assert {"tenant": "ours"} == facts_of({}, object(), MAP, tenant="ours")
    assert "acme" == facts_of(data, key, MAP, tenant="ours")["tenant"]
    assert ("user", "model") == sent_fields(data)


def test_fields_that_a_sender_puts_into_a_fallback_are_sent_by_it() -> None:
    """LiteLLM lets a fallback replace any field; a name that is not known has no bound."""
    fallbacks = ["b", {"model": "c", "num_beams": 9}]
    data = {"proxy_server_request": {"body": {"model": "a", "fallbacks": fallbacks}}}
    assert ("model", "fallbacks", "model", "num_beams") == sent_fields(data)


def test_the_group_of_an_attempt_is_the_routers_word() -> None:
    ours = {"controlplane_call": "c", "model_group": "fallback"}
    assert "fallback" == group_of({"model": "openai/x", "litellm_metadata": ours})
    assert group_of({"metadata": {"model_group": "forged"}}) is None


def test_a_sender_can_not_name_its_own_call() -> None:
    data: dict[str, object] = {"metadata": {"controlplane_call": "somebody-elses"}}
    mark(data, "ours")
    assert "ours" == call_of(data)
    assert "ours" == call_of({"litellm_params": data})
    anthropic: dict[str, object] = {"metadata": {"user_id": "u"}, "litellm_metadata": {}}
    mark(anthropic, "ours")
    assert {"user_id": "u"} == anthropic["metadata"]  # it is sent upstream as it is
    assert "ours" == call_of(anthropic)


def test_weights_share_and_a_point_is_stable() -> None:
    deployments: list[dict[str, Any]] = [
        {"model_info": {"id": "l"}},
        {"model_info": {"id": "r"}},
        {"model_info": {}},
    ]
    weights = {"l": 9, "r": 1}
    ids = [pick(deployments, weights, point=n / 1_000)[0]["model_info"] for n in range(1_000)]
    assert {"l": 900, "r": 100} == Counter(str(one["id"]) for one in ids if isinstance(one, dict))
    assert deployments == pick(deployments, {"gone": 1}, point=0.5)
    assert route_point("acme") == route_point("acme")
    assert 0.0 <= route_point(None) < 1.0


def test_the_rate_names_of_a_group() -> None:
    def at(model: str) -> dict[str, Any]:
        return {"litellm_params": {"model": model}}

    names = deployment_names([at("azure/gpt-4o"), at("azure/gpt-4o")], "group")
    assert (("azure.ai.openai/gpt-4o", "azure/gpt-4o"),) == names
    assert "azure.ai.openai" == provider_of(names)
    assert (("group",),) == deployment_names([], "group")
    assert provider_of((("group",),)) is None
    assert provider_of((("openai/a",), ("azure/a",))) is None
    assert (("openai/x",),) == deployment_names([at("openai/*")], "openai/x")


@pytest.mark.parametrize(
    ("status", "headers", "usage"),
    [
        (400, {}, {}),
        (429, None, {}),
        (408, {}, None),
        (499, {}, None),
        (500, {}, {}),
        (500, None, None),  # LiteLLM's number for a connection that broke
        (None, None, None),
    ],
)
def test_only_an_answered_error_is_free(
    status: int | None, headers: dict[str, str] | None, usage: dict[str, int] | None
) -> None:
    error = SimpleNamespace(status_code=status, litellm_response_headers=headers)
    assert usage == failure_ending(error, NOW).usage


def test_success_settles_what_the_upstream_reported() -> None:
    response = {"id": "r1", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    kwargs: dict[str, object] = {"model": "m", "custom_llm_provider": "bedrock"}
    ending = success_ending(kwargs, response, NOW)
    assert {"input_uncached": 7, "output_text": 3} == ending.usage
    assert ("r1", "aws.bedrock", "m") == (ending.response_id, ending.provider, ending.model)
    cached = success_ending({**kwargs, "cache_hit": True}, response, NOW).usage
    assert {"input_uncached": 0, "output_text": 0} == cached  # `{}` would be "not known"
    gone = {"metadata": {"controlplane_call": "c", "client_disconnected": True}}
    assert success_ending({**kwargs, "litellm_params": gone}, response, NOW).usage is None


@pytest.mark.parametrize(
    ("usage", "buckets"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 40},
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            {"input_uncached": 60, "cache_read": 40, "output_text": 30, "output_reasoning": 20},
        ),
        (
            {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 2},
            {"input_uncached": 10, "cache_read": 5, "output_text": 2},
        ),
        (
            {
                "input_tokens": 10,
                "cache_creation_input_tokens": 6,
                "cache_creation": {"ephemeral_1h_input_tokens": 4},
                "output_tokens": 2,
            },
            {"input_uncached": 10, "cache_write_5m": 2, "cache_write_1h": 4, "output_text": 2},
        ),
        (
            {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 2},
            {"input_uncached": 6, "cache_read": 4, "output_text": 2},
        ),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 9},
            },
            None,  # a part above its whole is not believed
        ),
        ({"prompt_tokens": -5, "completion_tokens": 1}, None),
    ],
)
def test_usage_of_three_shapes(
    usage: dict[str, object] | None, buckets: dict[str, int] | None
) -> None:
    assert buckets == usage_buckets(usage)
