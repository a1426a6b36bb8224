"""OpenLIT 1.45: official keys and its own cost; its Anthropic input leaves cached tokens out.

It counts tokens itself when a stream has none, and nothing on the span tells.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect, Field, Keys
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS
from controlplane.signals.vocabulary import Layer

_KEYS: Final[Keys] = {
    **OTEL_KEYS,
    Field.TTFT: (*OTEL_KEYS[Field.TTFT], "gen_ai.server.time_to_first_token"),
    Field.REPORTED_COST: ("gen_ai.usage.cost",),
}

OPENLIT_ANTHROPIC: Final = Dialect(
    name="openlit",
    layer=Layer.CLIENT,
    scopes=("openlit.instrumentation.anthropic", "openlit.instrumentation.bedrock"),
    keys=_KEYS,
    input_excludes_cache=True,
)
OPENLIT: Final = Dialect(name="openlit", layer=Layer.CLIENT, scopes=("openlit.*",), keys=_KEYS)
