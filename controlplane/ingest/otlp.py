"""Decodes OTLP trace requests to Arrow: one row per span, one table per batch of requests.

Spans are parsed in native code (ptars) from their own bytes. The content hash is XXH3-64 over
those bytes: a resend repeats them, and the format is frozen, so a span stored by one release is
known as a resend by the next. It is taken before anything is repaired.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import ptars
import pyarrow as pa
import xxhash
from google.protobuf.message import DecodeError

from controlplane.core.errors import LimitExceededError, PayloadError
from controlplane.core.instants import DAY_US
from controlplane.ingest import otlp_pb2 as pb
from controlplane.ingest.columns import (
    Bools,
    Column,
    Int64s,
    Uint64s,
    contiguous,
    kernels,
    words_of,
)
from controlplane.ingest.limits import Limits
from controlplane.ingest.loose import texts_of
from controlplane.ingest.otlp_json import split_json_request
from controlplane.ingest.otlp_repair import repair_resource, repair_span
from controlplane.ingest.otlp_split import SpanGroup, SplitRequest, split_request
from controlplane.ingest.ports import Payload
from controlplane.signals.schema import TIMESTAMP
from controlplane.signals.semconv import SERVICE_NAME
from controlplane.signals.sender import Sender

_POOL: Final = ptars.HandlerPool([pb.DESCRIPTOR])
_SPANS: Final = _POOL.get_for_message(pb.Span.DESCRIPTOR)
_RESOURCES: Final = _POOL.get_for_message(pb.Resource.DESCRIPTOR)

_KINDS: Final[Column] = pa.array(["", "internal", "server", "client", "producer", "consumer"])
_TRACE_ID_BYTES: Final = 16
_SPAN_ID_BYTES: Final = 8
_NANO_PER_MICRO: Final = 1000
TOO_OLD: Final = "beyond_retention"
"""Why a span is refused that began longer ago than `Limits.max_age_days`."""


class Decoded(msgspec.Struct, frozen=True):
    """A batch of requests as tables.

    `spans` has the columns of DECODED_SCHEMA, and for the stage that follows: `status_code`
    (int32, OTLP's), `status_message` (text that may quote a prompt: read, never kept), `attributes` and `events` as the parser gives them (otlp.proto), and
    `resource` (int32), the row of `resources` that holds the resource's attributes.
    """

    spans: pa.Table
    resources: Column
    rejected: dict[str, int]
    """Spans not in the table, by reason; a request that can not be cut into spans counts as one."""
    received: int
    """`spans.num_rows` plus everything rejected."""
    refused: dict[tuple[int, str, str], int]
    """`rejected` by (position of the request, its resource's service.name, reason)."""


def split_payload(payload: Payload, *, limits: Limits) -> SplitRequest:
    """Cut a trace request of either encoding into its spans; a receiver's check before the ack.

    Raises:
        PayloadError: not a request (`malformed_payload`).
        LimitExceededError: more than `max_spans_per_request`.
    """
    split = split_json_request if payload.content_type == "json" else split_request
    return split(payload.body, limits=limits)


def decode_requests(
    payloads: Sequence[Payload],
    *,
    senders: Sequence[Sender],
    received_at: Sequence[datetime],
    limits: Limits,
) -> Decoded:
    """Decode trace requests; `senders` and `received_at` have one entry per payload.

    A request that is malformed loses itself, a span that is malformed loses itself; text that is
    not UTF-8 loses the characters that are not.
    """
    refused: Counter[tuple[int, str, str]] = Counter()
    groups: list[tuple[int, SpanGroup]] = []
    bodies: list[bytes] = []
    for index, payload in enumerate(payloads):
        try:
            split = split_payload(payload, limits=limits)
        except PayloadError as error:
            refused[index, "", error.reason] += 1
        except LimitExceededError as error:
            refused[index, "", error.limit] += 1
        else:
            groups += [(index, group) for group in split.groups]
            bodies += split.spans
    received = len(bodies) + refused.total()
    parsed, readable = _parse_spans(bodies)
    counts = np.array([group.count for _, group in groups], dtype=np.int64)
    shared = _shared_columns(groups, counts, senders=senders, received_at=received_at)
    spans, reasons = _identify(parsed, readable, bodies=bodies, shared=shared, limits=limits)
    refused.update(_by_emitter(reasons, groups, counts))
    rejected: Counter[str] = Counter()
    for (_, _, reason), count in refused.items():
        rejected[reason] += count
    resources = _parse_resources(groups)
    return Decoded(spans, resources, dict(rejected), received, dict(refused))


def _by_emitter(
    reasons: npt.NDArray[np.str_], groups: list[tuple[int, SpanGroup]], counts: Int64s
) -> Counter[tuple[int, str, str]]:
    """Count rejected spans by who sent them; `reasons` has a text a span, empty where it is kept."""
    found: Counter[tuple[int, str, str]] = Counter()
    rows = np.flatnonzero(reasons != "")
    if rows.size:
        group_of = np.repeat(np.arange(len(groups)), counts)
        for row in rows.tolist():
            index, group = groups[group_of[row]]
            found[index, _service_name(group.resource), str(reasons[row])] += 1
    return found


def _service_name(resource: bytes) -> str:
    try:
        pairs = pb.LooseResource.FromString(resource).attributes
    except DecodeError:
        return ""
    return texts_of(pairs).get(SERVICE_NAME, "")


def read_messages(handler: Any, bodies: list[bytes]) -> pa.RecordBatch:
    """Parse messages in native code.

    A message that ends inside a length makes the parser panic, and a panic is no `Exception`: it
    would end the thread that ingests, for a body that was acknowledged.

    Raises:
        ValueError: one of them is malformed.
    """
    try:
        batch: pa.RecordBatch = handler.list_to_record_batch(bodies)
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # pyo3's; there is no module to import it from
            raise ValueError("the parser gave up on it") from None
        raise
    return batch


def _parse_spans(bodies: list[bytes]) -> tuple[pa.Table, Bools]:
    """Parse every span, and tell which could be read; the others are empty messages."""
    readable = np.ones(len(bodies), dtype=np.bool_)
    try:
        batch = read_messages(_SPANS, bodies)
    except ValueError:
        singly = [_readable_span(body) for body in bodies]
        readable[:] = [body is not None for body in singly]
        batch = read_messages(_SPANS, [body or b"" for body in singly])
    return pa.Table.from_batches([batch]), readable


def _readable_span(body: bytes) -> bytes | None:
    if _is_span(body):
        return body
    try:
        repaired = repair_span(body)
    except DecodeError:
        return None
    return repaired if _is_span(repaired) else None


def _is_span(body: bytes) -> bool:
    try:
        read_messages(_SPANS, [body])
    except ValueError:
        return False
    return True


def _parse_resources(groups: list[tuple[int, SpanGroup]]) -> Column:
    bodies = list(dict.fromkeys(group.resource for _, group in groups))
    try:
        batch = read_messages(_RESOURCES, bodies)
    except ValueError:
        batch = read_messages(_RESOURCES, [_readable_resource(body) for body in bodies])
    return batch.column("attributes")


def _readable_resource(body: bytes) -> bytes:
    """Repair a resource; one that stays unreadable has no attributes, its spans are kept."""
    try:
        readable = repair_resource(body)
        read_messages(_RESOURCES, [readable])
    except (ValueError, DecodeError):
        return b""
    return readable


def _shared_columns(
    groups: list[tuple[int, SpanGroup]],
    counts: Int64s,
    *,
    senders: Sequence[Sender],
    received_at: Sequence[datetime],
) -> dict[str, Column]:
    """Spread what a request, resource or scope says over its spans."""
    resources = {body: i for i, body in enumerate(dict.fromkeys(g.resource for _, g in groups))}
    scopes = [_scope(group.scope) for _, group in groups]
    sent_by = [senders[index] for index, _ in groups]
    per_group: dict[str, Column] = {
        "domain": pa.array([s.domain for s in sent_by], pa.string()),
        "key_id": pa.array([s.key_id for s in sent_by], pa.string()),
        "key_role": pa.array([s.key_role.value for s in sent_by], pa.string()),
        "received_at": pa.array([received_at[index] for index, _ in groups], TIMESTAMP),
        "scope_name": pa.array([scope.name for scope in scopes], pa.string()),
        "resource": pa.array([resources[group.resource] for _, group in groups], pa.int32()),
    }
    rows = pa.array(np.repeat(np.arange(len(groups)), counts))
    return {name: column.take(rows) for name, column in per_group.items()}


def _scope(body: bytes) -> pb.Scope:
    try:
        return pb.Scope.FromString(body)
    except DecodeError:
        return pb.Scope()


def _identify(
    parsed: pa.Table,
    readable: Bools,
    *,
    bodies: list[bytes],
    shared: dict[str, Column],
    limits: Limits,
) -> tuple[pa.Table, npt.NDArray[np.str_]]:
    """Build the decoded columns of spans that have an identity; say of each why it has none."""
    traces, good_trace = words_of(parsed.column("trace_id"), _TRACE_ID_BYTES)
    span_ids, good_span = words_of(parsed.column("span_id"), _SPAN_ID_BYTES)
    parents, _ = words_of(parsed.column("parent_span_id"), _SPAN_ID_BYTES)
    start, end = (_micros(parsed.column(f"{edge}_time_unix_nano")) for edge in ("start", "end"))
    start = np.where(start == 0, end, start)
    hashes = np.fromiter(map(xxhash.xxh3_64_intdigest, bodies), np.uint64, len(bodies))
    reasons = np.select(
        [~readable, ~good_trace, ~good_span, start == 0, _too_old(start, shared, limits)],
        [*("malformed_span", "invalid_trace_id", "invalid_span_id", "missing_time"), TOO_OLD],
        default="",
    )
    _fill_zero_ids(traces, span_ids[:, 0], bodies=bodies)
    columns: dict[str, Column] = {
        **{name: shared[name] for name in ("domain", "key_id", "key_role", "received_at")},
        "trace_hi": pa.array(traces[:, 0]),
        "trace_lo": pa.array(traces[:, 1]),
        "span_id": pa.array(span_ids[:, 0]),
        "parent_span_id": pa.array(parents[:, 0]),
        "start_time": pa.array(start).cast(TIMESTAMP),
        "duration_us": pa.array(np.maximum(end - start, 0)),
        "content_hash": pa.array(hashes),
        "name": parsed.column("name"),
        "kind": _kind_names(parsed.column("kind")),
        "scope_name": shared["scope_name"],
        **_status(parsed),
        "attributes": parsed.column("attributes"),
        "events": parsed.column("events"),
        "resource": shared["resource"],
    }
    table = pa.table(columns)
    kept = reasons == ""
    return table if kept.all() else table.filter(pa.array(kept)), reasons


def _too_old(start: Int64s, shared: dict[str, Column], limits: Limits) -> Bools:
    """Tell which spans began before what is kept of spans when they arrived."""
    if not limits.max_age_days:
        return np.zeros(len(start), dtype=np.bool_)
    arrived = np.asarray(contiguous(shared["received_at"]).cast(pa.int64()).to_numpy())
    return np.asarray(start < arrived - limits.max_age_days * DAY_US, dtype=np.bool_)


def _fill_zero_ids(traces: Uint64s, span_ids: Uint64s, *, bodies: list[bytes]) -> None:
    """Give spans without ids one from their content, in place (algorithms C6).

    Equal bytes get equal ids, so a resend is still a resend.
    """
    for row in np.flatnonzero((traces == 0).all(axis=1)):
        digest = blake2b(bodies[row], digest_size=16, person=b"trace").digest()
        traces[row] = np.frombuffer(digest, ">u8")
    for row in np.flatnonzero(span_ids == 0):
        digest = blake2b(bodies[row], digest_size=8, person=b"span").digest()
        span_ids[row] = np.frombuffer(digest, ">u8")[0]


def _micros(column: Column) -> Int64s:
    """Truncate unsigned nanoseconds to microseconds; the quotient always fits 63 bits."""
    nanos = np.asarray(column.to_numpy(), dtype=np.uint64)
    return (nanos // np.uint64(_NANO_PER_MICRO)).astype(np.int64)


def _kind_names(column: Column) -> Column:
    kinds = np.asarray(column.to_numpy())
    known = (kinds >= 0) & (kinds < len(_KINDS))
    return _KINDS.take(pa.array(np.where(known, kinds, 0)))


def _status(parsed: pa.Table) -> dict[str, Column]:
    status: Column = contiguous(parsed.column("status"))
    return {
        "status_code": kernels.fill_null(kernels.struct_field(status, "code"), 0),
        "status_message": kernels.struct_field(status, "message"),
    }
