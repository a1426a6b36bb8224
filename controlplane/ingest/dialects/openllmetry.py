"""OpenLLMetry (Traceloop) 0.40 to 0.62: official keys with older and own spellings beside them.

Framework wrappers name the framework as provider and carry no tokens.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect, Field
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS
from controlplane.signals.vocabulary import Layer

OPENLLMETRY: Final = Dialect(
    name="openllmetry",
    layer=Layer.CLIENT,
    scopes=("opentelemetry.instrumentation.*", "traceloop.*"),
    markers=("traceloop.",),
    keys={
        **OTEL_KEYS,
        Field.OPERATION: ("gen_ai.operation.name", "llm.request.type", "traceloop.span.kind"),
        Field.FINISH_REASON: (
            "gen_ai.response.finish_reasons",
            "gen_ai.completion.0.finish_reason",
        ),
    },
    first_token_events=("gen_ai.content.completion.chunk",),
)
