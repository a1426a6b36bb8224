"""Langfuse SDK 3 and 5: usage, cost and model in `langfuse.observation.*`, no provider.

`usage_details` is what the provider sent, or Langfuse's own shape, whose parts are exclusive.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field
from controlplane.signals.vocabulary import Layer

LANGFUSE: Final = Dialect(
    name="langfuse",
    layer=Layer.CLIENT,
    scopes=("langfuse-sdk", "langfuse-sdk*"),
    markers=("langfuse.observation.",),
    keys={
        Field.OPERATION: ("langfuse.observation.type",),
        Field.RESPONSE_MODEL: ("langfuse.observation.model.name", "langfuse.observation.model"),
    },
    blobs=(
        Blob(
            key="langfuse.observation.usage_details",
            paths=(
                (Field.INPUT_TOKENS, ("prompt_tokens",)),
                (Field.INPUT_TOKENS, ("input_tokens",)),
                (Field.OUTPUT_TOKENS, ("completion_tokens",)),
                (Field.OUTPUT_TOKENS, ("output_tokens",)),
                (Field.CACHED_INPUT_TOKENS, ("prompt_tokens_details", "cached_tokens")),
                (Field.CACHED_INPUT_TOKENS, ("input_tokens_details", "cached_tokens")),
                (Field.REASONING_TOKENS, ("completion_tokens_details", "reasoning_tokens")),
                (Field.REASONING_TOKENS, ("output_tokens_details", "reasoning_tokens")),
                (Field.INPUT_AUDIO_TOKENS, ("prompt_tokens_details", "audio_tokens")),
                (Field.OUTPUT_AUDIO_TOKENS, ("completion_tokens_details", "audio_tokens")),
            ),
            sums=(
                (Field.INPUT_TOKENS, "input"),
                (Field.OUTPUT_TOKENS, "output"),
                (Field.CACHED_INPUT_TOKENS, "input_cached"),
                (Field.CACHED_INPUT_TOKENS, "input_cache_read"),
                (Field.CACHE_CREATION_INPUT_TOKENS, "input_cache_creation"),
                (Field.REASONING_TOKENS, "output_reasoning"),
            ),
        ),
        Blob(key="langfuse.observation.cost_details", paths=((Field.REPORTED_COST, ("total",)),)),
    ),
)
