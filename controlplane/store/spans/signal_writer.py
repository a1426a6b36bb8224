"""The way in for what is not a span: one batch, one transaction, exactly once."""

import threading
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.core.errors import StoreUnavailableError
from controlplane.signals.samples import (
    EVENT_SCHEMA,
    MAX_INSTANCES,
    REJECTION_SCHEMA,
    SAMPLE_SCHEMA,
)
from controlplane.signals.signal_ports import SignalBatch, SignalsWritten
from controlplane.store.spans.content_tables import insert_content
from controlplane.store.spans.database import SpanDatabase, load, read_sql, transaction

_REPLAYED: Final = "SELECT samples, duplicate_samples, events, duplicate_events FROM signal_batch"


class SignalTableWriter:
    """Implements `SignalWriter`; safe from any thread, one write at a time."""

    def __init__(self, database: SpanDatabase) -> None:
        self._lock = threading.Lock()
        self._connection = database.connect()
        load(
            self._connection,
            kept_sample=SAMPLE_SCHEMA.empty_table(),
            kept_event=EVENT_SCHEMA.empty_table(),
            batch_rejection=REJECTION_SCHEMA.empty_table(),
        )

    def write_signals(self, batch: SignalBatch, *, batch_id: str) -> SignalsWritten:
        """See `SignalWriter.write_signals`."""
        with self._lock:
            try:
                found = self._connection.execute(f"{_REPLAYED} WHERE batch_id = ?", [batch_id])
                if (row := found.fetchone()) is not None:
                    return _written(row, replayed=True)
                return self._write_new(batch, batch_id)
            except duckdb.Error as error:
                raise StoreUnavailableError(f"span store: {error}") from error

    def forget_samples(self, bounds: dict[str, Any]) -> int:
        """Delete samples older than `before`."""
        with self._lock, transaction(self._connection):
            row = self._connection.execute(
                "DELETE FROM sample WHERE time < $before", bounds
            ).fetchone()
        return int(row[0]) if row else 0

    def _write_new(self, batch: SignalBatch, batch_id: str) -> SignalsWritten:
        with transaction(self._connection):
            samples = self._insert("sample", batch.samples, into="sample")
            events = self._insert("event", batch.events, into="call_event")
            counts = (
                samples,
                batch.samples.num_rows - samples,
                events,
                batch.events.num_rows - events,
            )
            self._connection.execute(
                "INSERT INTO signal_batch VALUES (?, ?, ?, ?, ?)", [batch_id, *counts]
            )
            self._account(batch, batch_id)
            insert_content(self._connection, batch.contents)
        return _written(counts, replayed=False)

    def _insert(self, table: str, rows: pa.Table, *, into: str) -> int:
        """Insert the rows that are new; return how many."""
        if not rows.num_rows:  # as in nearly every batch of spans
            self._connection.execute(f"DELETE FROM kept_{table}")  # noqa: S608
            return 0
        load(self._connection, **{f"new_{table}": rows})
        times = rows.column("time")
        bounds = {"start": pc.min(times).as_py(), "end": pc.max(times).as_py()}
        self._connection.execute(read_sql(f"insert_{table}s"), bounds)
        self._connection.execute(f"INSERT INTO {into} BY NAME FROM kept_{table}")
        found = self._connection.execute(f"SELECT count(*) FROM kept_{table}").fetchone()  # noqa: S608
        return int(found[0]) if found else 0

    def _account(self, batch: SignalBatch, batch_id: str) -> None:
        load(self._connection, batch_account=batch.accounts)
        if batch.rejections.num_rows:
            load(self._connection, batch_rejection=batch.rejections)
        else:
            self._connection.execute("DELETE FROM batch_rejection")
        self._connection.execute(read_sql("stored_of_batch"), {"batch_id": batch_id})
        self._connection.execute(read_sql("add_account"))
        self._connection.execute(read_sql("add_rejections"))
        if batch.instances.num_rows:
            load(self._connection, batch_instance=batch.instances)
            self._connection.execute(read_sql("forget_instances"))
            self._connection.execute(read_sql("add_instances"), {"most": MAX_INSTANCES})


def _written(counts: tuple[Any, ...], *, replayed: bool) -> SignalsWritten:
    samples, duplicate_samples, events, duplicate_events = (int(count) for count in counts)
    return SignalsWritten(
        samples=samples,
        duplicate_samples=duplicate_samples,
        events=events,
        duplicate_events=duplicate_events,
        replayed=replayed,
    )
