"""What a hostile sender can reach: framing, decoding, JSON and every dialect, in one function."""

from datetime import UTC, datetime
from typing import Final

from collectors.otlp.inflate import inflate
from controlplane.core.errors import LimitExceededError, PayloadError
from controlplane.ingest.limits import Limits
from controlplane.ingest.normalize import normalize
from controlplane.ingest.otlp import decode_requests
from controlplane.ingest.ports import Payload
from controlplane.signals.schema import NORMALIZED_SCHEMA
from controlplane.signals.sender import KEYLESS_SENDER

NOW: Final = datetime(2026, 11, 20, 12, tzinfo=UTC)
LIMITS: Final = Limits(
    max_decompressed_bytes=4 * 1024 * 1024,
    max_spans_per_request=2_000,
    max_blob_bytes=16 * 1024,
)
_FORMS: Final = ("identity", "gzip", "zstd", "deflate")

Seen = frozenset[str]


def take(data: bytes) -> Seen:
    """Feed a body whose first byte chooses its form; answer what it came to.

    The only errors are the documented ones; what is received is stored or rejected, to the span;
    and every column is of the schema, usage within its bounds.
    """
    if not data:
        return frozenset()
    form, body = data[0], data[1:]
    try:
        plain = inflate(body, encoding=_FORMS[form % 4], limits=LIMITS)
    except (PayloadError, LimitExceededError) as error:
        return frozenset({f"inflate:{type(error).__name__}"})
    payload = Payload(plain, "json" if form & 4 else "protobuf")
    decoded = decode_requests([payload], senders=[KEYLESS_SENDER], received_at=[NOW], limits=LIMITS)
    if decoded.received != decoded.spans.num_rows + sum(decoded.rejected.values()):
        raise AssertionError("a span is neither stored nor rejected")
    table = normalize(decoded, limits=LIMITS)
    if not table.schema.equals(NORMALIZED_SCHEMA):
        raise AssertionError("a column is not of the schema")
    table.validate(full=True)
    seen = {f"rejected:{reason}" for reason in decoded.rejected}
    for name in ("dialect", "report_kind", "usage_state", "usage_reason", "error_type", "status"):
        seen |= {f"{name}:{value}" for value in table.column(name).unique().to_pylist()}
    for name in ("operation", "finish_reason", "http_status", "ttft_us", "reported_cost_nusd"):
        seen.add(f"{name}:{table.column(name).null_count < table.num_rows}")
    return frozenset(seen)
