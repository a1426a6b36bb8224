"""Logfire's instrumentors, 3 and 5, and Pydantic AI, which reports its own cost beside usage.

A streamed call of an instrumentor is two spans: the request, which knows nothing of the answer,
and a `log` span of no length that has the usage; counting joins them (`ingest.halves`). Version 3
keeps request and response as JSON, writes the response's model over the request's, and has no
operation.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS, STREAM_KEYS
from controlplane.ingest.dialects.wire_usage import usage_paths, usage_totals
from controlplane.signals.vocabulary import Layer, ReportKind

_KEYS: Final = {**OTEL_KEYS, Field.REPORTED_COST: ("operation.cost",)}
STREAM_NAME: Final = "streaming response from"

LOGFIRE: Final = Dialect(
    name="logfire",
    layer=Layer.CLIENT,
    evidence="logfire 3.16.0 and 5.2.0 on the wire",
    scenarios=("logfire-openai", "logfire-anthropic", "logfire-3"),
    scopes=("logfire.*",),
    keys=_KEYS,
    blobs=(
        Blob(
            key="request_data",
            overrides=True,
            paths=((Field.REQUEST_MODEL, ("model",)), (Field.IS_STREAM, ("stream",))),
        ),
        Blob(key="gen_ai.usage.raw", paths=usage_paths()),
        Blob(key="response_data", paths=usage_paths("usage"), totals=usage_totals("usage")),
    ),
    provider_in_scope=True,
    operations_by_name={
        "Chat Completion with": "chat",
        "Chat completion with": "chat",  # of the agents SDK
        "Message with": "chat",
        "Responses API with": "chat",
        STREAM_NAME: "chat",
        "Completion with": "text_completion",
        "Embedding Creation with": "embeddings",
        "Image Generation with": "image_generation",
    },
    stream_names=(STREAM_NAME,),
)
PYDANTIC_AI: Final = Dialect(
    # Before 1.0 the agent's span has the run's sum under the same keys, and no operation.
    name="pydantic-ai",
    layer=Layer.CLIENT,
    evidence="pydantic-ai-slim 0.4.11 and 2.68.0 on the wire",
    scenarios=("pydantic-ai", "pydantic-ai-old"),
    scopes=("pydantic-ai*", "pydantic_ai*"),
    keys=_KEYS,
    kinds_by_name={"agent run": ReportKind.AGGREGATE},
    kind_of_usage=ReportKind.AGGREGATE,
    stream_keys=STREAM_KEYS,
)
