"""What a hostile sender can reach, one function a door; each answers what an input came to.

The only errors are the documented ones; any other is a finding, as is a span without an account or
a column that is not of its schema.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
import pyarrow as pa

from collectors.otlp.inflate import inflate
from collectors.scrape.exposition import TooManySamplesError, read_exposition
from controlplane.agent.http_answer import UsageReader
from controlplane.agent.http_request import facts_of, read_call, to_request, wants_usage
from controlplane.api.routes.scores import ScoreOrder
from controlplane.attribution.attribute import attribute
from controlplane.attribution.rules import with_organisation
from controlplane.core.errors import (
    InvalidInputError,
    LimitExceededError,
    PayloadError,
    PolicyError,
)
from controlplane.ingest.call_events import decode_logs, events_of_spans
from controlplane.ingest.content import ContentPolicy, contents_of
from controlplane.ingest.limits import Limits
from controlplane.ingest.metrics import decode_metrics
from controlplane.ingest.normalize import normalize
from controlplane.ingest.otlp import decode_requests
from controlplane.ingest.ports import ContentType, Payload, Signal, SpoolEntry
from controlplane.ingest.redaction import Redactor
from controlplane.pipelines.authoring import read_text
from controlplane.pipelines.scores import Score, write_score
from controlplane.policy.compile import compile_policy
from controlplane.signals.samples import EventKind
from controlplane.signals.schema import ATTRIBUTED_SCHEMA, NORMALIZED_SCHEMA
from controlplane.signals.sender import KEYLESS_SENDER
from controlplane.signals.signal_ports import SignalBatch, SignalsWritten
from tests.fuzz.spans import request_of

NOW: Final = datetime(2026, 11, 20, 12, tzinfo=UTC)
LIMITS: Final = Limits(
    max_decompressed_bytes=4 * 1024 * 1024,
    max_spans_per_request=2_000,
    max_blob_bytes=16 * 1024,
)
RULES: Final = with_organisation({})
CONTENT: Final = ContentPolicy(redactor=Redactor(), max_chars=512, max_texts=16)
MAX_SAMPLES: Final = 1_000
_FORMS: Final = ("identity", "gzip", "zstd", "deflate")

Seen = frozenset[str]
Take = Callable[[bytes], Seen]


def framing(data: bytes) -> Seen:
    """Inflate what claims to be gzip, zstd or deflate, and ingest what is inside."""
    if not data:
        return frozenset()
    form, body = data[0], data[1:]
    try:
        plain = inflate(body, encoding=_FORMS[form % 4], limits=LIMITS)
    except (PayloadError, LimitExceededError) as error:
        reason = error.reason if isinstance(error, PayloadError) else error.limit
        return frozenset({f"inflate:{reason}"})
    if len(plain) > LIMITS.max_decompressed_bytes:
        raise AssertionError("more than the limit came out")
    return _ingest(plain, "json" if form & 4 else "protobuf")


def protobuf(data: bytes) -> Seen:
    """Ingest a trace request."""
    return _ingest(data, "protobuf")


def json(data: bytes) -> Seen:
    """Ingest a trace request in JSON."""
    return _ingest(data, "json")


def dialects(data: bytes) -> Seen:
    """Ingest well-formed spans whose scope, keys and values the data chooses among what is read."""
    return _ingest(request_of(data), "protobuf")


def _ingest(body: bytes, content_type: ContentType) -> Seen:
    payload = Payload(body, content_type)
    decoded = decode_requests([payload], senders=[KEYLESS_SENDER], received_at=[NOW], limits=LIMITS)
    if decoded.received != decoded.spans.num_rows + sum(decoded.rejected.values()):
        raise AssertionError("a span is neither stored nor rejected")
    table = normalize(decoded, limits=LIMITS)
    _refuse_other(table, NORMALIZED_SCHEMA)
    senders = {"": KEYLESS_SENDER}
    spans = attribute(table, RULES, senders=senders)
    _refuse_other(spans, ATTRIBUTED_SCHEMA)
    events_of_spans(decoded.spans, spans, senders=senders).validate(full=True)
    contents_of(decoded, spans, CONTENT, limits=LIMITS).validate(full=True)
    seen = {f"rejected:{reason}" for reason in decoded.rejected}
    for name in ("dialect", "report_kind", "usage_state", "usage_reason", "error_type", "status"):
        seen |= {f"{name}:{value}" for value in table.column(name).unique().to_pylist()}
    for name in ("operation", "finish_reason", "http_status", "ttft_us", "reported_cost_nusd"):
        seen.add(f"{name}:{table.column(name).null_count < table.num_rows}")
    return frozenset(seen)


def _refuse_other(table: pa.Table, schema: pa.Schema) -> None:
    if not table.schema.equals(schema):
        raise AssertionError("a column is not of the schema")
    table.validate(full=True)


def signals(data: bytes) -> Seen:
    """Decode metrics or logs, of either encoding."""
    if not data:
        return frozenset()
    signal: Signal = "logs" if data[0] & 1 else "metrics"
    payload = Payload(data[1:], "json" if data[0] & 4 else "protobuf", signal)
    entries = [SpoolEntry(payload, KEYLESS_SENDER, NOW)]
    got = decode_logs(entries) if signal == "logs" else decode_metrics(entries)
    if got.received.total() != got.rows.num_rows + got.rejected.total():
        raise AssertionError("an item is neither kept nor rejected")
    got.rows.validate(full=True)
    reasons = {f"{signal}:{reason}" for _, reason in got.rejected}
    return frozenset({*reasons, f"{signal}:{min(got.rows.num_rows, 8)}"})


class _Nowhere:
    """A store that checks what it is given and forgets it."""

    def write_signals(self, batch: SignalBatch, *, batch_id: str) -> SignalsWritten:
        """See `SignalWriter.write_signals`."""
        if not batch_id:
            raise AssertionError("a batch without a name")
        batch.events.validate(full=True)
        return SignalsWritten(
            samples=0,
            duplicate_samples=0,
            events=batch.events.num_rows,
            duplicate_events=0,
            replayed=False,
        )


def scores(data: bytes) -> Seen:
    """Read a score as the API does, and keep it."""
    try:
        order = msgspec.json.decode(data, type=ScoreOrder)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return frozenset({"unreadable"})
    score = Score(
        kind=EventKind(order.kind),
        name=order.name,
        score=order.score,
        label=order.label,
        trace_id=order.trace_id,
        span_id=order.span_id,
        response_id=order.response_id,
        id=order.id or "score_1",
        time=NOW,
    )
    try:
        write_score(score, _Nowhere(), tenant="default", author="someone")
    except InvalidInputError as error:
        return frozenset({f"refused:{error.field}"})
    return frozenset({"kept"})


def policy(data: bytes) -> Seen:
    """Read rules that someone wrote, and compile them."""
    try:
        rules = read_text(data.decode(errors="replace")).rules
        document = compile_policy(rules, (), rate_card={}, price_book_version="fuzz", issued_at=NOW)
    except PolicyError as error:
        return frozenset({f"refused:{error.problem[:24]}"})
    written = msgspec.json.encode(document)
    if msgspec.json.decode(written, type=type(document)) != document:
        raise AssertionError("what is signed is not what was compiled")
    return frozenset(f"rule:{type(rule).__name__}" for rule in document.rules)


def exposition(data: bytes) -> Seen:
    """Read the metrics page of an engine, in either text format."""
    if not data:
        return frozenset()
    try:
        read = read_exposition(
            data[1:].decode(errors="replace"),
            is_openmetrics=bool(data[0] & 1),
            resource={"service.name": "engine"},
            now_nanos=1,
            limit=MAX_SAMPLES,
        )
    except TooManySamplesError:
        return frozenset({"too many"})
    except ValueError:
        return frozenset({"unreadable"})
    entry = SpoolEntry(Payload(read.SerializeToString(), signal="metrics"), KEYLESS_SENDER, NOW)
    rows = decode_metrics([entry]).rows
    return frozenset(f"metric:{name}" for name in rows.column("metric").unique().to_pylist())


def proxied(data: bytes) -> Seen:
    """Read a request that a proxy was sent and the answer it got, as Envoy's agent does."""
    path, _, rest = data.partition(b"\n")
    body, _, answer = rest.partition(b"\n\n\n")
    call = read_call("POST", "api.openai.com", path.decode(errors="replace"), content=body)
    if call is None:
        return frozenset({"nobody bills it"})
    mapped = {"user_id": "user", "team": "metadata.team", "feature": "header.x-feature"}
    facts = facts_of(call, {"x-feature": "chat"}, mapped)
    to_request(call, facts, request_id="r")
    wants_usage(call)
    reader = UsageReader(is_events=call.is_stream)
    for start in range(0, len(answer), 97):
        reader.feed(answer[start : start + 97])
    reader.end()
    usage = reader.usage()
    if usage is not None and any(count < 0 for count in usage.values()):
        raise AssertionError("less than nothing was used")
    return frozenset({f"operation:{call.operation}", *(f"used:{name}" for name in usage or ())})


TARGETS: Final[Mapping[str, Take]] = {
    take.__name__: take
    for take in (
        *(framing, protobuf, json, dialects, signals, scores, policy, exposition, proxied),
    )
}
