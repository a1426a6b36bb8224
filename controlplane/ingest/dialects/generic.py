"""What no dialect claims: official keys and the commonest others, semantics guarded.

Such a report is kept and counted, and shown as `unknown_dialect`.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect, Field
from controlplane.ingest.dialects.openinference import OPENINFERENCE_KEYS
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS
from controlplane.signals.vocabulary import Layer

GENERIC: Final = Dialect(
    name="generic",
    layer=Layer.CLIENT,
    keys={
        field: (*OTEL_KEYS.get(field, ()), *OPENINFERENCE_KEYS.get(field, ()))
        for field in Field
        if field in OTEL_KEYS or field in OPENINFERENCE_KEYS
    },
    input_excludes_cache=None,
)
