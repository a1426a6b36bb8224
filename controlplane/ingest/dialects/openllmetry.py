"""OpenLLMetry (Traceloop) 0.40 to 0.62: official keys of several generations."""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect, Field
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS, STREAM_KEYS
from controlplane.signals.vocabulary import Layer

OPENLLMETRY: Final = Dialect(
    name="openllmetry",
    layer=Layer.CLIENT,
    evidence="opentelemetry-instrumentation-{openai,anthropic,langchain} 0.40.14 to 0.62.4; wire",
    scenarios=(
        "traceloop-openai",
        "traceloop-openai-0.40",
        "traceloop-anthropic",
        "traceloop-langchain",
        "traceloop-langchain+openai",
    ),
    scopes=("opentelemetry.instrumentation.*", "traceloop.*"),
    markers=("traceloop.",),
    keys={
        **OTEL_KEYS,
        Field.PROVIDER: (
            *OTEL_KEYS[Field.PROVIDER],
            "traceloop.association.properties.ls_provider",
        ),
        Field.OPERATION: ("gen_ai.operation.name", "llm.request.type", "traceloop.span.kind"),
        Field.FINISH_REASON: (
            "gen_ai.response.finish_reasons",
            "gen_ai.completion.0.finish_reason",
            "llm.response.finish_reason",
        ),
    },
    provider_in_scope=True,
    stream_keys=STREAM_KEYS,
    first_token_events=("gen_ai.content.completion.chunk", "llm.content.completion.chunk"),
)
