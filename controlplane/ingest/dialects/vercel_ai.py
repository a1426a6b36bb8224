"""Vercel AI SDK 5 and 7: `ai.*` of the legacy integration, official keys of the new one.

Wrappers repeat the sum of their steps (7) or the last step (5) under the same keys; their
operation tells them from the leaf. The new integration's embeddings wrapper has no usage.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS, STREAM_KEYS
from controlplane.ingest.dialects.wire_usage import usage_paths, usage_totals
from controlplane.signals.vocabulary import Layer

VERCEL_LEGACY: Final = Dialect(
    name="vercel-ai",
    layer=Layer.CLIENT,
    evidence="ai 5.0.277 and 7.0.173 (LegacyOpenTelemetry) on the wire",
    scenarios=("vercel-ai-legacy", "vercel-ai5"),
    scopes=("ai",),
    markers=("ai.operationId", "ai.usage."),
    keys={
        **OTEL_KEYS,
        Field.PROVIDER: ("gen_ai.system", "ai.model.provider"),
        Field.OPERATION: ("ai.operationId",),
        Field.REQUEST_MODEL: ("gen_ai.request.model", "ai.model.id"),
        Field.RESPONSE_MODEL: ("gen_ai.response.model", "ai.response.model"),
        Field.RESPONSE_ID: ("gen_ai.response.id", "ai.response.id"),
        Field.FINISH_REASON: ("gen_ai.response.finish_reasons", "ai.response.finishReason"),
        Field.TTFT: ("ai.response.msToFirstChunk", "ai.stream.msToFirstChunk"),
        Field.INPUT_TOKENS: (
            "gen_ai.usage.input_tokens",
            "ai.usage.inputTokens",
            "ai.usage.promptTokens",
            "ai.usage.tokens",
        ),
        Field.CACHED_INPUT_TOKENS: (
            "ai.usage.inputTokenDetails.cacheReadTokens",
            "ai.usage.cachedInputTokens",
        ),
        Field.CACHE_CREATION_INPUT_TOKENS: ("ai.usage.inputTokenDetails.cacheWriteTokens",),
        Field.OUTPUT_TOKENS: (
            "gen_ai.usage.output_tokens",
            "ai.usage.outputTokens",
            "ai.usage.completionTokens",
        ),
        Field.REASONING_TOKENS: (
            "ai.usage.outputTokenDetails.reasoningTokens",
            "ai.usage.reasoningTokens",
        ),
    },
    blobs=(
        # What the provider said, which version 5 passes on as it is: Anthropic's input without
        # cached tokens, Gemini's output without thoughts.
        Blob(
            key="ai.response.providerMetadata",
            overrides=True,
            paths=(
                *usage_paths("anthropic", "usage"),
                *usage_paths("google", "usageMetadata"),
                (Field.SERVICE_TIER, ("openai", "serviceTier")),
            ),
            totals=(*usage_totals("anthropic", "usage"), *usage_totals("google", "usageMetadata")),
        ),
    ),
    millisecond_keys=frozenset({"ai.response.msToFirstChunk", "ai.stream.msToFirstChunk"}),
    stream_keys=("ai.response.msToFirstChunk", "ai.stream.msToFirstChunk"),
    first_token_events=("ai.stream.firstChunk",),
)
VERCEL: Final = Dialect(
    name="vercel-ai",
    layer=Layer.CLIENT,
    evidence="ai 7.0.173 with @ai-sdk/otel 1.0.173 on the wire",
    scenarios=("vercel-ai-otel", "vercel-ai-otel-json"),
    scopes=("gen_ai",),
    keys=OTEL_KEYS,
    stream_keys=STREAM_KEYS,
    call_needs=(
        "gen_ai.usage.input_tokens",
        "gen_ai.response.id",
        "gen_ai.response.finish_reasons",
    ),
)
