"""The way in: a batch of spans, exactly once, durable on return."""

import threading
from collections.abc import Iterator
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from controlplane.core.errors import StoreUnavailableError
from controlplane.core.instants import HOUR_US
from controlplane.ingest.span_hash import call_halves, content_identity_hash, start_micros
from controlplane.signals.ports import Written
from controlplane.signals.schema import SPAN_SCHEMA, TIMESTAMP
from controlplane.store.spans.clocks import Clocks
from controlplane.store.spans.compact import (
    CONTEXT,
    CONTEXT_NAMES,
    combinations,
    compact,
    context_index,
    whole,
    with_domain,
)
from controlplane.store.spans.contexts import ContextNumbers
from controlplane.store.spans.database import (
    SpanDatabase,
    load,
    read_sql,
    streamed,
    transaction,
)
from controlplane.store.spans.erasure import Tombstones
from controlplane.store.spans.seen_filter import Hashes, SeenFilter, rows_by_hour

HOURS_ALONE: Final = 2
"""Start hours of one batch that are looked up by themselves; all others are one query."""

READ_ROWS: Final = 131_072
"""Stored spans of an hour that are in memory at once while it is read."""

_IDENTITY: Final = (
    "domain",
    "trace_hi",
    "trace_lo",
    "span_id",
    "start_time",
    "content_hash",
)
_INSERT: Final = (
    "INSERT INTO span_fact BY NAME"
    " SELECT *, $batch_seq AS batch_seq, false AS is_grouped FROM batch"
)


class SpanTableWriter:
    """Implements `signals.ports.SpanWriter` on the span table; safe to call from any thread.

    One writer at a time: the lock is what makes the ledger check and the anti-join exact.
    DuckDB synchronises its log before a commit returns.
    """

    def __init__(self, database: SpanDatabase, tombstones: Tombstones) -> None:
        self.lock = threading.Lock()
        self._connection = database.connect()
        self._seen = SeenFilter(self._read_hour)
        self._contexts = ContextNumbers(self._connection)
        self._clocks = Clocks(self._connection)
        # The ledger knows what it has by this number: a store that is made anew, or put back from
        # a copy, must not use one again. Microseconds of the clock are ahead of any that were.
        row = self._connection.execute(
            "SELECT greatest(coalesce(max(batch_seq), 0), epoch_us(now())) FROM ingest_batch"
        ).fetchone()
        self._last_seq = int(row[0]) if row else 0
        self._tombstones = tombstones

    def write(self, spans: pa.Table, *, batch_id: str) -> Written:
        """See `SpanWriter.write`."""
        return self.write_compact(compact(spans), batch_id=batch_id)

    def write_compact(self, spans: pa.Table, *, batch_id: str) -> Written:
        """Do what `write` does with a table that `compact` made."""
        with self.lock:
            try:
                if self._is_recorded(batch_id):
                    return Written(stored=0, duplicates=spans.num_rows, replayed=True)
                return self._write_new(with_domain(spans), batch_id)
            except duckdb.Error as error:
                raise StoreUnavailableError(f"span store: {error}") from error

    def number_contexts(self, contexts: pa.Table) -> npt.NDArray[np.int64]:
        """Return the number of each row of CONTEXT_NAMES columns, keeping those that are new.

        Raises:
            StoreUnavailableError: none was kept.
        """
        if not contexts.num_rows:
            return np.zeros(0, dtype=np.int64)
        index, first = combinations([whole(contexts, n) for n in CONTEXT_NAMES], contexts.num_rows)
        with self.lock:
            with transaction(self._connection):
                numbers = self._contexts.number(contexts.take(pa.array(first, pa.int64())))
            self._contexts.keep()
        return numbers[index]

    def _is_recorded(self, batch_id: str) -> bool:
        found = self._connection.execute(
            "SELECT 1 FROM ingest_batch WHERE batch_id = ?", [batch_id]
        )
        return found.fetchone() is not None

    def _write_new(self, spans: pa.Table, batch_id: str) -> Written:
        spans = self._clocks.corrected(spans)
        hashes = content_identity_hash(spans)
        hours = start_micros(spans) // HOUR_US
        fresh = self._fresh(spans, hashes, hours)
        batch = spans if fresh is None else spans.filter(pa.array(fresh))
        written = Written(
            stored=batch.num_rows, duplicates=spans.num_rows - batch.num_rows, replayed=False
        )
        seq = self._last_seq + 1
        with transaction(self._connection):
            index, contexts = context_index(batch)
            tenants = contexts.column("tenant").take(index).to_pylist
            batch = self._tombstones.bury(self._connection, batch, tenants=tenants)
            self._insert(batch, self._contexts.number(contexts)[index], seq)
            self._clocks.store()
            load(self._connection, counted=_counts(batch, index, contexts))
            self._connection.execute(read_sql("count_stored"))
            self._connection.execute(
                "INSERT INTO ingest_batch VALUES (?, ?, ?, ?)",
                [batch_id, seq, written.stored, written.duplicates],
            )
        self._contexts.keep()
        self._clocks.keep()
        self._last_seq = seq
        self._seen.add(
            hashes if fresh is None else hashes[fresh], hours if fresh is None else hours[fresh]
        )
        return written

    def _insert(self, batch: pa.Table, numbers: npt.NDArray[np.int64], seq: int) -> None:
        call_hi, call_lo = call_halves(batch)
        rows = batch.drop_columns([CONTEXT, "domain"])
        for name, values in (("context_id", numbers), ("call_hi", call_hi), ("call_lo", call_lo)):
            rows = rows.append_column(name, pa.array(values))
        with streamed(self._connection, "batch", rows):
            self._connection.execute(_INSERT, {"batch_seq": seq})

    def _fresh(
        self, spans: pa.Table, hashes: Hashes, hours: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_] | None:
        """Mark the rows to store; None is all of them."""
        suspects = self._seen.may_hold(hashes, hours)
        again = _occurs_before(hashes)
        suspects |= again
        if not suspects.any():
            return None
        rows = np.flatnonzero(suspects)
        known = np.zeros(len(hashes), dtype=np.bool_)
        known[self._known_positions(spans.take(rows), rows, hours[rows])] = True
        fresh = ~known
        if again.any():
            _leave_firsts(fresh, spans, np.flatnonzero(np.isin(hashes, hashes[again])))
        return fresh

    def _known_positions(
        self, suspects: pa.Table, rows: npt.NDArray[np.intp], hours: npt.NDArray[np.int64]
    ) -> list[int]:
        suspects = suspects.select(_IDENTITY).append_column("position", pa.array(rows))
        known: list[int] = []
        for window, members in _look_ups(hours):
            load(self._connection, suspect=suspects.take(members))
            found = self._connection.execute(read_sql("known_rows"), window)
            known.extend(int(row[0]) for row in found.fetchall())
        return known

    def _read_hour(self, hour: int) -> Iterator[Hashes]:
        # A part at a time: a busy hour has tens of millions of rows, of which the hashes are enough.
        schema = pa.schema([SPAN_SCHEMA.field(name) for name in _IDENTITY])
        stored = self._connection.execute(read_sql("stored_ids"), _bounds(hour, hour))
        for part in stored.to_arrow_reader(READ_ROWS):
            yield content_identity_hash(pa.Table.from_batches([part]).cast(schema))


def _counts(batch: pa.Table, index: npt.NDArray[np.int32], contexts: pa.Table) -> pa.Table:
    """Count the spans of each context, and find the last start among them."""
    spans = np.bincount(index, minlength=contexts.num_rows)
    newest = np.zeros(contexts.num_rows, dtype=np.int64)
    np.maximum.at(newest, index, start_micros(batch))
    table = contexts.select(["tenant", "service_name", "dialect"])
    table = table.append_column("spans", pa.array(spans, pa.int64()))
    table = table.append_column("newest", pa.array(newest, pa.int64()).cast(TIMESTAMP))
    return table.filter(pa.array(spans > 0))


def _look_ups(
    hours: npt.NDArray[np.int64],
) -> Iterator[tuple[dict[str, Any], npt.NDArray[np.intp]]]:
    """Divide rows into look-ups: the fullest hours alone, and all others together."""
    groups = rows_by_hour(hours)
    fullest = sorted(groups, key=lambda hour: (-len(groups[hour]), hour))
    for hour in fullest[:HOURS_ALONE]:
        yield _bounds(hour, hour), groups[hour]
    if others := fullest[HOURS_ALONE:]:
        yield _bounds(min(others), max(others)), np.concatenate([groups[one] for one in others])


def _bounds(first: int, last: int) -> dict[str, Any]:
    """Return the window from the start of one hour to the end of another."""
    start, end = (pa.scalar(at * HOUR_US, TIMESTAMP).as_py() for at in (first, last + 1))
    return {"start": start, "end": end}


def _leave_firsts(
    fresh: npt.NDArray[np.bool_], spans: pa.Table, rows: npt.NDArray[np.intp]
) -> None:
    """Of `rows`, whose hashes occur more than once, leave only each identity's first fresh."""
    seen: set[tuple[object, ...]] = set()
    for position, identity in zip(rows.tolist(), _rows(spans.take(rows)), strict=True):
        if identity in seen:
            fresh[position] = False
        seen.add(identity)


def _occurs_before(hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Mark every occurrence of a hash in the batch but its first."""
    ordered = np.sort(hashes)  # in a tenth of the time of finding the first of each
    if not (ordered[1:] == ordered[:-1]).any():
        return np.zeros(len(hashes), dtype=np.bool_)
    again = np.ones(len(hashes), dtype=np.bool_)
    _, first = np.unique(hashes, return_index=True)
    again[first] = False
    return again


def _rows(spans: pa.Table) -> list[tuple[object, ...]]:
    return list(zip(*(spans.column(name).to_pylist() for name in _IDENTITY), strict=True))
