"""Agent frameworks that report their own model calls: Google ADK and Strands.

Both name themselves as the provider; their wrappers repeat sums under the same keys and are told
from the call by their operation.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS
from controlplane.signals.vocabulary import Layer, ReportKind

GOOGLE_ADK_V1: Final = Dialect(
    # 1.14: output without thoughts; cached tokens and thoughts only in the response blob.
    name="google-adk",
    layer=Layer.CLIENT,
    scopes=("gcp.vertex.agent",),
    requires="gen_ai.system",
    keys=OTEL_KEYS,
    blobs=(
        Blob(
            key="gcp.vertex.agent.llm_response",
            paths=(
                (Field.CACHED_INPUT_TOKENS, ("usage_metadata", "cached_content_token_count")),
                (Field.REASONING_TOKENS, ("usage_metadata", "thoughts_token_count")),
            ),
        ),
    ),
    kinds_by_name={"call_llm": ReportKind.CALL},
    output_excludes_reasoning=True,
)
GOOGLE_ADK: Final = Dialect(
    name="google-adk", layer=Layer.CLIENT, scopes=("gcp.vertex.agent",), keys=OTEL_KEYS
)
STRANDS: Final = Dialect(
    name="strands",
    layer=Layer.CLIENT,
    scopes=("strands.*",),
    keys={
        **OTEL_KEYS,
        Field.TTFT: ("gen_ai.server.time_to_first_token",),
    },
    millisecond_keys=frozenset({"gen_ai.server.time_to_first_token"}),
)
