"""How each call ended: status, HTTP status, error type, finish reason, service tier, stream."""

from typing import Final

import numpy as np
import pyarrow as pa

from controlplane.ingest import events
from controlplane.ingest.attributes import ABSENT, AttributeTable
from controlplane.ingest.claims import Claims
from controlplane.ingest.columns import Bools, Column, Int64s, contiguous, kernels, nullable
from controlplane.ingest.dialects.dialect import Field
from controlplane.ingest.dialects.operations import is_chunk, is_streamed
from controlplane.ingest.dialects.registry import DIALECTS
from controlplane.ingest.models import begins
from controlplane.ingest.names import Names
from controlplane.ingest.outcome import (
    MAX_MESSAGE_CHARS,
    canonical_finish_reason,
    canonical_service_tier,
    error_of_message,
    error_of_status,
    error_of_text,
    is_failure,
    status_of_message,
)
from controlplane.ingest.reading import FieldReader
from controlplane.ingest.scalars import first_of
from controlplane.signals.vocabulary import GATEWAY_CACHE, ErrorType, Layer, Status

_STATUS_ERROR: Final = 2  # opentelemetry.proto.trace.v1.Status.StatusCode
_STATUSES: Final[Column] = pa.array([Status.OK.value, Status.ERROR.value])
_MIN_HTTP, _MAX_HTTP = 100, 599


def endings(
    spans: pa.Table, reader: FieldReader, claims: Claims
) -> tuple[dict[str, Column], Bools]:
    """Fill the columns of this module but `is_stream`; answer them and who failed."""
    http, http_said = reader.integers(Field.HTTP_STATUS)
    http_said &= (http >= _MIN_HTTP) & (http <= _MAX_HTTP)
    http = np.where(http_said, http, 0)
    failed = np.asarray(spans.column("status_code").to_numpy() == _STATUS_ERROR, dtype=np.bool_)
    distinct, inverse = np.unique(http, return_inverse=True)
    failed |= np.array([is_failure(int(status)) for status in distinct], dtype=np.bool_)[inverse]
    failed |= reader.names(Field.LEVEL, _error_level).is_text(_ERROR_LEVEL)
    failed |= _failed_by_exception(spans, claims)
    errors = _Errors(spans, reader, failed=failed)
    for row in np.flatnonzero(failed & (http == 0)).tolist():
        found = status_of_message(errors.message(row))
        if found is not None:
            http[row], http_said[row] = found, True
    columns = {
        "status": _STATUSES.take(pa.array(failed.astype(np.int8))),
        "http_status": nullable(http.astype(np.int16), http_said, dtype=pa.int16()),
        "error_type": _error_types(reader, errors, http=http, failed=failed),
        "service_tier": _service_tiers(reader, claims),
        "finish_reason": reader.names(Field.FINISH_REASON, _finish_reason).column(),
    }
    return columns, failed


def _service_tiers(reader: FieldReader, claims: Claims) -> Column:
    """Name what served a call: a provider's tier, or the cache of a gateway that says so."""
    tiers = reader.names(Field.SERVICE_TIER, canonical_service_tier).column()
    hit, said = reader.flags(Field.CACHE_HIT)
    if not said.any():
        return tiers
    at_gateway = np.array([dialect.layer is Layer.PROXY for dialect in DIALECTS])[claims.index]
    cached = pa.array(hit.astype(np.bool_) & said & at_gateway)
    return kernels.if_else(cached, pa.scalar(GATEWAY_CACHE), tiers)


_ERROR_LEVEL: Final = "error"


def _error_level(text: str) -> str | None:
    return _ERROR_LEVEL if text.strip().lower() == _ERROR_LEVEL else None


def _failed_by_exception(spans: pa.Table, claims: Claims) -> Bools:
    failed = np.zeros(spans.num_rows, dtype=np.bool_)
    for dialect, rows in claims.present:
        if dialect.exception_is_failure:
            for row, said in events.exceptions(spans.column("events"), rows).items():
                failed[row] = said.kind is not None
    return failed


class _Errors:
    """What failed rows say about their failure, in the order in which it is believed."""

    def __init__(self, spans: pa.Table, reader: FieldReader, *, failed: Bools) -> None:
        self._status: Column = contiguous(spans.column("status_message"))
        self._exceptions: dict[int, events.RaisedException] = {}
        self._named: Column | None = None
        if failed.any():
            self._named = reader.texts(Field.ERROR_MESSAGE)
            if events.has_events(spans.column("events")):
                self._exceptions = events.exceptions(spans.column("events"), failed)

    def kind(self, row: int) -> str | None:
        """Answer the type of the exception that ended a row."""
        raised = self._exceptions.get(row)
        return raised.kind if raised else None

    def message(self, row: int) -> str:
        """Answer the first message of a row: its status's, an attribute's, its exception's."""
        raised = self._exceptions.get(row)
        named = self._named[row].as_py() if self._named is not None else None
        said = self._status[row].as_py() or named or (raised.message if raised else None) or ""
        return str(said)[:MAX_MESSAGE_CHARS]


def _error_types(reader: FieldReader, errors: _Errors, *, http: Int64s, failed: Bools) -> Column:
    """Classify failures by HTTP status, else by an error's name, else by what a message says."""
    found = Names(len(failed))
    for status in np.unique(http).tolist():
        kind = error_of_status(status)
        if kind is not None:
            found.put_where(failed & (http == status), kind.value)
    if failed.any():
        named = reader.names(Field.ERROR_TYPE, _known_error)
        for text in named.texts():
            found.put_where(failed & named.is_text(text), text)
        for row in np.flatnonzero(failed & found.missing()).tolist():
            raised = errors.kind(row)
            known = (_known_error(raised) if raised else None) or error_of_message(
                errors.message(row)
            )
            found.put_one(row, known)
        found.put_where(failed, ErrorType.OTHER.value)
    return found.column()


def _known_error(text: str) -> str | None:
    kind = error_of_text(text)
    return None if kind is ErrorType.OTHER else kind.value


def _finish_reason(text: str) -> str | None:
    first = first_of(text)
    return canonical_finish_reason(first) if first else None


def streams(
    attributes: AttributeTable,
    reader: FieldReader,
    claims: Claims,
    *,
    span_names: Column,
    first_token_seen: Bools,
) -> tuple[Bools, Bools]:
    """Answer who streamed, and of whom it is known: a flag says it, or what only a stream has."""
    flags, said = reader.flags(Field.IS_STREAM)
    seen = first_token_seen | reader.names(Field.OPERATION, _stream_text).is_text(_STREAM)
    seen |= reader.names(Field.STREAM_MARK, _chunk_text).is_text(_STREAM)
    for dialect, rows in claims.present:
        for key in dialect.stream_keys:
            if attributes.has(key):
                seen |= rows & (attributes.at(key) != ABSENT)
        for prefix in dialect.stream_names:
            seen |= rows & begins(span_names, prefix)
    return flags.astype(np.bool_) | seen, said | seen


_STREAM: Final = "stream"


def _stream_text(text: str) -> str | None:
    return _STREAM if is_streamed(text) else None


def _chunk_text(text: str) -> str | None:
    return _STREAM if is_chunk(text) else None
