"""LangSmith's OpenTelemetry export 0.14: official totals, details in a JSON blob.

`gen_ai.operation.name` says chat on prompt templates too; `langsmith.span.kind` is right. A
failed run keeps status OK and has an exception event.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS
from controlplane.signals.vocabulary import Layer

LANGSMITH: Final = Dialect(
    name="langsmith",
    layer=Layer.CLIENT,
    evidence="langsmith 0.14.17 (LANGSMITH_OTEL_ENABLED) on the wire",
    scenarios=("langsmith-otel",),
    scopes=("langsmith",),
    markers=("langsmith.",),
    keys={
        **OTEL_KEYS,
        Field.PROVIDER: ("gen_ai.provider.name", "gen_ai.system", "langsmith.metadata.ls_provider"),
        Field.REQUEST_MODEL: ("gen_ai.request.model", "langsmith.metadata.ls_model_name"),
        Field.OPERATION: ("langsmith.span.kind", "gen_ai.operation.name"),
    },
    blobs=(
        Blob(
            key="langsmith.metadata.usage_metadata",
            paths=(
                (Field.INPUT_TOKENS, ("input_tokens",)),
                (Field.OUTPUT_TOKENS, ("output_tokens",)),
                (Field.CACHED_INPUT_TOKENS, ("input_token_details", "cache_read")),
                (Field.CACHE_CREATION_INPUT_TOKENS, ("input_token_details", "cache_creation")),
                (Field.INPUT_AUDIO_TOKENS, ("input_token_details", "audio")),
                (Field.REASONING_TOKENS, ("output_token_details", "reasoning")),
                (Field.OUTPUT_AUDIO_TOKENS, ("output_token_details", "audio")),
            ),
        ),
        Blob(
            key="gen_ai.completion",
            paths=(
                (Field.STREAM_MARK, ("generations", "0", "0", "type")),
                (
                    Field.RESPONSE_ID,
                    (*("generations", "0", "0", "message", "kwargs"), "response_metadata", "id"),
                ),
                (
                    Field.RESPONSE_MODEL,
                    (
                        *("generations", "0", "0", "message", "kwargs"),
                        "response_metadata",
                        "model_name",
                    ),
                ),
            ),
        ),
    ),
    exception_is_failure=True,
)
