"""Logfire 5.2 instrumentors, and Pydantic AI 2.68, which reports its own cost beside usage.

A streamed call of an instrumentor is two spans: the request, which knows nothing of the answer,
and a `log` span of no length that has the usage. Only the second is a report.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS
from controlplane.signals.vocabulary import Layer

_KEYS: Final = {**OTEL_KEYS, Field.REPORTED_COST: ("operation.cost",)}

LOGFIRE: Final = Dialect(
    name="logfire",
    layer=Layer.CLIENT,
    scopes=("logfire.*",),
    keys=_KEYS,
    blobs=(
        Blob(
            key="gen_ai.usage.raw",
            paths=(
                (Field.CACHED_INPUT_TOKENS, ("prompt_tokens_details", "cached_tokens")),
                (Field.CACHED_INPUT_TOKENS, ("input_tokens_details", "cached_tokens")),
                (Field.CACHED_INPUT_TOKENS, ("cache_read_input_tokens",)),
                (Field.CACHE_CREATION_INPUT_TOKENS, ("cache_creation_input_tokens",)),
                (
                    Field.CACHE_CREATION_1H_TOKENS,
                    ("cache_creation", "ephemeral_1h_input_tokens"),
                ),
                (Field.REASONING_TOKENS, ("completion_tokens_details", "reasoning_tokens")),
                (Field.REASONING_TOKENS, ("output_tokens_details", "reasoning_tokens")),
                (Field.INPUT_AUDIO_TOKENS, ("prompt_tokens_details", "audio_tokens")),
                (Field.OUTPUT_AUDIO_TOKENS, ("completion_tokens_details", "audio_tokens")),
            ),
        ),
    ),
    call_needs=(
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.raw",
        "gen_ai.output.messages",
        "gen_ai.response.id",
        "response_data",
    ),
)
PYDANTIC_AI: Final = Dialect(
    name="pydantic-ai", layer=Layer.CLIENT, scopes=("pydantic-ai*", "pydantic_ai*"), keys=_KEYS
)
