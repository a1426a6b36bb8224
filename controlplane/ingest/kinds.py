"""What each span is: a call, a sum of calls, or nothing to count."""

import numpy as np
import pyarrow as pa

from controlplane.ingest.attributes import ABSENT, AttributeTable
from controlplane.ingest.claims import Claims
from controlplane.ingest.columns import Bools, Column, contiguous, kernels
from controlplane.ingest.dialects.dialect import Dialect
from controlplane.ingest.dialects.operations import kind_of_operation
from controlplane.ingest.models import begins
from controlplane.ingest.names import Names
from controlplane.signals.vocabulary import ReportKind


def report_kinds(
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
        if dialect.call_kind is not None:
            other = ~_equals(contiguous(spans.column("kind")), dialect.call_kind)
            kinds.put_where(rows & other, ReportKind.NONE.value)
        _by_name_or_key(kinds, dialect, rows, span_names=span_names, attributes=attributes)
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


def _by_name_or_key(
    kinds: Names,
    dialect: Dialect,
    rows: Bools,
    *,
    span_names: Column,
    attributes: AttributeTable,
) -> None:
    for name, kind in dialect.kinds_by_name.items():
        is_named = (
            begins(span_names, name[:-1]) if name.endswith("*") else _equals(span_names, name)
        )
        kinds.put_where(rows & is_named, kind.value)
    for key, kind in dialect.kinds_by_key.items():
        kinds.put_where(rows & (attributes.at(key) != ABSENT), kind.value)


def _is_call(operation: str) -> bool:
    return kind_of_operation(operation) is ReportKind.CALL


def _equals(names: Column, name: str) -> Bools:
    return np.asarray(kernels.equal(names, name).to_numpy(zero_copy_only=False), dtype=np.bool_)
