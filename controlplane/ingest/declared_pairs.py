"""Which two reports of one layer may be the same call (algorithms C2: no others ever merge).

Client libraries stack: a framework calls a vendor's SDK, an instrumentor wraps the SDK, and some
SDKs report by themselves. Each is a client report of the one request that leaves the process.
"""

from enum import IntEnum
from typing import Final

from controlplane.signals.vocabulary import Layer


class Depth(IntEnum):
    """How close to the wire a client library's scope reports; smaller is closer."""

    WIRE = -1
    NATIVE = 0
    INSTRUMENTOR = 1
    FRAMEWORK = 2


WIRE_SCOPES: Final = frozenset(
    {
        "@opentelemetry/instrumentation-http",
        "@opentelemetry/instrumentation-undici",
        "opentelemetry.instrumentation.aiohttp_client",
        "opentelemetry.instrumentation.httpx",
        "opentelemetry.instrumentation.requests",
        "opentelemetry.instrumentation.urllib",
        "opentelemetry.instrumentation.urllib3",
    }
)
"""Instrumentors of HTTP clients: one span a request, of whatever library makes it."""

NATIVE_SCOPES: Final = frozenset({"com.anthropic.sdk.python", "mistralai_sdk_tracer"})
"""SDKs that emit spans of their own as soon as a TracerProvider is set."""

_SDKS: Final = (
    *("alephalpha", "anthropic", "bedrock", "cohere", "google_genai", "google_generativeai"),
    *("groq", "mistralai", "ollama", "openai", "replicate", "sagemaker", "together"),
    *("transformers", "vertexai", "voyageai", "watsonx", "writer"),
)
INSTRUMENTOR_SCOPES: Final = frozenset(
    {
        "@arizeai/openinference-instrumentation-anthropic",
        "@arizeai/openinference-instrumentation-openai",
        "@opentelemetry/instrumentation-openai",
        "logfire.anthropic",
        "logfire.google_genai",
        "logfire.openai",
        "openinference.instrumentation.litellm",
        "opentelemetry.instrumentation.botocore.bedrock-runtime",
        "opentelemetry.instrumentation.openai.v0",
        "opentelemetry.instrumentation.openai.v1",
        "opentelemetry.instrumentation.openai_v2",
        "opentelemetry.util.genai.handler",
    }
    | {f"openinference.instrumentation.{sdk}" for sdk in _SDKS}
    | {f"openlit.instrumentation.{sdk}" for sdk in _SDKS}
    | {f"opentelemetry.instrumentation.{sdk}" for sdk in _SDKS}
    | {f"opentelemetry.instrumentation.genai.{sdk}" for sdk in _SDKS}
)
"""Instrumentors of a vendor's SDK; every other client scope is a framework above them."""

HALVED_SCOPES: Final = frozenset({"logfire.anthropic", "logfire.google_genai", "logfire.openai"})
"""Instrumentors that report a stream in two spans: the request, and a log without length that has
the usage."""


OVERSTATING_SCOPES: Final = frozenset({"opentelemetry.instrumentation.anthropic"})
"""Instrumentors that add the tokens of a stream's first event to a total that holds them
(OpenLLMetry 0.62 with `message_start` and `message_delta` of Anthropic)."""

MAX_OVERSTATED: Final = 16
"""What such a first event counts: the tokens of a reply that has barely begun."""


def depth_of(scope: str) -> Depth:
    """Place a scope name."""
    if scope in WIRE_SCOPES:
        return Depth.WIRE
    if scope in NATIVE_SCOPES:
        return Depth.NATIVE
    if scope in INSTRUMENTOR_SCOPES:
        return Depth.INSTRUMENTOR
    return Depth.FRAMEWORK


def wraps(outer_scope: str, inner_scope: str, *, layer: str) -> bool:
    """Whether a span of `outer_scope` may report the same call as its descendant."""
    return layer == Layer.CLIENT and depth_of(outer_scope) > depth_of(inner_scope)


def reports_beside(scope: str, other_scope: str, *, layer: str) -> bool:
    """Whether both may report one call as siblings: an SDK itself and its instrumentor.

    The request on the wire may stand beside either, or beside a framework.
    """
    depths = {depth_of(scope), depth_of(other_scope)}
    is_sdk_pair = depths == {Depth.NATIVE, Depth.INSTRUMENTOR}
    return layer == Layer.CLIENT and (is_sdk_pair or (Depth.WIRE in depths and len(depths) > 1))
