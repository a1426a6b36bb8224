"""How long calls took and what they wrote: histograms, and ranks of durations."""

from typing import Any, Final

import duckdb
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.signals.queries import LATENCY_BOUNDS_US, CostQuery
from controlplane.signals.schema import durations_schema
from controlplane.store.spans.cube import value_of
from controlplane.store.spans.database import read_sql
from controlplane.store.spans.filters import filter_sql
from controlplane.usage.dimensions import dimension

_LENGTHS: Final[list[tuple[str, pa.DataType]]] = [
    ("model", pa.string()),
    ("bin", pa.int64()),
    ("calls", pa.int64()),
]
LENGTHS_SCHEMA: Final = pa.schema(_LENGTHS)
_LATENCIES: Final[list[tuple[str, pa.DataType]]] = [
    ("model", pa.string()),
    ("operation", pa.string()),
    ("bucket", pa.int32()),
    ("calls", pa.int64()),
    ("duration_us", pa.int64()),
]
LATENCIES_SCHEMA: Final = pa.schema(_LATENCIES)


def latency_histogram(connection: duckdb.DuckDBPyConnection, query: CostQuery) -> pa.Table:
    """Answer `SpanReader.latencies`."""
    parameters: dict[str, Any] = {
        "tenants": list(query.tenants),
        "start": query.window.start,
        "end": query.window.end,
        "bounds": list(LATENCY_BOUNDS_US),
    }
    pairs = [(dimension(name), values) for name, values in query.filters.items()]
    sql = read_sql("latencies").format(filters=filter_sql(pairs, parameters))
    return connection.execute(sql, parameters).to_arrow_table().cast(LATENCIES_SCHEMA)


def duration_ranks(connection: duckdb.DuckDBPyConnection, query: CostQuery) -> pa.Table:
    """Answer `SpanReader.durations`."""
    parameters: dict[str, Any] = {
        "tenants": list(query.tenants),
        "start": query.window.start,
        "end": query.window.end,
    }
    pairs = [(dimension(name), values) for name, values in query.filters.items()]
    groups = "".join(f"{value_of(dimension(name))} AS {name}, " for name in query.group_by)
    sql = read_sql("durations").format(groups=groups, filters=filter_sql(pairs, parameters))
    return (
        connection.execute(sql, parameters).to_arrow_table().cast(durations_schema(query.group_by))
    )


def length_histogram(
    connection: duckdb.DuckDBPyConnection, tenants: tuple[str, ...], window: Window
) -> pa.Table:
    """Answer `SpanReader.output_lengths`."""
    parameters = {"tenants": list(tenants), "start": window.start, "end": window.end}
    found = connection.execute(read_sql("output_lengths"), parameters)
    return found.to_arrow_table().cast(LENGTHS_SCHEMA)
