"""Evaluations, feedback and guardrail results → rows of EVENT_SCHEMA.

They come as log records, as events on spans, and as LiteLLM's guardrail spans.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import xxhash
from google.protobuf.message import DecodeError

from controlplane.core.errors import PayloadError
from controlplane.core.instants import from_nanos
from controlplane.ingest import otlp_pb2 as pb
from controlplane.ingest import otlp_signals_pb2 as sig
from controlplane.ingest.columns import contiguous, kernels
from controlplane.ingest.emitters import Emitter, emitter_of
from controlplane.ingest.event_kinds import (
    GUARDRAIL_SPAN,
    RESPONSE_ID,
    SHAPES,
    EventShape,
    action_of,
    shape_of,
)
from controlplane.ingest.loose import texts_of, utf8
from controlplane.ingest.ports import Payload, SpoolEntry
from controlplane.ingest.signals_json import logs_of_json
from controlplane.signals.samples import EVENT_SCHEMA, EventKind
from controlplane.signals.sender import KEYLESS_SENDER, Sender

NOT_ABOUT_A_CALL: Final = "not_about_a_call"
MAX_TEXT_CHARS: Final = 256
_EVENT_NAME: Final = "event.name"
_PREFIXES: Final = tuple(shape.prefix for shape in SHAPES)
_TRACE_BYTES, _SPAN_BYTES = 16, 8


class Events(msgspec.Struct, frozen=True):
    """A batch's events as rows, and the log records that are none, by emitter and reason."""

    rows: pa.Table
    received: Counter[Emitter]
    rejected: Counter[tuple[Emitter, str]]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where an event was said, and of whose call."""

    sender: Sender
    tenant: str
    service_name: str
    source: str
    time: datetime
    trace_hi: int = 0
    trace_lo: int = 0
    span_id: int = 0
    parent_span_id: int = 0
    author: str | None = None


def parse_logs(payload: Payload) -> "sig.LogsData":
    """Read a logs request of either encoding.

    Raises:
        PayloadError: not such a request.
    """
    if payload.content_type == "json":
        return logs_of_json(payload.body)
    try:
        return sig.LogsData.FromString(payload.body)
    except DecodeError as error:
        raise PayloadError(
            "malformed_payload",
            "it is cut short or not an ExportLogsServiceRequest",
            "Send a whole Export…ServiceRequest, or application/json if it is JSON",
        ) from error


def flaws_of_logs(data: "sig.LogsData") -> tuple[int, Counter[str]]:
    """Count the records, and those that are not kept by reason: the check before the ack."""
    flaws: Counter[str] = Counter()
    count = 0
    for resource in data.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                count += 1
                if flaw := _flaw(record, shape_of(_name_of(record))):
                    flaws[flaw] += 1
    return count, flaws


def decode_logs(entries: Sequence[SpoolEntry]) -> Events:
    """Decode the log requests of a batch; records that say nothing about a call are not kept."""
    rows: list[dict[str, Any]] = []
    received: Counter[Emitter] = Counter()
    rejected: Counter[tuple[Emitter, str]] = Counter()
    for entry in entries:
        try:
            data = parse_logs(entry.payload)
        except PayloadError as error:
            emitter = emitter_of(entry.sender, {})
            received[emitter] += 1
            rejected[emitter, error.reason] += 1
            continue
        for resource in data.resource_logs:
            said = texts_of(resource.resource.attributes)
            for record in (r for scope in resource.scope_logs for r in scope.log_records):
                shape = shape_of(_name_of(record))
                is_mapped = entry.sender.maps_tenants
                texts = texts_of(record.attributes) if shape or is_mapped else {}
                emitter = emitter_of(entry.sender, texts, said)
                received[emitter] += 1
                flaw = _flaw(record, shape)
                if shape is None or flaw:
                    rejected[emitter, flaw] += 1
                    continue
                rows.append(event_row(shape, texts, _place_of(record, entry.sender, emitter)))
    return Events(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA), received, rejected)


def events_of_spans(
    decoded: pa.Table, attributed: pa.Table, *, senders: Mapping[str, Sender]
) -> pa.Table:
    """Read the events on spans, and guardrail spans, of decoded spans (`otlp.Decoded.spans`).

    An event has the tenant of its span: of the same row of `attributed`.
    """
    rows = [
        event_row(shape, texts, place)
        for shape, texts, place in (
            *_span_events(decoded, attributed, senders),
            *_guardrail_spans(decoded, attributed, senders),
        )
    ]
    return pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)


def event_row(shape: EventShape, texts: Mapping[str, str], place: Place) -> dict[str, Any]:
    """Build the row of an event; equal content has an equal `event_hash`."""
    action = None
    if shape.kind is EventKind.GUARDRAIL:
        action = action_of(_first(texts, shape.action_keys)).value
    row: dict[str, Any] = {
        "domain": place.sender.domain,
        "tenant": place.tenant,
        "key_id": place.sender.key_id,
        "kind": shape.kind.value,
        "name": _first(texts, shape.name_keys) or "",
        "source": place.source,
        "trace_hi": place.trace_hi,
        "trace_lo": place.trace_lo,
        "span_id": place.span_id,
        "parent_span_id": place.parent_span_id,
        "response_id": _first(texts, (RESPONSE_ID,)),
        "time": place.time,
        "score": _number(_first(texts, shape.score_keys)),
        "label": _first(texts, shape.label_keys),
        "action": action,
        "author": place.author,
        "service_name": place.service_name,
    }
    said = [place.time.isoformat() if name == "time" else value for name, value in row.items()]
    row["event_hash"] = xxhash.xxh3_64_intdigest(msgspec.msgpack.encode(said))
    return row


def _span_events(
    decoded: pa.Table, attributed: pa.Table, senders: Mapping[str, Sender]
) -> Iterable[tuple[EventShape, dict[str, str], Place]]:
    lists = contiguous(decoded.column("events"))
    flat = lists.flatten()
    if not len(flat):
        return
    names = flat.field("name")
    wanted = np.zeros(len(flat), dtype=np.bool_)
    for prefix in _PREFIXES:
        wanted |= np.asarray(kernels.starts_with(names, prefix).to_numpy(zero_copy_only=False))
    if not wanted.any():
        return
    lengths = np.asarray(lists.value_lengths().fill_null(0).to_numpy(), dtype=np.int64)
    rows = np.repeat(np.arange(len(lists), dtype=np.int64), lengths)
    for at in np.flatnonzero(wanted).tolist():
        shape = shape_of(names[at].as_py())
        if shape is not None:
            event = flat[at].as_py()
            moment = from_nanos(event["time_unix_nano"])
            span = _row(decoded, attributed, int(rows[at]))
            yield (
                shape,
                _texts_of_bytes(event["attributes"]),
                _place_at(span, senders, source="span_event", time=moment),
            )


def _guardrail_spans(
    decoded: pa.Table, attributed: pa.Table, senders: Mapping[str, Sender]
) -> Iterable[tuple[EventShape, dict[str, str], Place]]:
    named = contiguous(kernels.equal(decoded.column("name"), GUARDRAIL_SPAN))
    shape = shape_of(GUARDRAIL_SPAN)
    if shape is None:
        return
    for row in np.flatnonzero(np.asarray(named.to_numpy(zero_copy_only=False))).tolist():
        texts = _texts_of_pairs(decoded.column("attributes")[row].as_py() or [])
        if _first(texts, shape.name_keys) is None:
            continue  # another program's span of that name
        span = _row(decoded, attributed, row)
        yield shape, texts, _place_at(span, senders, source="span", time=span["start_time"])


_IDENTITY: Final = ("key_id", "trace_hi", "trace_lo", "span_id", "parent_span_id", "start_time")


def _row(decoded: pa.Table, attributed: pa.Table, row: int) -> dict[str, Any]:
    return {
        **{name: decoded.column(name)[row].as_py() for name in _IDENTITY},
        **{name: attributed.column(name)[row].as_py() for name in ("tenant", "service_name")},
    }


def _place_at(
    span: Mapping[str, Any], senders: Mapping[str, Sender], *, source: str, time: datetime
) -> Place:
    own = source == "span"
    return Place(
        sender=senders.get(span["key_id"], KEYLESS_SENDER),
        tenant=span["tenant"],
        service_name=span["service_name"],
        source=source,
        time=time,
        trace_hi=span["trace_hi"],
        trace_lo=span["trace_lo"],
        span_id=span["span_id"],
        # Only a span of its own hangs under the call; an event is on the call's span.
        parent_span_id=span["parent_span_id"] if own else 0,
    )


def _place_of(record: "sig.LogRecord", sender: Sender, emitter: Emitter) -> Place:
    trace, span = record.trace_id, record.span_id
    is_trace, is_span = len(trace) == _TRACE_BYTES, len(span) == _SPAN_BYTES
    return Place(
        sender=sender,
        tenant=emitter.tenant,
        service_name=emitter.service_name,
        source="log",
        time=from_nanos(record.time_unix_nano or record.observed_time_unix_nano),
        trace_hi=int.from_bytes(trace[:8], "big") if is_trace else 0,
        trace_lo=int.from_bytes(trace[8:], "big") if is_trace else 0,
        span_id=int.from_bytes(span, "big") if is_span else 0,
    )


def _flaw(record: "sig.LogRecord", shape: EventShape | None) -> str:
    if shape is None:
        return NOT_ABOUT_A_CALL
    has_time = record.time_unix_nano or record.observed_time_unix_nano
    return "" if has_time else "missing_time"


def _name_of(record: "sig.LogRecord") -> str:
    if record.event_name:
        return utf8(record.event_name)
    for pair in record.attributes:  # before event_name was a field
        if pair.key == _EVENT_NAME.encode():
            return utf8(pair.value.string_value)
    return ""


def _texts_of_bytes(attributes: Sequence[bytes]) -> dict[str, str]:
    pairs = []
    for encoded in attributes:
        try:
            pairs.append(pb.LooseKeyValue.FromString(encoded))
        except DecodeError:
            continue
    return texts_of(pairs)


def _texts_of_pairs(pairs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Read attributes as the columnar parser gives them."""
    found: dict[str, str] = {}
    for pair in pairs:
        value = pair["value"] or {}
        for kind in ("string_value", "int_value", "double_value"):
            if value.get(kind) is not None and value[kind] != "":
                found.setdefault(pair["key"], str(value[kind]))
    return found


def _first(texts: Mapping[str, str], keys: tuple[str, ...]) -> str | None:
    return next((texts[key][:MAX_TEXT_CHARS] for key in keys if texts.get(key)), None)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and isfinite(value) else None
