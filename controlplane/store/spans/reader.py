"""The way out: every answer from one moment of the store, restricted to the query's tenants."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import duckdb
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.core.instants import MICROSECOND, from_micros
from controlplane.signals.queries import (
    LONGEST_CALL,
    MAX_BATCH_ROWS,
    CallQuery,
    CostQuery,
    TraceQuery,
)
from controlplane.signals.schema import (
    CALL_SCHEMA,
    CORRECTION_SCHEMA,
    CORRECTION_SIDE_SCHEMA,
    DUPLICATES_SCHEMA,
    SPAN_SCHEMA,
    SUPPRESSED_SCHEMA,
    TIMESTAMP,
)
from controlplane.store.spans.correction_sql import CORRECTION_SIDES, CORRECTIONS, SIDES_OF_CALLS
from controlplane.store.spans.cost_answer import cost_answer, repeated_answer
from controlplane.store.spans.cube import bounded, value_of
from controlplane.store.spans.database import SpanDatabase, read_sql
from controlplane.store.spans.filters import filter_sql
from controlplane.store.spans.histograms import duration_ranks, latency_histogram, length_histogram
from controlplane.store.spans.rows import from_rows
from controlplane.usage.cost_plan import plan_costs, plan_repeats
from controlplane.usage.dimensions import dimension
from controlplane.usage.shared_costs import share_costs

TRACE_SCHEMA: Final = SPAN_SCHEMA.append(pa.field("call_id", pa.string())).append(
    pa.field("suppressed_reason", pa.string())
)
_ACCOUNTING: Final[list[tuple[str, pa.DataType]]] = [
    ("service_name", pa.string()),
    ("dialect", pa.string()),
    ("stored", pa.int64()),
    ("calls", pa.int64()),
    ("suppressed", pa.int64()),
    ("last_event_time", TIMESTAMP),
]
_COST: Final[tuple[str, pa.DataType]] = ("cost_nusd", pa.int64())
ACCOUNTING_SCHEMA: Final = pa.schema(_ACCOUNTING)
_BEFORE: Final = (
    " AND start_time <= $before_time AND (start_time < $before_time OR call_id < $before_id)"
)
_CALL_ID: Final = re.compile("call_([0-9a-f]{16})([0-9a-f]{16})")


class SpanTableReader:
    """Implements `signals.ports.SpanReader`; any number of threads may ask at once."""

    def __init__(self, database: SpanDatabase) -> None:
        self._database = database

    def costs(self, query: CostQuery) -> pa.Table:
        """See `SpanReader.costs`."""
        plan_costs(query)  # refuse before anything is read
        with self._database.reading() as connection:
            pools = connection.execute(read_sql("pools"))
            return share_costs(
                lambda asked: cost_answer(connection, asked, plan_costs(asked)),
                query,
                pools=[str(team) for (team,) in pools.fetchall()],
            )

    def ended_costs(
        self, tenants: tuple[str, ...], window: Window, group_by: tuple[str, ...]
    ) -> pa.Table:
        """See `SpanReader.ended_costs`."""
        groups = [dimension(name) for name in group_by]
        parameters: dict[str, Any] = {
            "earliest": window.start - LONGEST_CALL,
            "longest_us": LONGEST_CALL // MICROSECOND,
            "start": window.start,
            "end": window.end,
            "tenants": list(tenants),
        }
        sql = read_sql("ended_costs").format(
            groups="".join(f"{value_of(one)} AS {one.name}, " for one in groups),
            cost=bounded("sum(cost_nusd)"),
            order=", ".join(["cost_nusd DESC", *(f"{one.name} NULLS LAST" for one in groups)]),
        )
        schema = pa.schema([(one.name, pa.string()) for one in groups] + [_COST])
        with self._database.reading() as connection:
            return _table(connection.execute(sql, parameters), schema)

    def repeated(self, query: CostQuery) -> pa.Table:
        """See `SpanReader.repeated`."""
        plan = plan_repeats(query)
        with self._database.reading() as connection:
            return repeated_answer(connection, query, plan)

    def calls(self, query: CallQuery) -> pa.Table:
        """See `SpanReader.calls`."""
        parameters: dict[str, Any] = {
            "start": query.window.start,
            "end": query.window.end,
            "tenants": list(query.tenants),
            "limit": query.limit,
        }
        pairs = [(dimension(name), values) for name, values in query.filters.items()]
        before = ""
        if query.before is not None:
            before = _BEFORE
            parameters["before_time"], parameters["before_id"] = query.before
        text = {"filters": filter_sql(pairs, parameters), "before": before}
        columns = ", ".join(CALL_SCHEMA.names)
        with self._database.reading() as connection:
            found = connection.execute(read_sql("page_start").format(**text), parameters)
            start = found.to_arrow_table().column(0)[0].as_py()
            if start is None:
                return CALL_SCHEMA.empty_table()
            sql = read_sql("call_page").format(columns=columns, **text)
            return _table(connection.execute(sql, {**parameters, "start": start}), CALL_SCHEMA)

    def call_batches(self, query: CallQuery) -> Iterator[pa.Table]:
        """See `SpanReader.call_batches`."""
        parameters: dict[str, Any] = {
            "start": query.window.start,
            "end": query.window.end,
            "tenants": list(query.tenants),
        }
        pairs = [(dimension(name), values) for name, values in query.filters.items()]
        sql = read_sql("call_batches").format(
            columns=", ".join(CALL_SCHEMA.names), filters=filter_sql(pairs, parameters)
        )
        with self._database.reading() as connection:
            found = connection.execute(sql, parameters)
            for batch in found.to_arrow_reader(MAX_BATCH_ROWS):
                if batch.num_rows:
                    yield pa.Table.from_batches([batch]).cast(CALL_SCHEMA)

    def call(self, tenants: tuple[str, ...], call_id: str) -> pa.Table:
        """See `SpanReader.call`."""
        digits = _CALL_ID.fullmatch(call_id)
        if digits is None:
            return CALL_SCHEMA.empty_table()
        named = {"call_id": call_id, "call_hi": int(digits[1], 16), "call_lo": int(digits[2], 16)}
        columns = ", ".join(CALL_SCHEMA.names)
        with self._database.reading() as connection:
            starts = connection.execute(read_sql("call_starts"), named).to_arrow_table()
            for start in starts.column(0).to_pylist():
                sql = read_sql("call_named").format(columns=columns)
                at = {"call_id": call_id, "start": start, "tenants": list(tenants)}
                found = _table(connection.execute(sql, at), CALL_SCHEMA)
                if found.num_rows:
                    return found
        return CALL_SCHEMA.empty_table()

    def corrections(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SpanReader.corrections`."""
        asked = {"tenants": list(tenants), "start": window.start, "end": window.end}
        with self._database.reading() as connection:
            return _table(connection.execute(CORRECTIONS, asked), CORRECTION_SCHEMA)

    def correction_sides(
        self, tenants: tuple[str, ...], window: Window, *, of_calls: bool = False
    ) -> Iterator[pa.Table]:
        """See `SpanReader.correction_sides`."""
        asked = {"tenants": list(tenants), "start": window.start, "end": window.end}
        with self._database.reading() as connection:
            found = connection.execute(SIDES_OF_CALLS if of_calls else CORRECTION_SIDES, asked)
            for batch in found.to_arrow_reader(MAX_BATCH_ROWS):
                if batch.num_rows:
                    yield pa.Table.from_batches([batch]).cast(CORRECTION_SIDE_SCHEMA)

    def adjustments(self) -> pa.Table:
        """See `SpanSource.adjustments`."""
        with self._database.reading() as connection:
            found = connection.execute("FROM adjustment ORDER BY posting, call_id")
            return found.to_arrow_table()

    def trace(self, query: TraceQuery) -> pa.Table:
        """See `SpanReader.trace`."""
        parameters: dict[str, Any] = {
            "trace_hi": query.trace_hi,
            "trace_lo": query.trace_lo,
            "tenants": list(query.tenants),
        }
        with self._database.reading() as connection:
            found = connection.execute(read_sql("trace_bounds"), parameters).to_arrow_table()
            start, end = (found.column(at)[0].as_py() for at in (0, 1))
            if start is None:
                return TRACE_SCHEMA.empty_table()
            columns = ", ".join(f"spans.{name}" for name in SPAN_SCHEMA.names)
            rows = connection.execute(
                read_sql("trace").format(columns=columns),
                {**parameters, "start": start, "end": end},
            ).to_arrow_table()
        return from_rows(rows).cast(TRACE_SCHEMA)

    def suppressed(self, call_ids: list[str]) -> pa.Table:
        """See `SpanReader.suppressed`."""
        with self._database.reading() as connection:
            found = connection.execute(read_sql("suppressed"), {"call_ids": call_ids})
            return _table(found, SUPPRESSED_SCHEMA)

    def duplicates(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SpanReader.duplicates`."""
        parameters = {"tenants": list(tenants), "start": window.start, "end": window.end}
        with self._database.reading() as connection:
            return _table(connection.execute(read_sql("duplicates"), parameters), DUPLICATES_SCHEMA)

    def accounting(self, tenants: tuple[str, ...]) -> pa.Table:
        """See `SpanReader.accounting`."""
        with self._database.reading() as connection:
            found = connection.execute(read_sql("accounting"), {"tenants": list(tenants)})
            return _table(found, ACCOUNTING_SCHEMA)

    def tenants(self) -> tuple[str, ...]:
        """See `SpanReader.tenants`."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT DISTINCT tenant FROM tenant_progress").fetchall()
        return tuple(sorted(row[0] for row in rows))

    def latencies(self, query: CostQuery) -> pa.Table:
        """See `SpanReader.latencies`."""
        with self._database.reading() as connection:
            return latency_histogram(connection, query)

    def durations(self, query: CostQuery) -> pa.Table:
        """See `SpanReader.durations`."""
        with self._database.reading() as connection:
            return duration_ranks(connection, query)

    def output_lengths(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SpanReader.output_lengths`."""
        with self._database.reading() as connection:
            return length_histogram(connection, tenants, window)

    def batches(self) -> Iterator[tuple[str, pa.Table]]:
        """Yield every stored batch as it was written, oldest first: (batch id, SPAN_SCHEMA)."""
        with self._database.reading() as connection:
            listed = connection.execute(
                "SELECT batch_id, batch_seq FROM ingest_batch ORDER BY batch_seq"
            ).fetchall()
            sql = read_sql("batch").format(columns=", ".join(SPAN_SCHEMA.names))
            for batch_id, batch_seq in listed:
                rows = connection.execute(sql, {"batch_seq": batch_seq}).to_arrow_table()
                yield batch_id, from_rows(rows).cast(SPAN_SCHEMA)

    def data_through(self, tenants: tuple[str, ...]) -> datetime | None:
        """See `SpanReader.data_through`."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT epoch_us(max(data_through)) FROM tenant_progress WHERE tenant = ANY(?)",
                [list(tenants)],
            ).fetchone()
        if row is None or row[0] is None:
            return None
        return from_micros(int(row[0]))


def _table(found: duckdb.DuckDBPyConnection, schema: pa.Schema) -> pa.Table:
    return found.to_arrow_table().cast(schema)
