"""Official OpenTelemetry GenAI conventions, v1.26 to today, and what keeps to them closely.

Sources: semantic-conventions v1.26 to v1.44 and semantic-conventions-genai; the instrumentations
openai-v2 2.4b0, genai-openai, genai-anthropic and google-genai 1.3b0, read on the wire.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect, Field, Keys
from controlplane.signals import semconv as sc
from controlplane.signals.vocabulary import Layer

OTEL_KEYS: Final[Keys] = {
    Field.PROVIDER: (sc.PROVIDER_NAME, sc.SYSTEM),
    Field.OPERATION: (sc.OPERATION_NAME,),
    Field.REQUEST_MODEL: (sc.REQUEST_MODEL,),
    Field.RESPONSE_MODEL: (sc.RESPONSE_MODEL,),
    Field.RESPONSE_ID: (sc.RESPONSE_ID,),
    Field.SERVICE_TIER: (
        "openai.response.service_tier",
        "gen_ai.openai.response.service_tier",
        "anthropic.response.service_tier",
        "gen_ai.response.service_tier",
        "openai.request.service_tier",
        "gen_ai.openai.request.service_tier",
        "gen_ai.request.service_tier",
    ),
    Field.FINISH_REASON: (sc.FINISH_REASONS,),
    Field.ERROR_TYPE: (sc.ERROR_TYPE, "exception.type"),
    Field.HTTP_STATUS: (sc.HTTP_STATUS, "http.status_code"),
    Field.IS_STREAM: (sc.REQUEST_STREAM, "gen_ai.is_streaming", "llm.is_streaming"),
    Field.TTFT: (sc.TIME_TO_FIRST_CHUNK, "gen_ai.client.operation.time_to_first_chunk"),
    Field.INPUT_TOKENS: (sc.INPUT_TOKENS, sc.PROMPT_TOKENS),
    Field.CACHED_INPUT_TOKENS: (
        sc.CACHE_READ_TOKENS,
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cached_tokens",
        "gen_ai.usage.details.cache_read_tokens",
    ),
    Field.CACHE_CREATION_INPUT_TOKENS: (
        sc.CACHE_WRITE_TOKENS,
        sc.CACHE_CREATION_TOKENS,
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
    ),
    Field.CACHE_CREATION_1H_TOKENS: ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens",),
    Field.OUTPUT_TOKENS: (sc.OUTPUT_TOKENS, sc.COMPLETION_TOKENS),
    Field.REASONING_TOKENS: (
        sc.REASONING_TOKENS,
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
    ),
    Field.INPUT_AUDIO_TOKENS: ("gen_ai.usage.audio.input_tokens",),
    Field.INPUT_IMAGE_TOKENS: ("gen_ai.usage.image.input_tokens",),
    Field.INPUT_VIDEO_TOKENS: ("gen_ai.usage.video.input_tokens",),
    Field.OUTPUT_AUDIO_TOKENS: ("gen_ai.usage.audio.output_tokens",),
    Field.OUTPUT_IMAGE_TOKENS: ("gen_ai.usage.image.output_tokens",),
}

OTEL_GENAI: Final = Dialect(
    name="otel-genai",
    layer=Layer.CLIENT,
    scopes=(
        "opentelemetry.instrumentation.openai_v2",
        "opentelemetry.instrumentation.genai.*",
        "opentelemetry.instrumentation.google_genai",
        "opentelemetry.util.genai.*",
        "@opentelemetry/instrumentation-openai",
    ),
    keys=OTEL_KEYS,
)

ANTHROPIC_SDK: Final = Dialect(
    # The SDK emits spans by itself as soon as a TracerProvider is set (anthropic 2.11).
    name="anthropic-sdk",
    layer=Layer.CLIENT,
    scopes=("com.anthropic.sdk.python",),
    keys={
        **OTEL_KEYS,
        Field.FINISH_REASON: (sc.FINISH_REASONS, "anthropic.message.stop_reason"),
    },
)
