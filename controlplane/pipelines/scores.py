"""A score → an event → stored once, however often it is sent."""

from datetime import datetime
from hashlib import sha256
from math import isfinite

import msgspec
import pyarrow as pa

from controlplane.core.errors import InvalidInputError
from controlplane.core.ids import DEFAULT_DOMAIN
from controlplane.ingest.call_events import MAX_TEXT_CHARS
from controlplane.signals.hex_ids import parse_span_hex, parse_trace_hex
from controlplane.signals.samples import (
    ACCOUNT_SCHEMA,
    EVENT_SCHEMA,
    REJECTION_SCHEMA,
    SAMPLE_SCHEMA,
    EventKind,
)
from controlplane.signals.signal_ports import SignalBatch, SignalWriter


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody says about a call."""

    kind: EventKind
    name: str
    score: float | None
    label: str | None
    trace_id: str | None
    span_id: str | None
    response_id: str | None
    id: str
    time: datetime


def write_score(score: Score, writer: SignalWriter, *, tenant: str, author: str) -> bool:
    """Store a score; answer whether it is new. `score.id` names it among the tenant's.

    Raises:
        InvalidInputError: it names no call, says nothing, or an id is malformed.
        StoreUnavailableError: nothing was stored; send it again.
    """
    _check(score)
    trace_hi, trace_lo = _trace(score.trace_id)
    digest = sha256(f"{tenant}\x00{score.id}".encode()).hexdigest()
    row = {
        "domain": DEFAULT_DOMAIN,
        "tenant": tenant,
        "key_id": author,
        "kind": score.kind.value,
        "name": score.name,
        "source": "api",
        "trace_hi": trace_hi,
        "trace_lo": trace_lo,
        "span_id": _span(score.span_id),
        "parent_span_id": 0,
        "response_id": score.response_id,
        "time": score.time,
        "score": score.score,
        "label": score.label,
        "action": None,
        "author": author,
        "service_name": "",
        "event_hash": int(digest[:16], 16),
    }
    batch = SignalBatch(
        samples=SAMPLE_SCHEMA.empty_table(),
        events=pa.Table.from_pylist([row], schema=EVENT_SCHEMA),
        accounts=ACCOUNT_SCHEMA.empty_table(),
        rejections=REJECTION_SCHEMA.empty_table(),
    )
    written = writer.write_signals(batch, batch_id=f"score:{digest}")
    return not written.replayed and written.events == 1


def _check(score: Score) -> None:
    if not (score.trace_id or score.response_id):
        raise InvalidInputError("trace_id", "missing", "Name a trace_id or a response_id")
    if score.span_id and not score.trace_id:
        raise InvalidInputError("trace_id", "missing", "A span_id needs its trace_id")
    if score.score is None and not score.label:
        raise InvalidInputError("score", "missing", "Give a score or a label")
    if score.score is not None and not isfinite(score.score):
        raise InvalidInputError("score", "is no finite number", "Give a number")
    for field in ("name", "label", "response_id", "id"):
        text = getattr(score, field)
        if text is not None and not 0 < len(text) <= MAX_TEXT_CHARS:
            raise InvalidInputError(field, f"has not 1 to {MAX_TEXT_CHARS} characters")


def _trace(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 0
    try:
        read = parse_trace_hex(text)
    except ValueError:
        read = (0, 0)
    if not any(read):
        raise InvalidInputError("trace_id", "no trace id", "Write 32 hex digits, not all zero")
    return read


def _span(text: str | None) -> int:
    if text is None:
        return 0
    try:
        return parse_span_hex(text)
    except ValueError:
        raise InvalidInputError("span_id", "no span id", "Write 16 hex digits") from None
