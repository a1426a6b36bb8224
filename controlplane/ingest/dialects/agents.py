"""Agent frameworks that report their own model calls: Google ADK and Strands.

Both name themselves as the provider; their wrappers repeat sums under the same keys and are told
from the call by their operation.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS, STREAM_KEYS
from controlplane.signals.vocabulary import Layer, ReportKind

_CALL_LLM: Final = {"call_llm": ReportKind.CALL}
_STRANDS_TTFT: Final = "gen_ai.server.time_to_first_token"

GOOGLE_ADK_V1: Final = Dialect(
    # Output without thoughts; cached tokens and thoughts only in the response blob.
    name="google-adk",
    layer=Layer.CLIENT,
    evidence="google-adk 1.14.1 on the wire",
    scenarios=("google-adk",),
    scopes=("gcp.vertex.agent",),
    requires="gen_ai.system",
    keys=OTEL_KEYS,
    blobs=(
        Blob(
            key="gcp.vertex.agent.llm_response",
            paths=(
                (Field.CACHED_INPUT_TOKENS, ("usage_metadata", "cached_content_token_count")),
                (Field.REASONING_TOKENS, ("usage_metadata", "thoughts_token_count")),
                (Field.RESPONSE_MODEL, ("model_version",)),
                (Field.IS_STREAM, ("partial",)),
            ),
        ),
    ),
    kinds_by_name=_CALL_LLM,
    output_excludes_reasoning=True,
    echoes_model=True,
)
GOOGLE_ADK: Final = Dialect(
    # Version 2, and a call of version 1 that failed before it said anything.
    name="google-adk",
    layer=Layer.CLIENT,
    evidence="google-adk 2.13.0 on the wire",
    scenarios=("google-adk-latest",),
    scopes=("gcp.vertex.agent",),
    keys=OTEL_KEYS,
    kinds_by_name=_CALL_LLM,
    kind_of_usage=ReportKind.AGGREGATE,
    operation_in_name=True,
    echoes_model=True,
    stream_keys=STREAM_KEYS,
)
STRANDS: Final = Dialect(
    # It measures the time to the first token of streams alone, in integer milliseconds.
    name="strands",
    layer=Layer.CLIENT,
    evidence="strands-agents 1.62.0 on the wire",
    scenarios=("strands",),
    scopes=("strands.*",),
    keys={**OTEL_KEYS, Field.TTFT: (_STRANDS_TTFT,)},
    millisecond_keys=frozenset({_STRANDS_TTFT}),
    stream_keys=(_STRANDS_TTFT,),
    kind_of_usage=ReportKind.AGGREGATE,
)
