"""Official OpenTelemetry GenAI conventions, v1.26 to today, and what keeps to them closely.

That are Microsoft's libraries, too: Semantic Kernel, Agent Framework, AutoGen, Azure AI Inference.

Sources: semantic-conventions v1.26 to v1.44 and semantic-conventions-genai; the instrumentations
openai-v2 2.4b0, genai-openai, genai-anthropic and google-genai 1.3b0, and
semantic-kernel 1.45.0, agent-framework 1.23, azure-ai-inference 1.0.0b9, read on the wire.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect, Field, Keys
from controlplane.signals import semconv as sc
from controlplane.signals.vocabulary import Layer, ReportKind

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
    Field.CACHE_HIT: ("gen_ai.response.cache_hit",),
    Field.FINISH_REASON: (sc.FINISH_REASONS, "gen_ai.response.finish_reason"),
    Field.ERROR_TYPE: (sc.ERROR_TYPE, "exception.type"),
    Field.ERROR_MESSAGE: ("error.message", "exception.message"),
    Field.HTTP_STATUS: (sc.HTTP_STATUS, "http.status_code"),
    Field.IS_STREAM: (
        sc.REQUEST_STREAM,
        "gen_ai.is_streaming",
        "llm.is_streaming",
        "gen_ai.request.is_stream",
    ),
    Field.TTFT: (sc.TIME_TO_FIRST_CHUNK, "gen_ai.client.operation.time_to_first_chunk"),
    Field.INTER_TOKEN: (
        "gen_ai.server.time_per_output_token",
        "gen_ai.response.time_per_output_chunk",
        "gen_ai.client.operation.time_per_output_chunk",
    ),
    Field.INPUT_TOKENS: (sc.INPUT_TOKENS, sc.PROMPT_TOKENS),
    Field.CACHED_INPUT_TOKENS: (
        sc.CACHE_READ_TOKENS,
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cached_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "gen_ai.usage.details.cache_read_input_tokens",
        "gen_ai.usage.details.cached_tokens",
        "gen_ai.usage.details.cached_content_tokens",
        "gen_ai.usage.input_tokens.cached",
        "gen_ai.usage.input_token_details.cached",
    ),
    Field.CACHE_CREATION_INPUT_TOKENS: (
        sc.CACHE_WRITE_TOKENS,
        sc.CACHE_CREATION_TOKENS,
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "gen_ai.usage.details.cache_creation_input_tokens",
    ),
    Field.CACHE_CREATION_1H_TOKENS: ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens",),
    Field.OUTPUT_TOKENS: (sc.OUTPUT_TOKENS, sc.COMPLETION_TOKENS),
    Field.REASONING_TOKENS: (
        sc.REASONING_TOKENS,
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "gen_ai.usage.details.thoughts_tokens",
    ),
    Field.INPUT_AUDIO_TOKENS: (
        "gen_ai.usage.audio.input_tokens",
        "gen_ai.usage.details.input_audio_tokens",
        "gen_ai.usage.input_audio_tokens",
    ),
    Field.INPUT_IMAGE_TOKENS: ("gen_ai.usage.image.input_tokens",),
    Field.INPUT_VIDEO_TOKENS: ("gen_ai.usage.video.input_tokens",),
    Field.CACHE_READ_AUDIO_TOKENS: (
        "gen_ai.usage.audio.cache_read.input_tokens",
        "gen_ai.usage.details.cache_audio_read_tokens",
    ),
    Field.OUTPUT_AUDIO_TOKENS: (
        "gen_ai.usage.audio.output_tokens",
        "gen_ai.usage.details.output_audio_tokens",
        "gen_ai.usage.output_audio_tokens",
    ),
    Field.OUTPUT_IMAGE_TOKENS: ("gen_ai.usage.image.output_tokens",),
    Field.WEB_SEARCHES: (
        "gen_ai.usage.web_search_requests",
        "gen_ai.usage.details.web_search_requests",
        "anthropic.usage.server_tool_use.web_search_requests",
    ),
    Field.AUDIO_SECONDS: ("gen_ai.usage.audio_seconds", "gen_ai.usage.audio.seconds"),
    Field.IMAGES: ("gen_ai.usage.images",),
    Field.PAGES: ("gen_ai.usage.pages",),
    Field.CHARACTERS: ("gen_ai.usage.characters",),
}
"""The official keys in each generation of names, and those that more than one producer adds."""

STREAM_KEYS: Final = OTEL_KEYS[Field.TTFT]
"""Keys that the convention has for streams alone."""

OTEL_GENAI: Final = Dialect(
    name="otel-genai",
    layer=Layer.CLIENT,
    evidence="open-telemetry/semantic-conventions v1.26-v1.44, semantic-conventions-genai; wire",
    scenarios=(
        "otel-openai-v2",
        "otel-openai-v2-latest",
        "otel-genai-openai",
        "otel-genai-anthropic",
        "otel-google-genai",
        "otel-js-openai",
    ),
    scopes=(
        "opentelemetry.instrumentation.openai_v2",
        "opentelemetry.instrumentation.genai.*",
        "opentelemetry.instrumentation.google_genai",
        "opentelemetry.util.genai.*",
        "@opentelemetry/instrumentation-openai",
        "agent_framework*",
        "autogen-core",
        "azure.core.tracing.ext.opentelemetry_span",
        "semantic_kernel.*",
    ),
    keys=OTEL_KEYS,
    provider_in_scope=True,
    operation_in_name=True,
    stream_keys=STREAM_KEYS,
)

ANTHROPIC_SDK: Final = Dialect(
    # The SDK emits spans by itself as soon as a TracerProvider is set (anthropic 2.11).
    name="anthropic-sdk",
    layer=Layer.CLIENT,
    evidence="anthropic 2.11.0 on the wire",
    scenarios=("anthropic-sdk-native",),
    scopes=("com.anthropic.sdk.*",),
    provider="anthropic",
    stream_keys=STREAM_KEYS,
    kinds_by_name={"anthropic.messages.create": ReportKind.CALL},
    operations_by_name={"anthropic.messages.create": "chat"},
    keys={
        **OTEL_KEYS,
        Field.FINISH_REASON: (sc.FINISH_REASONS, "anthropic.message.stop_reason"),
    },
)

MISTRAL_SDK: Final = Dialect(
    # The SDK emits spans by itself as soon as a TracerProvider is set (mistralai 1.9 to 1.12). A
    # stream's span has no usage, which is unknown and never nothing.
    name="mistral-sdk",
    layer=Layer.CLIENT,
    evidence="mistralai 1.12.4 on the wire",
    scopes=("mistralai_sdk_tracer",),
    provider="mistral_ai",
    stream_keys=STREAM_KEYS,
    keys={**OTEL_KEYS, Field.OPERATION: (sc.OPERATION_NAME, "http.url")},
    stream_names=("stream_",),
)
