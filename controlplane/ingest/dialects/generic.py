"""What no dialect claims: official keys and the commonest others, semantics guarded.

Such a report is kept and counted, and shown as `unknown_dialect`.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect
from controlplane.ingest.dialects.gateways import BOTH_KEYS
from controlplane.ingest.dialects.openinference import FIRST_TOKEN
from controlplane.ingest.dialects.otel_genai import STREAM_KEYS
from controlplane.signals.vocabulary import Layer

GENERIC: Final = Dialect(
    name="generic",
    layer=Layer.CLIENT,
    evidence="open-telemetry/semantic-conventions-genai; Arize-ai/openinference: spec",
    keys=BOTH_KEYS,
    stream_keys=STREAM_KEYS,
    first_token_events=FIRST_TOKEN,
)
