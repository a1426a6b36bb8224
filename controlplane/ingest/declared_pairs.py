"""Which two reports of one layer may be the same call (algorithms C2: no others ever merge).

Client libraries stack: a framework calls a vendor's SDK, an instrumentor wraps the SDK, and some
SDKs report by themselves. Each is a client report of the one request that leaves the process.
"""

from enum import IntEnum
from typing import Final

from controlplane.signals.vocabulary import Layer


class Depth(IntEnum):
    """How close to the wire a client library's scope reports; smaller is closer."""

    NATIVE = 0
    INSTRUMENTOR = 1
    FRAMEWORK = 2


NATIVE_SCOPES: Final = frozenset({"com.anthropic.sdk.python"})
"""SDKs that emit spans of their own as soon as a TracerProvider is set."""

INSTRUMENTOR_SCOPES: Final = frozenset(
    {
        "@opentelemetry/instrumentation-openai",
        "logfire.anthropic",
        "logfire.openai",
        "openinference.instrumentation.anthropic",
        "openinference.instrumentation.bedrock",
        "openinference.instrumentation.google_genai",
        "openinference.instrumentation.groq",
        "openinference.instrumentation.litellm",
        "openinference.instrumentation.mistralai",
        "openinference.instrumentation.openai",
        "openinference.instrumentation.vertexai",
        "openlit.instrumentation.anthropic",
        "openlit.instrumentation.openai",
        "opentelemetry.instrumentation.anthropic",
        "opentelemetry.instrumentation.bedrock",
        "opentelemetry.instrumentation.genai.anthropic",
        "opentelemetry.instrumentation.genai.openai",
        "opentelemetry.instrumentation.google_genai",
        "opentelemetry.instrumentation.openai.v0",
        "opentelemetry.instrumentation.openai.v1",
        "opentelemetry.instrumentation.openai_v2",
        "opentelemetry.util.genai.handler",
    }
)
"""Instrumentors of a vendor's SDK; every other client scope is a framework above them."""


def depth_of(scope: str) -> Depth:
    """Place a scope name."""
    if scope in NATIVE_SCOPES:
        return Depth.NATIVE
    if scope in INSTRUMENTOR_SCOPES:
        return Depth.INSTRUMENTOR
    return Depth.FRAMEWORK


def wraps(outer_scope: str, inner_scope: str, *, layer: str) -> bool:
    """Whether a span of `outer_scope` may report the same call as its descendant."""
    return layer == Layer.CLIENT and depth_of(outer_scope) > depth_of(inner_scope)


def reports_beside(scope: str, other_scope: str, *, layer: str) -> bool:
    """Whether both may report one call as siblings: an SDK itself and its instrumentor."""
    depths = {depth_of(scope), depth_of(other_scope)}
    return layer == Layer.CLIENT and depths == {Depth.NATIVE, Depth.INSTRUMENTOR}
