"""Take features out of a request, as data; a feature out of the way takes its unknown cost along."""

from collections.abc import Collection, Mapping
from typing import Final

CLIENT_TOOLS: Final = frozenset({"function", "custom"})
"""Types of tools that the sender runs: their text is all that they cost."""

FIELDS: Final = {
    "tools": (
        *("tools", "functions", "tool_choice", "function_call", "parallel_tool_calls"),
        *("web_search_options", "mcp_servers"),
    ),
    "server_tools": ("web_search_options", "mcp_servers"),
    "reasoning": ("reasoning_effort", "reasoning", "thinking"),
    "logprobs": ("logprobs", "top_logprobs"),
    "parallel_tool_calls": (),
    "background": ("background",),
    "prediction": ("prediction",),
    "audio": ("audio", "modalities"),
    "service_tier": ("service_tier",),
}
"""Feature of a `strip` rule → the request's fields that go."""


def strip(request: dict[str, object], features: Collection[str]) -> None:
    """Take features out of a request, in place."""
    for feature in features:
        for field in FIELDS.get(feature, ()):
            request.pop(field, None)
    if "server_tools" in features:
        _without_server_tools(request)
    if "parallel_tool_calls" in features and request.get("tools"):
        _one_tool_at_a_time(request)


def is_server_tool(tool: object) -> bool:
    """Whether the provider runs it, and bills what it likes."""
    kind = tool.get("type", "custom") if isinstance(tool, Mapping) else "unknown"
    return str(kind) not in CLIENT_TOOLS


def _without_server_tools(request: dict[str, object]) -> None:
    tools = request.get("tools")
    if not isinstance(tools, list):
        return
    kept = [tool for tool in tools if not is_server_tool(tool)]
    if len(kept) == len(tools):
        return
    request["tools"] = kept
    request.pop("tool_choice", None)  # it may name one that is gone
    if not kept:
        del request["tools"]
        request.pop("parallel_tool_calls", None)


def _one_tool_at_a_time(request: dict[str, object]) -> None:
    """Anthropic says it within `tool_choice`, OpenAI beside it; Anthropic's tools have no type."""
    tools = request["tools"]
    is_anthropic = isinstance(tools, list) and any(
        isinstance(tool, Mapping) and "input_schema" in tool for tool in tools
    )
    if not is_anthropic:
        request["parallel_tool_calls"] = False
        return
    choice = request.get("tool_choice")
    chosen = dict(choice) if isinstance(choice, Mapping) else {"type": "auto"}
    if chosen.get("type") != "none":
        request["tool_choice"] = {**chosen, "disable_parallel_tool_use": True}
