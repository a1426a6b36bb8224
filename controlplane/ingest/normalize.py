"""Turns decoded spans of any dialect into one schema: facts, totals, buckets, and the tail.

Each column is filled by one function below; what a producer means by its keys is data in
`dialects/`. tests/oracle/ingest.py is the same, row by row.
"""

from typing import Final

import numpy as np
import pyarrow as pa

from controlplane.core.tokens import BUCKETS, Unit
from controlplane.ingest import events
from controlplane.ingest.attributes import ABSENT, AttributeTable
from controlplane.ingest.blobs import read_blobs
from controlplane.ingest.claims import Claims, claim
from controlplane.ingest.columns import (
    Bools,
    Column,
    Int64s,
    contiguous,
    kernels,
    nullable,
    take_or_null,
)
from controlplane.ingest.dialects.dialect import USAGE_FIELDS, Field
from controlplane.ingest.dialects.operations import (
    INPUT_ONLY,
    canonical_operation,
    kind_of_operation,
)
from controlplane.ingest.dialects.providers import canonical_provider, split_model_path
from controlplane.ingest.dialects.registry import DIALECTS, READ_KEYS
from controlplane.ingest.limits import DEFAULT_LIMITS, Limits
from controlplane.ingest.names import Names
from controlplane.ingest.otlp import Decoded
from controlplane.ingest.outcome import (
    canonical_finish_reason,
    canonical_service_tier,
    error_of_status,
    error_of_text,
    is_failure,
)
from controlplane.ingest.reading import FieldReader, Read
from controlplane.ingest.scalars import first_of
from controlplane.ingest.tail import tail_map
from controlplane.ingest.texts import texts_at
from controlplane.ingest.usage import Semantics, UsageColumns, decompose_columns
from controlplane.signals.schema import NORMALIZED_SCHEMA
from controlplane.signals.semconv import SERVICE_NAME
from controlplane.signals.vocabulary import ErrorType, ReportKind, Status

_STATUS_ERROR: Final = 2  # opentelemetry.proto.trace.v1.Status.StatusCode
_STATUSES: Final[Column] = pa.array([Status.OK.value, Status.ERROR.value])
_MIN_HTTP, _MAX_HTTP = 100, 599
_TOTALS: Final = (
    Field.INPUT_TOKENS,
    Field.CACHED_INPUT_TOKENS,
    Field.CACHE_CREATION_INPUT_TOKENS,
    Field.OUTPUT_TOKENS,
    Field.REASONING_TOKENS,
)
_DURATIONS: Final = (Field.TTFT, Field.QUEUE, Field.PREFILL, Field.DECODE)


def normalize(decoded: Decoded, *, limits: Limits = DEFAULT_LIMITS) -> pa.Table:
    """Answer one NORMALIZED_SCHEMA row per decoded span, in order."""
    spans = decoded.spans
    attributes = AttributeTable(
        spans.column("attributes"),
        max_per_row=limits.max_attributes_per_span,
        always=READ_KEYS,
    )
    resources = AttributeTable(decoded.resources, max_per_row=limits.max_attributes_per_span)
    resource_of = np.asarray(spans.column("resource").to_numpy(), dtype=np.int32)
    claims = claim(contiguous(spans.column("scope_name")), attributes, DIALECTS)
    blobs = read_blobs(attributes, claims, limits=limits)
    reader = FieldReader(attributes, claims, blobs, limits=limits)
    columns: dict[str, Column] = {
        name: spans.column(name) for name in NORMALIZED_SCHEMA.names if name in spans.column_names
    }
    columns["service_name"] = _service_names(resources, limits=limits).take(pa.array(resource_of))
    columns["dialect"] = _per_dialect([dialect.name for dialect in DIALECTS], claims)
    columns["layer"] = _per_dialect([dialect.layer.value for dialect in DIALECTS], claims)
    columns |= _models(reader, claims)
    columns |= _identities(reader)
    failed = _outcome(spans, reader, claims=claims, columns=columns)
    operation = reader.names(Field.OPERATION, canonical_operation)
    columns["operation"] = operation.column()
    usage = decompose_columns(
        {field: reader.integers(field) for field in USAGE_FIELDS},
        _semantics(claims, operation, failed=failed),
    )
    columns |= _usage_columns(usage)
    kinds = _report_kinds(
        spans,
        attributes,
        claims,
        operation=operation,
        has_usage=usage.totals[Field.INPUT_TOKENS][1] | usage.totals[Field.OUTPUT_TOKENS][1],
        failed=failed,
    )
    columns["report_kind"] = kinds.column()
    columns |= _only_of_calls(columns, kinds)
    columns |= _timings(spans, reader, claims)
    columns["reported_cost_nusd"] = _column(reader.nusd(Field.REPORTED_COST), pa.int64())
    columns["attributes"] = tail_map(
        attributes,
        claims,
        blob_tail=blobs.tail,
        resources=resources,
        resource_of=resource_of,
        limits=limits,
    )
    return pa.table([columns[name] for name in NORMALIZED_SCHEMA.names], schema=NORMALIZED_SCHEMA)


def _service_names(resources: AttributeTable, *, limits: Limits) -> Column:
    at = resources.at(SERVICE_NAME)
    named = np.flatnonzero(at != ABSENT)
    texts = texts_at(resources, at[named], max_chars=limits.max_tail_value_chars)
    place = np.full(resources.rows, ABSENT, dtype=np.int64)
    place[named] = np.arange(len(named))
    return kernels.fill_null(take_or_null(texts, place), "")


def _per_dialect(values: list[str], claims: Claims) -> Column:
    names: Column = pa.array(values, pa.string())
    return names.take(pa.array(claims.index))


def _models(reader: FieldReader, claims: Claims) -> dict[str, Column]:
    """Provider and models; the billing model is the deployed, else the response's, else asked."""
    provider = reader.names(Field.PROVIDER, canonical_provider)
    for dialect, rows in claims.present:
        if dialect.provider is not None:
            provider.put_where(rows, dialect.provider)
    deployed = reader.names(Field.DEPLOYED_MODEL, lambda text: text)
    _fill_from_path(provider, deployed)
    deployed_model = _model_names(deployed)
    requested = reader.names(Field.REQUEST_MODEL, _present).column()
    answered = reader.names(Field.RESPONSE_MODEL, _present).column()
    alias = reader.texts(Field.MODEL_ALIAS)
    # A gateway may write its alias over the model; the deployed model is the better answer then.
    hidden = kernels.fill_null(
        kernels.and_(kernels.equal(answered, alias), kernels.is_valid(deployed_model)),
        False,  # noqa: FBT003 - the value that stands for NULL
    )
    response = kernels.if_else(hidden, deployed_model, answered)
    return {
        "provider": provider.column(),
        "request_model": requested,
        "response_model": response,
        "billing_model": kernels.coalesce(deployed_model, response, requested),
    }


def _present(text: str) -> str | None:
    return text.strip() or None


def _fill_from_path(provider: Names, deployed: Names) -> None:
    """Take the provider from `provider/model` where no key named one."""
    for text in set(deployed.texts()):
        head, _ = split_model_path(text)
        if head is not None:
            provider.put_where(deployed.is_text(text), head)


def _model_names(deployed: Names) -> Column:
    texts = [split_model_path(text)[1] for text in deployed.texts()]
    return take_or_null(pa.array(texts, pa.string()), deployed.code)


def _identities(reader: FieldReader) -> dict[str, Column]:
    """Join keys. LiteLLM puts its own call id where a response had none: that is no response id."""
    response_id = reader.texts(Field.RESPONSE_ID)
    call_id = reader.texts(Field.GATEWAY_CALL_ID)
    same = kernels.fill_null(kernels.equal(response_id, call_id), False)  # noqa: FBT003 - as above
    return {
        "response_id": kernels.if_else(same, pa.scalar(None, pa.string()), response_id),
        "gateway_call_id": call_id,
    }


def _outcome(
    spans: pa.Table, reader: FieldReader, *, claims: Claims, columns: dict[str, Column]
) -> Bools:
    """Fill status, error_type, http_status, finish_reason and is_stream; answer who failed."""
    http, http_said = reader.integers(Field.HTTP_STATUS)
    http_said &= (http >= _MIN_HTTP) & (http <= _MAX_HTTP)
    http = np.where(http_said, http, 0)
    failed = np.asarray(spans.column("status_code").to_numpy() == _STATUS_ERROR, dtype=np.bool_)
    distinct, inverse = np.unique(http, return_inverse=True)
    failed |= np.array([is_failure(int(status)) for status in distinct], dtype=np.bool_)[inverse]
    failed |= _failed_by_exception(spans, claims)
    columns["status"] = _STATUSES.take(pa.array(failed.astype(np.int8)))
    columns["http_status"] = nullable(http.astype(np.int16), http_said, dtype=pa.int16())
    columns["error_type"] = _error_types(spans, reader, http=http, failed=failed)
    columns["service_tier"] = reader.names(Field.SERVICE_TIER, canonical_service_tier).column()
    columns["finish_reason"] = reader.names(Field.FINISH_REASON, _finish_reason).column()
    stream, stream_said = reader.flags(Field.IS_STREAM)
    columns["is_stream"] = nullable(stream.astype(np.bool_), stream_said, dtype=pa.bool_())
    return failed


def _failed_by_exception(spans: pa.Table, claims: Claims) -> Bools:
    failed = np.zeros(spans.num_rows, dtype=np.bool_)
    for dialect, rows in claims.present:
        if dialect.exception_is_failure:
            for row, _ in events.exception_types(spans.column("events"), rows):
                failed[row] = True
    return failed


def _error_types(spans: pa.Table, reader: FieldReader, *, http: Int64s, failed: Bools) -> Column:
    """Classify failures by HTTP status, else by the error's name, else by the exception's."""
    errors = Names(len(failed))
    for status in np.unique(http).tolist():
        kind = error_of_status(status)
        if kind is not None:
            errors.put_where(failed & (http == status), kind.value)
    if failed.any():
        named = reader.names(Field.ERROR_TYPE, lambda text: error_of_text(text).value)
        for text in named.texts():
            errors.put_where(failed & named.is_text(text), text)
        if events.has_events(spans.column("events")):
            missing = failed & errors.missing()
            for row, name in events.exception_types(spans.column("events"), missing):
                errors.put_one(row, error_of_text(name).value)
        errors.put_where(failed, ErrorType.OTHER.value)
    return errors.column()


def _finish_reason(text: str) -> str | None:
    first = first_of(text)
    return canonical_finish_reason(first) if first else None


def _semantics(claims: Claims, operation: Names, *, failed: Bools) -> Semantics:
    excludes = np.array([dialect.input_excludes_cache is True for dialect in DIALECTS])
    guarded = np.array([dialect.input_excludes_cache is None for dialect in DIALECTS])
    reasoning = np.array([dialect.output_excludes_reasoning for dialect in DIALECTS])
    return Semantics(
        adds_cache=excludes[claims.index],
        may_add_cache=guarded[claims.index],
        adds_reasoning=reasoning[claims.index],
        input_only=operation.lookup(np.bool_, lambda text: text in INPUT_ONLY, absent=False),
        failed=failed,
    )


def _usage_columns(usage: UsageColumns) -> dict[str, Column]:
    columns: dict[str, Column] = {
        field.value: _column(usage.totals[field], pa.int64()) for field in _TOTALS
    }
    for name, values in usage.buckets.items():
        columns[name] = nullable(values, usage.exact, dtype=pa.int64())
    rows = len(usage.exact)
    for field in NORMALIZED_SCHEMA:
        if field.name not in columns and field.name in _UNREPORTED_BUCKETS:
            columns[field.name] = pa.nulls(rows, field.type)
    return columns | {"usage_state": usage.state, "usage_reason": usage.reason}


_UNREPORTED_BUCKETS: Final = frozenset(b.name for b in BUCKETS if b.unit is not Unit.TOKEN)
"""Buckets that no span of these dialects states."""


def _report_kinds(
    spans: pa.Table,
    attributes: AttributeTable,
    claims: Claims,
    *,
    operation: Names,
    has_usage: Bools,
    failed: Bools,
) -> Names:
    """What each span is: by name, else a key, else its operation, else by having usage at all."""
    kinds = Names(attributes.rows)
    span_names = contiguous(spans.column("name"))
    for dialect, rows in claims.present:
        for name, kind in dialect.kinds_by_name.items():
            kinds.put_where(rows & _equals(span_names, name), kind.value)
        for key, kind in dialect.kinds_by_key.items():
            kinds.put_where(rows & (attributes.at(key) != ABSENT), kind.value)
        if dialect.call_needs:
            bare = np.logical_and.reduce([attributes.at(k) == ABSENT for k in dialect.call_needs])
            calls = operation.lookup(np.bool_, _is_call, absent=False)
            kinds.put_where(rows & bare & calls & ~failed, ReportKind.NONE.value)
    for text in operation.texts():
        kind_by_operation = kind_of_operation(text)
        if kind_by_operation is not None:
            kinds.put_where(operation.is_text(text), kind_by_operation.value)
    for dialect, rows in claims.present:
        kinds.put_where(rows & has_usage, dialect.kind_of_usage.value)
    kinds.put_where(np.ones_like(has_usage), ReportKind.NONE.value)
    return kinds


def _is_call(operation: str) -> bool:
    return kind_of_operation(operation) is ReportKind.CALL


def _only_of_calls(columns: dict[str, Column], kinds: Names) -> dict[str, Column]:
    """A chain's output may have an `id` or a `model` of its own: neither is a response's."""
    is_call = pa.array(kinds.is_text(ReportKind.CALL.value))
    nothing = pa.scalar(None, pa.string())
    names = ("response_id", "response_model", "billing_model")
    return {name: kernels.if_else(is_call, columns[name], nothing) for name in names}


def _equals(names: Column, name: str) -> Bools:
    return np.asarray(kernels.equal(names, name).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _timings(spans: pa.Table, reader: FieldReader, claims: Claims) -> dict[str, Column]:
    timings = {field: reader.micros(field) for field in _DURATIONS}
    if events.has_events(spans.column("events")):
        start = np.asarray(spans.column("start_time").cast(pa.int64()).to_numpy())
        after, marked = events.first_tokens(spans.column("events"), claims, start_micros=start)
        values, said = timings[Field.TTFT]
        timings[Field.TTFT] = np.where(said, values, after), said | marked
    return {field.value: _column(read, pa.int64()) for field, read in timings.items()}


def _column(read: Read, dtype: pa.DataType) -> Column:
    values, said = read
    return nullable(values, said, dtype=dtype)
