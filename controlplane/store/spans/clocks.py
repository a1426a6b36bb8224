"""Emitters whose clock is ahead: their estimates, and the spans that are moved by them."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from controlplane.ingest.clock_skew import Emitter, Skew, correct, starts_ahead
from controlplane.ingest.span_hash import start_micros
from controlplane.signals.schema import SPAN_SCHEMA, TIMESTAMP
from controlplane.store.spans.compact import context_index, whole

_AHEAD: Final = "clock_ahead_us"
_EMITTER: Final = ("domain", "key_id", "service_name")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
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

    def corrected(self, spans: pa.Table) -> pa.Table:
        """Move the starts of a compact table that are in the future; `store` what was learned."""
        self._learned = ()
        starts_us = start_micros(spans)
        received_us = _micros(whole(spans, "received_at"))
        rows = starts_ahead(starts_us, received_us)
        if not len(rows):
            return spans
        index, contexts = context_index(spans)
        names = contexts.select(_EMITTER).take(pa.array(index[rows], pa.int64()))
        emitters = list(zip(*(column.to_pylist() for column in names.columns), strict=True))
        found = correct(starts_us[rows], received_us[rows], emitters, known_us=self._known)
        self._learned = found.learned
        moved_us = np.zeros_like(starts_us)
        moved_us[rows] = found.ahead_us
        started: Any = pa.array(starts_us - moved_us).cast(TIMESTAMP)
        at = spans.schema.get_field_index("start_time")
        spans = spans.set_column(at, SPAN_SCHEMA.field("start_time"), started)
        return _with_ahead(spans, moved_us)

    def store(self) -> None:
        """Write what the last batch taught, in the caller's transaction; `keep` must follow."""
        rows = [
            (*one.emitter, one.ahead_us, _EPOCH + timedelta(microseconds=one.since_us))
            for one in self._learned
        ]
        if rows:
            self._connection.executemany("INSERT INTO clock_skew VALUES (?, ?, ?, ?, ?)", rows)

    def keep(self) -> None:
        """Remember what was stored: it is committed."""
        for one in self._learned:
            self._known[one.emitter] = (*self._known.get(one.emitter, ()), one.ahead_us)
        self._learned = ()


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
