"""Settlement's half of the store: calls, their members, dirty marks, the money cube."""

from datetime import datetime, timedelta
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from controlplane.core.calendar import Window
from controlplane.core.errors import StoreUnavailableError
from controlplane.core.instants import EPOCH, HOUR_US
from controlplane.ingest.join_keys import WeakEmitter
from controlplane.ingest.settlement import CHANGE_SCHEMA, Settled, Unsettled, empty_unsettled
from controlplane.ingest.span_hash import start_micros
from controlplane.store.spans.adjustments import repost_adjustments
from controlplane.store.spans.closings import ClosedPeriods, Closings
from controlplane.store.spans.cube import BOOKED_SQL, CALL_DIMENSIONS_SQL, CALL_MEASURES_SQL
from controlplane.store.spans.database import (
    SpanDatabase,
    load,
    read_sql,
    transaction,
)
from controlplane.store.spans.hour_windows import windows_of
from controlplane.store.spans.late_tables import LateTables, open_side
from controlplane.store.spans.neighborhood import Neighborhood
from controlplane.store.spans.weak_emitters import WeakEmitters

MAX_TAKEN_SPANS: Final = 100_000
"""Spans of one settlement (at least one batch): bounds a tick after a restart or an import."""

MAX_DUE_BUCKETS: Final = 2_000
MAX_ACCOUNT_ROWS: Final = 20_000
REST: Final = timedelta(seconds=5)
LONGEST_WAIT: Final = timedelta(seconds=60)
BUCKET: Final = timedelta(minutes=15)
_DAY: Final = timedelta(days=1)

_FILL_CUBE: Final = read_sql("fill_cube").format(
    dimensions=CALL_DIMENSIONS_SQL, measures=CALL_MEASURES_SQL, booked=BOOKED_SQL
)
_UNPOSTED: Final = read_sql("unposted").format(columns=", ".join(CHANGE_SCHEMA.names))


class SettleTables:
    """Implements `pipelines.ports.SettleStore`; belongs to one thread.

    A report that joins no other stays where it was written and is a call through the view `call`;
    only calls of several reports are copied, to `grouped_call`. Nearly all reports are alone, so
    settling one costs its keys and nothing else.
    """

    def __init__(self, database: SpanDatabase) -> None:
        self._connection = database.connect()
        self.weak = WeakEmitters(self._connection)
        self.closings = Closings(self._connection)
        self.late = LateTables(self._connection)
        self.neighborhood = Neighborhood(self._connection)
        self._has_keys_of = (0, 0)
        self._has_groups = True  # the temporary tables do not exist yet

    def take(self) -> Unsettled:
        """See `SettleStore.take`."""
        try:
            after, through = self._batches()
            if through == after:
                return empty_unsettled(through)
            self._has_keys_of = (after, through)
            taken = self.neighborhood.around(after=after, through=through)
            closed = self.closings.at(after)
            return taken if closed is None else replace(taken, closed_before=closed.before)
        except duckdb.Error as error:
            raise StoreUnavailableError(f"span store: {error}") from error

    def apply(self, settled: Settled, *, now: datetime) -> int:
        """See `SettleStore.apply`."""
        try:
            with transaction(self._connection):
                return self._apply(settled, now)
        except BaseException:
            self._has_groups = True  # temporary tables were rolled back too
            self.late.may_have_rows = True
            raise

    def _apply(self, settled: Settled, now: datetime) -> int:
        after, _ = self._batches()
        if settled.through == after:
            return 0
        batches = {"after": after, "through": settled.through}
        if self._has_keys_of != (after, settled.through):
            self.neighborhood.find_new_keys(**batches)
        self._connection.execute("INSERT INTO report_key FROM new_key")
        closed = self.closings.at(after)
        if closed is not None:
            first = self.late.set_apart(closed, **batches)
            self.late.book(settled, closed, first=first, now=now)
        changed = self._replace_calls(settled, closed)
        self._execute("new_lone", **batches)
        self._execute("mark_dirty", now=now)
        self._execute("count_calls")
        self._execute("progress", now=now)
        self._connection.execute("DELETE FROM tenant_progress")
        self._connection.execute("INSERT INTO tenant_progress FROM progress")
        self._connection.execute("UPDATE settle_state SET through = ?", [settled.through])
        return changed + self._count("SELECT coalesce(sum(calls), 0) FROM new_lone")

    def regroup(self, window: Window) -> Unsettled:
        """Read the grouped reports of a window as `take` would; nothing changes."""
        self._has_keys_of = (0, 0)
        self._has_groups = True
        return self.neighborhood.again(window, through=self._batches()[0])

    def compare(self, settled: Settled) -> None:
        """Leave in temporary tables which calls `settled` would replace, and by what."""
        self._has_groups = True
        self._compare_calls(settled, None)

    def resettle(self, settled: Settled, *, now: datetime) -> None:
        """Replace calls whose reports have new prices; in the caller's transaction.

        The ledger must have every version: it is told of adjustments instead.
        """
        after, _ = self._batches()
        self._execute("new_lone", after=after, through=after)  # none
        self._replace_calls(settled, self.closings.at(after), is_known=True)
        self._execute("mark_dirty", now=now)
        self._execute("count_calls")
        self._connection.execute(
            "DELETE FROM replaced_call WHERE replaced_at <= ?", [settled.through]
        )

    def is_posted(self) -> bool:
        """Whether the ledger has every call as it is."""
        return not self._count("SELECT count(*) FROM settle_state WHERE posted < through")

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The settler's connection, for work in its thread."""
        return self._connection

    def roll_up(self, *, now: datetime) -> int:
        """See `SettleStore.roll_up`."""
        self._execute(
            "due_buckets",
            open=now - BUCKET - REST,
            rested=now - REST,
            waited=now - LONGEST_WAIT,
            max_buckets=MAX_DUE_BUCKETS,
        )
        self._fold_accounts()
        return self._recompute()

    def learn(self, *, now: datetime) -> tuple[WeakEmitter, ...]:
        """See `SettleStore.learn`."""
        try:
            return self.weak.learn(now)
        except duckdb.Error as error:
            raise StoreUnavailableError(f"span store: {error}") from error

    def unposted(self) -> pa.Table:
        """See `SettleStore.unposted`."""
        try:
            posted = self._count("SELECT posted FROM settle_state")
            found = self._connection.execute(_UNPOSTED, {"posted": posted})
            return found.to_arrow_table().cast(CHANGE_SCHEMA)
        except duckdb.Error as error:
            raise StoreUnavailableError(f"span store: {error}") from error

    def posted(self, version: int) -> None:
        """See `SettleStore.posted`."""
        if version <= self._count("SELECT posted FROM settle_state"):
            return
        with transaction(self._connection):
            self._connection.execute("UPDATE settle_state SET posted = ?", [version])
            self._connection.execute("DELETE FROM replaced_call WHERE replaced_at <= ?", [version])

    def repost(self, after: int) -> None:
        """Answer every change after a version as unposted again: the ledger has lost them.

        Adjustments too, whose postings the ledger knows; calls that it is told of whole again have
        their new price already. What was replaced since and is forgotten is not taken back: too
        much is posted, never too little.
        """
        with transaction(self._connection):
            self._connection.execute("UPDATE settle_state SET posted = least(posted, ?)", [after])
            repost_adjustments(self._connection, after=after)

    def _fold_accounts(self) -> None:
        """Replace many additions to the emitters' accounts by their sums."""
        if self._count("SELECT count(*) FROM emitter_count") <= MAX_ACCOUNT_ROWS:
            return
        with transaction(self._connection):
            self._execute("account_sums")
            self._connection.execute("DELETE FROM emitter_count")
            self._connection.execute("INSERT INTO emitter_count FROM account_sum")

    def _batches(self) -> tuple[int, int]:
        """Return the watermark and the last batch to settle next."""
        row = self._connection.execute("SELECT through FROM settle_state").fetchone()
        after = int(row[0]) if row else 0
        waiting = self._connection.execute(
            "SELECT batch_seq, stored FROM ingest_batch WHERE batch_seq > ? ORDER BY batch_seq",
            [after],
        ).fetchall()
        through, spans, cut = after, 0, self.closings.next_cut(after)
        for batch_seq, stored in waiting:
            if (spans and spans + stored > MAX_TAKEN_SPANS) or (cut and batch_seq > cut):
                break
            through, spans = int(batch_seq), spans + stored
        return after, through

    def _replace_calls(
        self, settled: Settled, closed: ClosedPeriods | None, *, is_known: bool = False
    ) -> int:
        """Put the calls settled in the place of what their reports were; count the changes.

        Calls that the ledger knows keep the version that it knows them by.
        """
        if closed is not None:
            settled = open_side(settled, closed)
        if not settled.examined.num_rows:
            self._forget_groups()
            return 0
        self._has_groups = True
        self._compare_calls(settled, closed)
        if is_known:
            self._execute("keep_versions")
        gone = self._connection.execute("SELECT DISTINCT hour_of(start_time) FROM old_call")
        for window in windows_of(int(hour) for (hour,) in gone.fetchall()):
            self._execute("delete_calls", start=window.start, end=window.end)
        for window in _windows(settled.examined):
            for name in ("delete_members", "flag_grouped"):
                self._execute(name, start=window.start, end=window.end)
        self._connection.execute("INSERT INTO call_member BY NAME FROM suppressed")
        self._connection.execute("INSERT INTO grouped_call BY NAME FROM new_call")
        self._connection.execute(
            "INSERT INTO replaced_call BY NAME"
            " SELECT * EXCLUDE (is_lone), ?::BIGINT AS replaced_at FROM old_call",
            [settled.through],
        )
        return self._count(
            "SELECT count(*) FROM (SELECT call_id FROM old_call UNION SELECT call_id FROM new_call)"
        )

    def _compare_calls(self, settled: Settled, closed: ClosedPeriods | None) -> None:
        """Leave in `old_call` and `new_call` what goes and what comes, unchanged calls in none."""
        load(
            self._connection,
            regrouped=settled.calls,
            suppressed=settled.suppressed,
            examined=settled.examined,
        )
        self._connection.execute(read_sql("no_old_calls"))
        for window in _windows(settled.examined):
            for name in ("old_members", "old_calls"):
                self._execute(name, start=window.start, end=window.end)
        if self._count(read_sql("count_strays")):
            self._execute("stray_calls", **_reach(settled.examined, closed))
        for name in ("unchanged", "lone_still", "kept_calls", "drop_kept", "new_calls"):
            self._execute(name)

    def _forget_groups(self) -> None:
        """Empty what the last groups left behind; nothing to do after a tick without any."""
        if self._has_groups:
            self._connection.execute(read_sql("no_groups"))
            self._has_groups = False

    def _recompute(self) -> int:
        """Recompute the buckets in `due`, a day at a time so that each scan prunes."""
        days = self._connection.execute(
            "SELECT day_of(bucket) AS day, count(*) FROM due GROUP BY day ORDER BY day"
        ).fetchall()
        for day, _ in days:
            window = Window(EPOCH + day * _DAY, EPOCH + (day + 1) * _DAY)
            bounds = {"start": window.start, "end": window.end}
            with transaction(self._connection):
                self._execute("empty_cube", **bounds)
                self._connection.execute(_FILL_CUBE, bounds)
                self._execute("clear_marks", **bounds)
        return sum(int(buckets) for _, buckets in days)

    def _count(self, query: str) -> int:
        row = self._connection.execute(query).fetchone()
        return int(row[0]) if row else 0

    def _execute(self, name: str, **parameters: Any) -> None:
        self._connection.execute(read_sql(name), parameters)


def _windows(examined: pa.Table) -> list[Window]:
    """Where the reports examined start, and so the calls that they bill."""
    hours = np.unique(start_micros(examined) // HOUR_US)
    return windows_of(hours.tolist())


def _reach(examined: pa.Table, closed: ClosedPeriods | None) -> dict[str, datetime]:
    """Where calls that they are members of can be: a day around, and in no closed period."""
    starts = [at for at in examined.column("start_time").to_pylist() if at is not None]
    start = min(starts) - _DAY
    return {
        "start": start if closed is None else max(start, closed.before),
        "end": max(starts) + _DAY,
    }
