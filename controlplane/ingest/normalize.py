"""Turns decoded spans of any dialect into one schema: facts, totals, buckets, and the tail.

A module fills each group of columns; what a producer means by its keys is data in `dialects/`.
tests/oracle/ingest_rows.py is the same, row by row.
"""

from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from controlplane.core.tokens import BUCKETS, Unit
from controlplane.ingest.attributes import ABSENT, AttributeTable
from controlplane.ingest.blobs import read_blobs
from controlplane.ingest.claims import Claims, claim
from controlplane.ingest.columns import (
    Bools,
    Column,
    contiguous,
    kernels,
    nullable,
    take_or_null,
)
from controlplane.ingest.dialects.dialect import QUANTITY_FIELDS, USAGE_FIELDS, Field
from controlplane.ingest.dialects.operations import INPUT_ONLY
from controlplane.ingest.dialects.registry import DIALECTS, READ_KEYS
from controlplane.ingest.endings import endings, streams
from controlplane.ingest.kinds import report_kinds
from controlplane.ingest.limits import DEFAULT_LIMITS, Limits
from controlplane.ingest.models import models, operations
from controlplane.ingest.names import Names
from controlplane.ingest.otlp import Decoded
from controlplane.ingest.reading import FieldReader, Read
from controlplane.ingest.tail import tail_map
from controlplane.ingest.texts import texts_at
from controlplane.ingest.timings import read_timings
from controlplane.ingest.usage import Semantics, UsageColumns, decompose_columns
from controlplane.signals.schema import NORMALIZED_SCHEMA
from controlplane.signals.semconv import SERVICE_NAME
from controlplane.signals.vocabulary import ReportKind

_TOTALS: Final = (
    Field.INPUT_TOKENS,
    Field.CACHED_INPUT_TOKENS,
    Field.CACHE_CREATION_INPUT_TOKENS,
    Field.OUTPUT_TOKENS,
    Field.REASONING_TOKENS,
)


def normalize(decoded: Decoded, *, limits: Limits = DEFAULT_LIMITS) -> pa.Table:
    """Answer one NORMALIZED_SCHEMA row per decoded span, in order."""
    spans = decoded.spans
    attributes = AttributeTable(
        spans.column("attributes"),
        max_per_row=limits.max_attributes_per_span,
        always=READ_KEYS | limits.needed_attributes,
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
    columns |= _facts(spans, attributes=attributes, reader=reader, claims=claims)
    columns["gateway"] = pa.nulls(spans.num_rows, pa.string())  # of settings: `mark_gateways`
    columns["reported_cost_nusd"] = _column(reader.nusd(Field.REPORTED_COST), pa.int64())
    columns["clock_ahead_us"] = pa.nulls(spans.num_rows, pa.int64())  # of the store's writer
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


def _facts(
    spans: pa.Table, *, attributes: AttributeTable, reader: FieldReader, claims: Claims
) -> dict[str, Column]:
    """Fill what a span says about a call: which, by whom, how it ended, how long, how much."""
    span_names = contiguous(spans.column("name"))
    operation = operations(reader, claims, span_names)
    columns, failed = endings(spans, reader, claims)
    columns["operation"] = operation.column()
    columns |= models(
        reader,
        claims,
        span_names=span_names,
        scopes=contiguous(spans.column("scope_name")),
        operation=operation,
        failed=failed,
    )
    timings = read_timings(spans, reader, claims)
    streamed, is_known = streams(
        attributes,
        reader,
        claims,
        span_names=span_names,
        first_token_seen=timings.first_token_seen,
    )
    columns["is_stream"] = nullable(streamed, is_known, dtype=pa.bool_())
    quantities = {field: reader.quantities(field) for field in QUANTITY_FIELDS}
    usage = decompose_columns(
        {field: reader.integers(field) for field in USAGE_FIELDS},
        _of_providers(
            _semantics(
                attributes,
                claims,
                operation,
                failed=failed,
                streamed=streamed,
                metered=_metered(quantities),
            ),
            claims,
            columns["provider"],
        ),
        quantities=quantities,
    )
    columns |= _usage_columns(usage, quantities)
    kinds = report_kinds(
        spans,
        attributes,
        claims,
        operation=operation,
        has_usage=usage.totals[Field.INPUT_TOKENS][1] | usage.totals[Field.OUTPUT_TOKENS][1],
        failed=failed,
    )
    columns["report_kind"] = kinds.column()
    columns |= timings.columns(usage.totals[Field.OUTPUT_TOKENS])
    return columns | _only_of_calls(columns, kinds)


def _metered(quantities: dict[Field, Read]) -> Bools:
    """Tell what is billed by something else than tokens; searches come on top of them."""
    said = [flags for field, (_, flags) in quantities.items() if field is not Field.WEB_SEARCHES]
    return np.asarray(np.logical_or.reduce(said), dtype=np.bool_)


def _semantics(
    attributes: AttributeTable,
    claims: Claims,
    operation: Names,
    *,
    failed: Bools,
    streamed: Bools,
    metered: Bools,
) -> Semantics:
    excludes = np.array([dialect.input_excludes_cache is True for dialect in DIALECTS])
    guarded = np.array([dialect.input_excludes_cache is None for dialect in DIALECTS])
    reasoning = np.array([dialect.output_excludes_reasoning for dialect in DIALECTS])
    invented = np.zeros_like(failed)
    for dialect, rows in claims.present:
        if dialect.stream_usage_needs:
            keys = dialect.stream_usage_needs
            bare = np.logical_and.reduce([attributes.at(key) == ABSENT for key in keys])
            invented |= rows & streamed & bare
    return Semantics(
        adds_cache=excludes[claims.index],
        may_add_cache=guarded[claims.index],
        adds_reasoning=reasoning[claims.index],
        input_only=operation.lookup(np.bool_, lambda text: text in INPUT_ONLY, absent=False),
        failed=failed,
        invented=invented,
        metered=metered,
    )


def _of_providers(semantics: Semantics, claims: Claims, provider: Column) -> Semantics:
    """Add what a dialect leaves out of some providers' totals alone; trust what it copies."""
    adds_cache, adds_reasoning = semantics.adds_cache, semantics.adds_reasoning
    invented = semantics.invented
    for dialect, rows in claims.present:
        if dialect.cache_is_extra_of:
            adds_cache = adds_cache | (rows & _is_any_of(provider, dialect.cache_is_extra_of))
        if dialect.reasoning_is_extra_of:
            extra = rows & _is_any_of(provider, dialect.reasoning_is_extra_of)
            adds_reasoning = adds_reasoning | extra
        if dialect.stream_usage_is_of:
            invented = invented & ~(rows & _is_any_of(provider, dialect.stream_usage_is_of))
    return msgspec.structs.replace(
        semantics, adds_cache=adds_cache, adds_reasoning=adds_reasoning, invented=invented
    )


def _is_any_of(texts: Column, wanted: frozenset[str]) -> Bools:
    found = kernels.is_in(texts, value_set=pa.array(sorted(wanted), pa.string()))
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _usage_columns(usage: UsageColumns, quantities: dict[Field, Read]) -> dict[str, Column]:
    columns: dict[str, Column] = {
        field.value: _column(usage.totals[field], pa.int64()) for field in _TOTALS
    }
    for name, values in usage.buckets.items():
        columns[name] = nullable(values, usage.exact, dtype=pa.int64())
    for field, (values, said) in quantities.items():
        columns[field.value] = nullable(values, said & usage.exact, dtype=pa.int64())
    rows = len(usage.exact)
    for name in _UNREPORTED_BUCKETS:
        columns[name] = pa.nulls(rows, pa.int64())
    return columns | {"usage_state": usage.state, "usage_reason": usage.reason}


_UNREPORTED_BUCKETS: Final = frozenset(b.name for b in BUCKETS if b.unit is not Unit.TOKEN) - {
    field.value for field in QUANTITY_FIELDS
}
"""Buckets that no span of these dialects states."""


def _only_of_calls(columns: dict[str, Column], kinds: Names) -> dict[str, Column]:
    """A chain's output may have an `id` or a `model` of its own: neither is a response's."""
    is_call = pa.array(kinds.is_text(ReportKind.CALL.value))
    nothing = pa.scalar(None, pa.string())
    names = ("response_id", "response_model", "billing_model")
    return {name: kernels.if_else(is_call, columns[name], nothing) for name in names}


def _column(read: Read, dtype: pa.DataType) -> Column:
    values, said = read
    return nullable(values, said, dtype=dtype)
