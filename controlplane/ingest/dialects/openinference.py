"""OpenInference (Arize): `llm.token_count.*`, `openinference.span.kind`; also Envoy AI Gateway.

Sources: openinference-instrumentation-{openai 0.1.66, anthropic 3.1.0, langchain 0.1.80,
smolagents 0.1.43, openai-agents 2.6.0} on the wire; envoyproxy/ai-gateway internal/tracing.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field, Keys
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS
from controlplane.signals.vocabulary import Layer

OPENINFERENCE_KEYS: Final[Keys] = {
    Field.PROVIDER: ("llm.provider", "llm.system"),
    Field.OPERATION: ("openinference.span.kind",),
    Field.REQUEST_MODEL: ("llm.request.model_name",),
    Field.RESPONSE_MODEL: ("llm.response.model_name", "llm.model_name", "embedding.model_name"),
    Field.RESPONSE_ID: (),
    Field.FINISH_REASON: ("llm.finish_reason",),
    Field.ERROR_TYPE: ("error.type", "exception.type"),
    Field.HTTP_STATUS: ("http.response.status_code", "http.status_code"),
    Field.INPUT_TOKENS: ("llm.token_count.prompt",),
    Field.CACHED_INPUT_TOKENS: ("llm.token_count.prompt_details.cache_read",),
    Field.CACHE_CREATION_INPUT_TOKENS: (
        "llm.token_count.prompt_details.cache_write",
        "llm.token_count.prompt_details.cache_creation",
    ),
    Field.OUTPUT_TOKENS: ("llm.token_count.completion",),
    Field.REASONING_TOKENS: ("llm.token_count.completion_details.reasoning",),
    Field.INPUT_AUDIO_TOKENS: ("llm.token_count.prompt_details.audio",),
    Field.OUTPUT_AUDIO_TOKENS: ("llm.token_count.completion_details.audio",),
    Field.REPORTED_COST: ("llm.cost.total",),
}
_LANGCHAIN: Final = ("generations", "0", "0", "message", "kwargs", "response_metadata")
_BLOBS: Final = (
    Blob(
        key="llm.invocation_parameters",
        paths=(
            (Field.REQUEST_MODEL, ("model",)),
            (Field.REQUEST_MODEL, ("model_name",)),
            (Field.IS_STREAM, ("stream",)),
        ),
        tail=("user",),
    ),
    Blob(key="embedding.invocation_parameters", paths=((Field.REQUEST_MODEL, ("model",)),)),
    Blob(key="metadata", tail=("*",)),
    # The response itself, where content is recorded: the one place with its id.
    Blob(
        key="output.value",
        paths=(
            (Field.RESPONSE_ID, ("id",)),
            (Field.RESPONSE_ID, (*_LANGCHAIN, "id")),
            (Field.RESPONSE_MODEL, ("model",)),
            (Field.RESPONSE_MODEL, (*_LANGCHAIN, "model_name")),
            (
                Field.CACHE_CREATION_1H_TOKENS,
                ("usage", "cache_creation", "ephemeral_1h_input_tokens"),
            ),
        ),
    ),
)
_FIRST_TOKEN: Final = ("First Token Stream Event",)

OPENINFERENCE: Final = Dialect(
    name="openinference",
    layer=Layer.CLIENT,
    scopes=("openinference.*",),
    markers=("llm.token_count.", "openinference."),
    keys=OPENINFERENCE_KEYS,
    blobs=_BLOBS,
    first_token_events=_FIRST_TOKEN,
)
ENVOY_AI_GATEWAY: Final = Dialect(
    # It writes either set, by AI_GATEWAY_TRACING_SEMCONV.
    name="envoy-ai-gateway",
    layer=Layer.PROXY,
    scopes=("envoyproxy/ai-gateway",),
    keys={
        field: (*OTEL_KEYS.get(field, ()), *OPENINFERENCE_KEYS.get(field, ()))
        for field in Field
        if field in OTEL_KEYS or field in OPENINFERENCE_KEYS
    },
    blobs=_BLOBS,
    first_token_events=_FIRST_TOKEN,
)
