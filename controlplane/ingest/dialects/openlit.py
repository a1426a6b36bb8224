"""OpenLIT: official keys and its own cost; it copies what the providers' APIs say.

So Anthropic's and Bedrock's input leaves cached tokens out, Gemini's output leaves thoughts out.
Before 1.35 every span has the scope `openlit.otel.tracing`, whoever was called.

It counts tokens itself when a stream of OpenAI's API, of LangChain or of a local engine has none.
Then there is no cache key on the span, which is the one thing that tells; such a stream without one
is not taken as the provider's word. From the other providers' own SDKs it copies what they say.
"""

from typing import Final

import msgspec

from controlplane.ingest.dialects.dialect import Dialect, Field, Keys
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS, STREAM_KEYS
from controlplane.signals.vocabulary import Layer

_KEYS: Final[Keys] = {
    **OTEL_KEYS,
    Field.TTFT: (*OTEL_KEYS[Field.TTFT], "gen_ai.server.time_to_first_token"),
    Field.REPORTED_COST: ("gen_ai.usage.cost",),
}
_EVIDENCE: Final = "openlit 1.34.43 and 1.45.0 on the wire"

OPENLIT_ANTHROPIC: Final = Dialect(
    name="openlit",
    layer=Layer.CLIENT,
    evidence=_EVIDENCE,
    scenarios=("openlit-anthropic",),
    scopes=("openlit.instrumentation.anthropic", "openlit.instrumentation.bedrock"),
    keys=_KEYS,
    provider_in_scope=True,
    operation_in_name=True,
    input_excludes_cache=True,
    stream_keys=STREAM_KEYS,
)
OPENLIT: Final = Dialect(
    name="openlit",
    layer=Layer.CLIENT,
    evidence=_EVIDENCE,
    scenarios=("openlit",),
    scopes=("openlit.*",),
    keys=_KEYS,
    provider_in_scope=True,
    operation_in_name=True,
    cache_is_extra_of=frozenset({"anthropic", "aws.bedrock"}),
    reasoning_is_extra_of=frozenset({"gcp.gemini", "gcp.vertex_ai"}),
    stream_usage_needs=OTEL_KEYS[Field.CACHED_INPUT_TOKENS],
    stream_usage_is_of=frozenset(
        {
            "anthropic",
            "aws.bedrock",
            "azure.ai.inference",
            "cohere",
            "gcp.gemini",
            "gcp.vertex_ai",
            "groq",
            "mistral_ai",
            "together_ai",
        }
    ),
    stream_keys=STREAM_KEYS,
)
OPENLIT_LANGCHAIN: Final = msgspec.structs.replace(
    OPENLIT,
    scenarios=(),
    scopes=("openlit.instrumentation.langchain*",),
    stream_usage_is_of=frozenset(),  # it names the provider behind, and counts all the same
)
