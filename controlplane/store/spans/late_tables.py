"""Reports of closed periods: stored and marked, and what they change is booked in the open one (C7).

No call that starts before the closing is touched by what is settled after it. What its reports,
the late ones with them, make of it now is compared with what was booked of it last, and the
difference is one correction, in the transaction that settles the reports.
"""

from datetime import datetime, timedelta
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.ingest.settlement import IDENTITY_NAMES, Settled
from controlplane.ingest.span_hash import call_ids
from controlplane.pricing.rerate import LATE
from controlplane.store.spans.adjustments import Booking, book_adjustments
from controlplane.store.spans.closings import ClosedPeriods
from controlplane.store.spans.correction_sql import LATE_CORRECTIONS
from controlplane.store.spans.database import load, read_sql

_DAY: Final = timedelta(days=1)
_SIDE: Final = ("call_id", *IDENTITY_NAMES)
_FIRST: Final = (
    "SELECT min(start_time) FROM span_fact"
    " WHERE batch_seq > $after AND batch_seq <= $through AND start_time < $closed"
)


class LateTables:
    """Part of `SettleTables`; every method belongs in its transaction."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.may_have_rows = True
        """Whether the temporary table may hold an earlier batch's: it does not exist yet."""

    def set_apart(self, closed: ClosedPeriods, *, after: int, through: int) -> datetime | None:
        """Mark the new reports of closed periods; answer when the first span starts."""
        batches: dict[str, Any] = {"after": after, "through": through, "closed": closed.before}
        found = self._connection.execute(_FIRST, batches).to_arrow_table()
        first: datetime | None = found.column(0)[0].as_py()
        if first is not None or self.may_have_rows:
            self._connection.execute(read_sql("late_reports"), batches)
            self.may_have_rows = first is not None
        if first is not None:
            self._connection.execute(read_sql("late_flags"), batches)
            self._connection.execute(read_sql("late_marks"))
            self._connection.execute(read_sql("late_counts"))
        return first

    def book(
        self, settled: Settled, closed: ClosedPeriods, *, first: datetime | None, now: datetime
    ) -> None:
        """Book how the closed calls of these reports differ from what was booked of them.

        Args:
            settled: all of it, the open calls too.
            closed: what is closed.
            first: when the first late report starts.
            now: when the correction is booked.
        """
        start = _first_of(settled.examined, first)
        if start is None or start >= closed.before:
            return
        bounds = {"start": start - _DAY, "closed": closed.before}
        examined = settled.examined
        names: Any = call_ids(examined) if examined.num_rows else pa.array([], pa.string())
        load(
            self._connection,
            late_call=settled.calls.filter(_before(closed.before, settled.calls)),
            late_examined=examined.append_column("call_id", names),
            settled_side=pa.concat_tables(
                [settled.calls.select(_SIDE), settled.suppressed.select(_SIDE)]
            ),
        )
        self._connection.execute(read_sql("late_names"), bounds)
        if self._is_booked(settled.through):
            return
        asked = {"start": bounds["start"], "end": closed.before}
        made = self._connection.execute(LATE_CORRECTIONS, asked).to_arrow_table()
        book_adjustments(
            self._connection,
            made,
            Booking(run_id=LATE, price_version="", zone=closed.zone, now=now),
        )

    def take_over(self) -> None:
        """Take it that everything late in the batches there are is booked."""
        self._connection.execute(
            "UPDATE adjustment_state"
            " SET late_through = (SELECT coalesce(max(batch_seq), 0) FROM ingest_batch)"
        )

    def _is_booked(self, through: int) -> bool:
        row = self._connection.execute("SELECT late_through FROM adjustment_state").fetchone()
        return row is not None and through <= int(row[0])


def open_side(settled: Settled, closed: ClosedPeriods) -> Settled:
    """Return what of a settlement may be applied: nothing that starts in a closed period."""
    return Settled(
        through=settled.through,
        calls=settled.calls.filter(pc.invert(_before(closed.before, settled.calls))),
        suppressed=settled.suppressed.filter(pc.invert(_before(closed.before, settled.suppressed))),
        examined=settled.examined.filter(pc.invert(_before(closed.before, settled.examined))),
        split_calls=settled.split_calls,
    )


def _before(instant: datetime, rows: pa.Table) -> Any:
    starts = rows.column("start_time")
    return pc.less(starts, pa.scalar(instant, starts.type))


def _first_of(examined: pa.Table, first: datetime | None) -> datetime | None:
    """Return the earliest start of reports examined and late."""
    start: datetime | None = pc.min(examined.column("start_time")).as_py()
    return min((at for at in (start, first) if at is not None), default=None)
