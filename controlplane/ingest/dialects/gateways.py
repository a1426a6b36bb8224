"""Gateways that write official or OpenInference keys: Envoy AI Gateway and Kong."""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect, Field
from controlplane.ingest.dialects.openinference import (
    FIRST_TOKEN,
    OPENINFERENCE_BLOBS,
    OPENINFERENCE_KEYS,
)
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS, STREAM_KEYS
from controlplane.signals.vocabulary import Layer

BOTH_KEYS: Final = {
    field: (*OTEL_KEYS.get(field, ()), *OPENINFERENCE_KEYS.get(field, ()))
    for field in Field
    if field in OTEL_KEYS or field in OPENINFERENCE_KEYS
}

ENVOY_AI_GATEWAY: Final = Dialect(
    # It writes either set, by AI_GATEWAY_TRACING_SEMCONV.
    name="envoy-ai-gateway",
    layer=Layer.PROXY,
    evidence="envoyproxy/ai-gateway: internal/tracing/openinference, internal/tracing/otelgenai",
    scenarios=("synth/envoy-ai-gateway",),
    scopes=("envoyproxy/ai-gateway*", "envoy-ai-gateway*"),
    keys=BOTH_KEYS,
    blobs=OPENINFERENCE_BLOBS,
    operations_by_name={
        "ChatCompletion": "chat",
        "Messages": "chat",
        "Responses": "chat",
        "CreateEmbeddings": "embeddings",
        "Completion": "text_completion",
        "ImageGeneration": "image_generation",
        "Rerank": "rerank",
    },
    operation_in_name=True,
    stream_keys=STREAM_KEYS,
    first_token_events=FIRST_TOKEN,
)
KONG: Final = Dialect(
    name="kong",
    layer=Layer.PROXY,
    evidence="developer.konghq.com/ai-gateway/llm-open-telemetry (3.13)",
    scopes=("kong-internal", "kong*"),
    keys={
        **OTEL_KEYS,
        Field.GATEWAY_CALL_ID: ("kong.request.id",),
        Field.REPORTED_COST: ("gen_ai.usage.cost", "kong.gen_ai.llm.cost", "ai.usage.cost"),
    },
    operation_in_name=True,
    stream_keys=STREAM_KEYS,
)
