"""Emitters whose clock is ahead: their estimates, and the spans that are moved by them."""

from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from controlplane.core.instants import from_micros
from controlplane.ingest.clock_skew import Emitter, Skew, correct, starts_ahead
from controlplane.ingest.columns import Int64s
from controlplane.ingest.span_hash import Hashes, identity_hash, start_micros
from controlplane.signals.schema import SPAN_SCHEMA, TIMESTAMP
from controlplane.store.spans.compact import context_index, whole
from controlplane.store.spans.database import load, read_sql

_AHEAD: Final = "clock_ahead_us"
_EMITTER: Final = ("domain", "key_id", "service_name")
_SAID: Final = ("domain", "trace_hi", "trace_lo", "span_id", "start_time")
_FURTHEST: Final = "SELECT max(clock_ahead_us) FROM span_fact"
_LEARNED: Final = (
    "SELECT domain, key_id, service_name, list(ahead_us ORDER BY rowid) FROM clock_skew"
    " GROUP BY domain, key_id, service_name"
)


class Clocks:
    """The table `clock_skew`; the writer's lock guards it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._known: dict[Emitter, tuple[int, ...]] = {
            (domain, key_id, service): tuple(ahead_us)
            for domain, key_id, service, ahead_us in connection.execute(_LEARNED).fetchall()
        }
        self._learned: tuple[Skew, ...] = ()
        # How far any start was moved: where the starts of what is sent again may be.
        (furthest_us,) = connection.execute(_FURTHEST).fetchall()[0]
        self._furthest_us = self._further_us = int(furthest_us or 0)

    def corrected(self, spans: pa.Table) -> pa.Table:
        """Move the starts of a compact table that are in the future; `store` what was learned.

        A span that was moved before is moved alike, whatever was learned since and whenever it is
        sent again: it keeps its identity, and is a duplicate.
        """
        self._learned, self._further_us = (), self._furthest_us
        starts_us = start_micros(spans)
        received_us = _micros(whole(spans, "received_at"))
        rows = starts_ahead(starts_us, received_us)
        if not len(rows) and not self._known:
            return spans
        index, contexts = context_index(spans)
        names = contexts.select(_EMITTER)
        emitters: list[Emitter] = list(
            zip(*(one.to_pylist() for one in names.columns), strict=True)
        )
        suspects = np.array([emitter in self._known for emitter in emitters])[index]
        suspects[rows] = True
        moved_us = self._moved_before(spans, np.flatnonzero(suspects), starts_us)
        rows = rows[moved_us[rows] == 0]
        found = correct(
            starts_us[rows],
            received_us[rows],
            [emitters[context] for context in index[rows].tolist()],
            known_us=self._known,
        )
        self._learned = found.learned
        moved_us[rows] = found.ahead_us
        if not moved_us.any():
            return spans
        _move_copies_alike(moved_us, identity_hash(spans))
        self._further_us = max(self._further_us, int(moved_us.max()))
        started: Any = pa.array(starts_us - moved_us).cast(TIMESTAMP)
        at = spans.schema.get_field_index("start_time")
        spans = spans.set_column(at, SPAN_SCHEMA.field("start_time"), started)
        return _with_ahead(spans, moved_us)

    def _moved_before(
        self, spans: pa.Table, rows: npt.NDArray[np.intp], starts_us: Int64s
    ) -> Int64s:
        """Return by how much each of `rows` that is stored was moved; 0 for all others."""
        moved_us = np.zeros_like(starts_us)
        if not len(rows) or not self._furthest_us:
            return moved_us
        first, last = int(starts_us[rows].min()), int(starts_us[rows].max())
        window = {
            "start": from_micros(max(first - self._furthest_us, 0)),
            "end": from_micros(last),
        }
        said = spans.select(_SAID).take(pa.array(rows, pa.int64()))
        load(self._connection, suspect=said.append_column("position", pa.array(rows)))
        for position, ahead_us in self._connection.execute(
            read_sql("moved_before"), window
        ).fetchall():
            moved_us[position] = ahead_us
        return moved_us

    def store(self) -> None:
        """Write what the last batch taught, in the caller's transaction; `keep` must follow."""
        rows = [(*one.emitter, one.ahead_us, from_micros(one.since_us)) for one in self._learned]
        if rows:
            self._connection.executemany("INSERT INTO clock_skew VALUES (?, ?, ?, ?, ?)", rows)

    def keep(self) -> None:
        """Remember what was stored: it is committed."""
        for one in self._learned:
            self._known[one.emitter] = (*self._known.get(one.emitter, ()), one.ahead_us)
        self._learned, self._furthest_us = (), self._further_us


def _move_copies_alike(moved_us: Int64s, said: Hashes) -> None:
    """Let the copies of a span in one batch be moved alike, whenever each arrived; in place."""
    furthest = np.lexsort((-moved_us, said))
    _, first, of_row = np.unique(said[furthest], return_index=True, return_inverse=True)
    moved_us[furthest] = moved_us[furthest][first][of_row]


def _with_ahead(spans: pa.Table, moved_us: npt.NDArray[np.int64]) -> pa.Table:
    """Note how far each start was moved, beside what an earlier writer noted."""
    said: Any = pa.array(moved_us, mask=moved_us == 0)
    at = spans.schema.get_field_index(_AHEAD)
    if at < 0:
        return spans.append_column(SPAN_SCHEMA.field(_AHEAD), said)
    before = _micros(pa.compute.fill_null(whole(spans, _AHEAD), 0))
    whole_us = before + moved_us
    both: Any = pa.array(whole_us, mask=whole_us == 0)
    return spans.set_column(at, SPAN_SCHEMA.field(_AHEAD), both)


def _micros(column: Any) -> npt.NDArray[np.int64]:
    return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64)
