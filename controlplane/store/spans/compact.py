"""A batch of spans as it travels and rests: what spans share is said once.

Forty of a span's columns say who sent it and how it was read; a batch has a few hundred different
combinations of them. A compact table has one column `context` that names the combination
(dictionary of structs), the columns that differ from span to span, and none that is all NULL.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.signals.schema import SPAN_SCHEMA
from controlplane.store.spans.rows import to_rows

CONTEXT: Final = "context"
CONTEXT_NAMES: Final = (
    *("domain", "key_id", "key_role", "kind", "service_name", "scope_name", "dialect"),
    *("report_kind", "layer", "provider", "operation", "request_model", "response_model"),
    *("billing_model", "is_stream", "status", "error_type", "http_status", "finish_reason"),
    *(
        "service_tier",
        "usage_state",
        "usage_reason",
        "tenant",
        "team",
        "project",
        "feature",
        "api_key",
    ),
    *("environment", "region", "attributed_by", "cost_state", "cost_reason", "price_id"),
    *("price_provenance", "gateway"),
)
"""Columns of few values. Those that name a person, a customer or a span's subject are not among
them: combinations must stay few."""

FACT_NAMES: Final = tuple(n for n in SPAN_SCHEMA.names if n not in CONTEXT_NAMES)
CONTEXT_FIELDS: Final = [SPAN_SCHEMA.field(name) for name in CONTEXT_NAMES]
_INDEX_TYPE: Final = pa.int32()
_CONTEXT_TYPE: Final = pa.dictionary(_INDEX_TYPE, pa.struct(CONTEXT_FIELDS))  # type: ignore[call-overload]  # the stubs know no nested values
_MAX_KEY: Final = 2**62

Array = Any


def compact(spans: pa.Table) -> pa.Table:
    """Rewrite a SPAN_SCHEMA table; attributes become JSON text."""
    index, first = combinations([whole(spans, name) for name in CONTEXT_NAMES], spans.num_rows)
    said = spans.select(CONTEXT_NAMES).take(first)
    contexts = pa.StructArray.from_arrays(
        [whole(said, name) for name in CONTEXT_NAMES], fields=CONTEXT_FIELDS
    )
    rows = to_rows(spans.select(FACT_NAMES))
    kept = [name for name in FACT_NAMES if rows.column(name).null_count < max(1, rows.num_rows)]
    context = pa.DictionaryArray.from_arrays(pa.array(index, _INDEX_TYPE), contexts)
    return rows.select(kept).append_column(CONTEXT, context)


def is_compact(table: pa.Table) -> bool:
    """Whether a table from elsewhere has the columns and types of this release."""
    names = table.schema.names
    if CONTEXT not in names or table.schema.field(CONTEXT).type != _CONTEXT_TYPE:
        return False
    known = {name: _rest_type(name) for name in FACT_NAMES}
    given = {name: table.schema.field(name).type for name in names if name != CONTEXT}
    needed = {name for name in FACT_NAMES if not SPAN_SCHEMA.field(name).nullable}
    return needed <= given.keys() and all(known.get(n) == given[n] for n in given)


def context_index(table: pa.Table) -> tuple[npt.NDArray[np.int32], pa.Table]:
    """Return the context of every row, and the table of contexts it points into."""
    index: list[npt.NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)]
    contexts = [pa.schema(CONTEXT_FIELDS).empty_table()]
    chunks: list[Array] = list(table.column(CONTEXT).chunks)
    for chunk in chunks:
        offset = sum(part.num_rows for part in contexts)
        index.append(chunk.indices.to_numpy(zero_copy_only=False).astype(np.int32) + offset)
        contexts.append(pa.Table.from_struct_array(chunk.dictionary))
    return np.concatenate(index), pa.concat_tables(contexts)


def with_domain(table: pa.Table) -> pa.Table:
    """Give every row its settlement domain again, which is part of its identity."""
    index, contexts = context_index(table)
    domains = contexts.column("domain").take(index)
    return table.append_column("domain", domains)


def _rest_type(name: str) -> pa.DataType:
    return pa.string() if name == "attributes" else SPAN_SCHEMA.field(name).type


def whole(table: pa.Table, name: str) -> Array:
    """Return a column in one piece."""
    column = table.column(name)
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays([pa.array([], column.type), *column.chunks])


def combinations(
    columns: list[Array], rows: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Number the distinct rows of `columns`: the number of each row, a row of each number."""
    key: npt.NDArray[np.int64] = np.zeros(rows, dtype=np.int64)
    size = 1
    for column in columns:
        if column.null_count == rows:
            continue
        coded = column.dictionary_encode()
        values = len(coded.dictionary) + 1  # and NULL
        if values == 2 and not column.null_count:  # noqa: PLR2004 - one value everywhere
            continue
        if size > _MAX_KEY // values:
            key = np.unique(key, return_inverse=True)[1].astype(np.int64)
            size = rows
        codes = pc.fill_null(coded.indices, values - 1)
        key = key * values + np.asarray(codes.to_numpy(zero_copy_only=False), dtype=np.int64)
        size *= values
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    return index, first
