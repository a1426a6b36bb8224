"""Recorded text, in a table that nothing but this reads."""

import threading
from datetime import datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.core.errors import StoreUnavailableError
from controlplane.signals.content import CONTENT_SCHEMA
from controlplane.signals.queries import TraceQuery
from controlplane.store.spans.database import SpanDatabase, load, read_sql, transaction


class ContentTables:
    """Implements `ContentKeeper`; safe from any thread."""

    def __init__(self, database: SpanDatabase) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._connection = database.connect()

    def content(self, query: TraceQuery) -> pa.Table:
        """See `ContentKeeper.content`."""
        asked = {
            "trace_hi": query.trace_hi,
            "trace_lo": query.trace_lo,
            "tenants": list(query.tenants),
        }
        with self._database.reading() as connection:
            found = connection.execute(read_sql("content"), asked).to_arrow_table()
        return found.select(CONTENT_SCHEMA.names).cast(CONTENT_SCHEMA)

    def forget_content(self, *, before: datetime) -> int:
        """See `ContentKeeper.forget_content`."""
        with self._lock, transaction(self._connection):
            row = self._connection.execute(
                "DELETE FROM span_content WHERE start_time < ?", [before]
            ).fetchone()
        return int(row[0]) if row else 0


def insert_content(connection: duckdb.DuckDBPyConnection, contents: pa.Table) -> None:
    """Add what is new of a batch, inside the caller's transaction.

    Raises:
        StoreUnavailableError: the columns are not this release's.
    """
    if contents.num_rows == 0:
        return
    if contents.schema.names != CONTENT_SCHEMA.names:
        raise StoreUnavailableError("the columns are not this release's; use one release")
    load(connection, new_content=contents)
    connection.execute(read_sql("drop_buried_content"))
    times = contents.column("start_time")
    bounds = {"start": pc.min(times).as_py(), "end": pc.max(times).as_py()}
    connection.execute(read_sql("insert_content"), bounds)
