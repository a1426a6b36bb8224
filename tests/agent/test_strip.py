"""Features taken out of a request: what is left of it, and what it can cost then."""

from typing import Any

import pytest

from controlplane.agent.bounds import bound_request
from controlplane.agent.strip import FIELDS, strip
from controlplane.policy.document import STRIPPABLE

FUNCTION = {"type": "function", "function": {"name": "f"}}
SEARCH = {"type": "web_search"}
THEIRS = {"name": "f", "input_schema": {"type": "object"}}
BARE: dict[str, Any] = {
    "model": "m",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "x"}],
}


@pytest.mark.parametrize(
    ("feature", "added", "left"),
    [
        ("tools", {"tools": [FUNCTION], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
        ("tools", {"web_search_options": {"a": 1}}, {}),
        ("server_tools", {"tools": [FUNCTION, SEARCH]}, {"tools": [FUNCTION]}),
        ("server_tools", {"tools": [SEARCH], "tool_choice": "required"}, {}),
        ("server_tools", {"tools": [FUNCTION], "tool_choice": "auto"}, None),
        ("reasoning", {"reasoning_effort": "high", "thinking": {"type": "enabled"}}, {}),
        ("logprobs", {"logprobs": True, "top_logprobs": 5}, {}),
        (
            "parallel_tool_calls",
            {"tools": [FUNCTION]},
            {"tools": [FUNCTION], "parallel_tool_calls": False},
        ),
        (
            "parallel_tool_calls",
            {"tools": [THEIRS]},
            {"tools": [THEIRS], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        ("parallel_tool_calls", {}, {}),
        ("audio", {"audio": {"voice": "x"}, "modalities": ["text", "audio"]}, {}),
        ("service_tier", {"service_tier": "priority"}, {}),
        ("background", {"background": True}, {}),
        ("prediction", {"prediction": {"type": "content"}}, {}),
    ],
)
def test_a_feature_goes_and_the_rest_stays(
    feature: str, added: dict[str, Any], left: dict[str, Any] | None
) -> None:
    request = {**BARE, **added}
    strip(request, [feature])
    assert {**BARE, **(added if left is None else left)} == request


def test_every_feature_that_a_rule_may_name_is_known() -> None:
    assert set(STRIPPABLE) == set(FIELDS)


@pytest.mark.parametrize(
    ("features", "added", "is_bounded"),
    [
        (["server_tools"], {"tools": [SEARCH]}, True),
        (["reasoning"], {"tools": [SEARCH]}, False),
        (["server_tools"], {"tools": [SEARCH], "background": True}, False),
        (["server_tools", "background"], {"tools": [SEARCH], "background": True}, True),
        (["audio"], {"audio": {"voice": "x"}, "modalities": ["audio"]}, True),
        (["service_tier"], {"service_tier": "priority"}, True),
        (["server_tools"], {"container": "c", "tools": [SEARCH]}, False),
    ],
)
def test_what_made_the_cost_unknown_goes_with_it(
    features: list[str], added: dict[str, Any], *, is_bounded: bool
) -> None:
    """The bound of the stripped request is that of the request as it is sent."""
    bound = bound_request("chat", {**BARE, **added})
    assert bound.unbounded
    assert is_bounded == (bound.without(features).unbounded is None)
    sent = {**BARE, **added}
    strip(sent, features)
    assert is_bounded == (bound_request("chat", sent).unbounded is None)
