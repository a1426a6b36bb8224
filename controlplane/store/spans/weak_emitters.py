"""Emitters whose ids repeat from call to call: learned from what was stored, kept as an input."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import duckdb

from controlplane.core.instants import EPOCH, align_down, from_micros, to_micros
from controlplane.ingest.join_keys import WeakEmitter
from controlplane.store.spans.database import read_sql, transaction

LOOK_EVERY: Final = timedelta(minutes=5)
"""How often, and how far back: a few minutes show what kind of ids an emitter makes."""

FEWEST_SPANS: Final = 64
MOST_SPANS_PER_ID: Final = 8
"""On average. A cache repeats an id, too, but most ids of an emitter behind it come once."""

_HOUR: Final = timedelta(hours=1)


class WeakEmitters:
    """The table `weak_emitter`; belongs to the thread that settles."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._looked_at = EPOCH

    def learn(self, now: datetime) -> tuple[WeakEmitter, ...]:
        """See `SettleStore.learn`."""
        if now - self._looked_at < LOOK_EVERY:
            return ()
        self._looked_at = now
        found = self._connection.execute(
            read_sql("weak_emitters"),
            {
                "start": now - LOOK_EVERY,
                "end": now,
                "fewest": FEWEST_SPANS,
                "most": MOST_SPANS_PER_ID,
            },
        ).fetchall()
        since_us = to_micros(align_down(now, _HOUR) + _HOUR)
        learned = tuple(
            WeakEmitter(domain, service, scope, since_us)
            for domain, service, scope in sorted(found)
        )
        self.add(learned)
        return learned

    def add(self, weak: Iterable[WeakEmitter]) -> None:
        """Keep these too."""
        rows = [
            (one.domain, one.service_name, one.scope_name, from_micros(one.since_us))
            for one in weak
        ]
        if rows:
            with transaction(self._connection):
                self._connection.executemany("INSERT INTO weak_emitter VALUES (?, ?, ?, ?)", rows)

    def all(self) -> tuple[WeakEmitter, ...]:
        """Answer every one."""
        found = self._connection.execute(
            "SELECT domain, service_name, scope_name, epoch_us(since) FROM weak_emitter ORDER BY ALL"
        )
        return tuple(WeakEmitter(*row) for row in found.fetchall())
