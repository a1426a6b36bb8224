"""Langfuse SDK 3 to 5: usage, cost and model in `langfuse.observation.*`, no provider.

`usage_details` is what the provider sent, or Langfuse's own shape, whose parts are exclusive.
Version 3.0 leaves the status of a failed span unset; its level tells.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field
from controlplane.ingest.dialects.wire_usage import usage_paths
from controlplane.signals.vocabulary import Layer

_LS: Final = "langfuse.observation.metadata.ls_"

LANGFUSE: Final = Dialect(
    name="langfuse",
    layer=Layer.CLIENT,
    evidence="langfuse 3.0.8, 3.15.0 and 5.0.4 on the wire",
    scenarios=("langfuse", "langfuse-v3", "langfuse-3.0", "langfuse-langchain"),
    scopes=("langfuse-sdk", "langfuse-sdk*"),
    markers=("langfuse.observation.",),
    keys={
        Field.PROVIDER: ("gen_ai.provider.name", "gen_ai.system", f"{_LS}provider"),
        Field.OPERATION: ("langfuse.observation.type",),
        Field.REQUEST_MODEL: (f"{_LS}model_name",),
        Field.RESPONSE_MODEL: ("langfuse.observation.model.name", "langfuse.observation.model"),
        Field.FINISH_REASON: ("langfuse.observation.metadata.finish_reason",),
        Field.LEVEL: ("langfuse.observation.level",),
        Field.ERROR_MESSAGE: ("langfuse.observation.status_message",),
    },
    blobs=(
        Blob(
            key="langfuse.observation.usage_details",
            paths=((Field.INPUT_TOKENS, ("input_tokens",)), *usage_paths()),
            sums=(
                (Field.INPUT_TOKENS, ("input", "cache_")),
                (Field.OUTPUT_TOKENS, ("output",)),
                (
                    Field.CACHED_INPUT_TOKENS,
                    ("input_cached", "input_cache_read", "cache_read"),
                ),
                (Field.CACHE_CREATION_INPUT_TOKENS, ("input_cache_creation", "cache_creation")),
                (Field.REASONING_TOKENS, ("output_reasoning",)),
                (Field.INPUT_AUDIO_TOKENS, ("input_audio",)),
                (Field.OUTPUT_AUDIO_TOKENS, ("output_audio",)),
            ),
        ),
        Blob(key="langfuse.observation.cost_details", paths=((Field.REPORTED_COST, ("total",)),)),
        Blob(
            key="langfuse.observation.model.parameters",
            paths=((Field.SERVICE_TIER, ("service_tier",)),),
        ),
    ),
    providers_by_name={"OpenAI-": "openai"},
    stream_keys=("langfuse.observation.completion_start_time",),
    json_quoted=True,
)
