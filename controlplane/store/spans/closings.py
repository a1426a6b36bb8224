"""Which periods are closed, and from which batch on: calls of theirs do not change any more.

A closing takes effect after the batches that were there when it was made, so that it does not matter
how far settlement was, and a rebuilt store closes at the same place. Nothing opens a period again.
"""

from datetime import datetime

import duckdb
import msgspec
import pyarrow as pa

from controlplane.core.instants import from_micros
from controlplane.ingest.settlement import CLOSING_SCHEMA
from controlplane.store.spans.database import transaction


class ClosedPeriods(msgspec.Struct, frozen=True):
    """Everything before an instant is closed, in the calendar of a zone."""

    before: datetime
    zone: str
    through: int
    """The last batch that could still change it."""


class Closings:
    """The closings of one file, read once; belongs to the settler's thread."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        found = connection.execute(
            "SELECT epoch_us(before), zone, through FROM closing ORDER BY before"
        ).fetchall()
        self._all = [
            ClosedPeriods(from_micros(int(us)), str(zone), int(through))
            for us, zone, through in found
        ]

    def close(self, before: datetime | None, *, zone: str, now: datetime) -> datetime | None:
        """Close everything before an instant, from the next batch on; answer what is closed.

        An instant that has not come closes nothing yet, an earlier one than before opens nothing.
        """
        closed = self._all[-1].before if self._all else None
        if before is None or before > now or (closed is not None and before <= closed):
            return closed
        with transaction(self._connection):
            self._connection.execute(
                "INSERT INTO closing BY NAME SELECT $before::TIMESTAMPTZ AS before, $zone AS zone,"
                " coalesce(max(batch_seq), 0) AS through,"
                " arg_max(batch_id, batch_seq) AS batch_id, $now::TIMESTAMPTZ AS closed_at"
                " FROM ingest_batch",
                {"before": before, "zone": zone, "now": now},
            )
        row = self._connection.execute("SELECT max(through) FROM closing").fetchone()
        self._all.append(ClosedPeriods(before, zone, int(row[0]) if row else 0))
        return before

    def at(self, after: int) -> ClosedPeriods | None:
        """Answer what is closed for reports of the batches after one."""
        made = [one for one in self._all if one.through <= after]
        return made[-1] if made else None

    def next_cut(self, after: int) -> int | None:
        """Answer the batch after which more will be closed; one settlement does not span it."""
        return next((one.through for one in self._all if one.through > after), None)

    def all(self) -> pa.Table:
        """Answer CLOSING_SCHEMA rows, in the order they were made."""
        found = self._connection.execute(
            "SELECT before, zone, batch_id, closed_at FROM closing ORDER BY before"
        )
        return found.to_arrow_table().cast(CLOSING_SCHEMA)
