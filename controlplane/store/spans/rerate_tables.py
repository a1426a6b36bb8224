"""Re-rating in the store: reports get new prices, calls follow, adjustments say what changed.

Everything runs in the settler's thread, between two ticks, some hours at a time: first their reports,
then the calls that several reports make, settled anew. Each part is one transaction, and done
again it changes nothing, so that a run that was cut short is finished by running it again.
"""

from datetime import datetime, timedelta
from typing import Any, Final

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.core.calendar import Window
from controlplane.core.errors import StoreUnavailableError
from controlplane.core.instants import EPOCH
from controlplane.ingest.calls import settle
from controlplane.ingest.prompts import Reprice
from controlplane.ingest.settlement import CHANGE_SCHEMA
from controlplane.pricing.rerate import (
    ADJUSTED_COLUMNS,
    ADJUSTMENT_SCHEMA,
    PRICE_COLUMNS,
    RerateOrder,
)
from controlplane.signals.schema import PRICED, SPAN_SCHEMA
from controlplane.store.spans.adjustments import (
    Booking,
    book_adjustments,
    due_corrections,
    take_adjustments,
)
from controlplane.store.spans.compact import CONTEXT_NAMES
from controlplane.store.spans.database import checkpoint, load, read_sql, transaction
from controlplane.store.spans.settle_tables import SettleTables
from controlplane.store.spans.writer import SpanTableWriter

MAX_PART_REPORTS: Final = 60_000
"""Reports of one transaction, unless an hour has more: what is held at once, some kilobytes each. A
quarter of a million took twice the memory and no less time a call."""
PARTS_A_CHECKPOINT: Final = 24
"""Committed parts, a million calls, before the log is written into the file: each leaves 2 MB of old
versions in memory until then, and DuckDB itself waits for a log of some eight million calls. Costs
0.1 s, but seconds and memory up to its limit where what was stored was never put in order before."""
_HOUR: Final = timedelta(hours=1)
_PRICED_NAMES: Final = tuple(field.name for field in PRICED)
_READ: Final = tuple(name for name in SPAN_SCHEMA.names if name != "attributes")
_REPORTS: Final = read_sql("rated_reports").format(columns=", ".join(_READ))
_RESETTLED: Final = read_sql("resettled").format(
    columns=", ".join(
        f"coalesce(old_call.{name}, new_call.{name}) AS {name}"
        for name in ADJUSTED_COLUMNS
        if name != "call_id"
    )
    + ", call_id"
)
_BOOKED: Final = {
    "start_time": "CASE WHEN is_correction THEN applied_at ELSE start_time END AS start_time",
    "duration_us": "0::BIGINT AS duration_us",
}
_UNSAID: Final = ("response_id", "gateway_call_id")
_UNPOSTED: Final = read_sql("unposted_adjustments").format(
    columns=", ".join(
        _BOOKED.get(name, f"NULL AS {name}" if name in _UNSAID else name)
        for name in CHANGE_SCHEMA.names
    )
)
Column = Any


class RerateTables:
    """Implements `pipelines.rerate.RerateStore`; belongs to the settler's thread."""

    def __init__(self, tables: SettleTables, writer: SpanTableWriter) -> None:
        self._tables = tables
        self._writer = writer
        self._connection = tables.connection
        self.most = MAX_PART_REPORTS
        self.parts_a_checkpoint = PARTS_A_CHECKPOINT
        self._parts_in_log = 0

    def is_ready(self) -> bool:
        """Whether the ledger has every call as it is now; a re-rate waits for that."""
        return self._tables.is_posted()

    def days(self, window: Window) -> list[Window]:
        """Return the parts of a window that have reports, each of hours of one UTC day."""
        found = self._connection.execute(
            "SELECT epoch_us(start_time) // 3600000000 AS hour, count(*) FROM span_fact"
            " WHERE start_time >= $start AND start_time < $end GROUP BY hour ORDER BY hour",
            {"start": window.start, "end": window.end},
        ).fetchall()
        parts: list[Window] = []
        held = 0
        for hour, reports in found:
            start = EPOCH + int(hour) * _HOUR
            if parts and (hour // 24 == _hour_of(parts[-1]) // 24) and held + reports <= self.most:
                parts[-1] = Window(parts[-1].start, start + _HOUR)
                held += reports
            else:
                parts.append(Window(start, start + _HOUR))
                held = reports
        return [part.clip(window) for part in parts]

    def preview(self, order: RerateOrder, day: Window, reprice: Reprice) -> pa.Table:
        """Answer the ADJUSTMENT_SCHEMA rows that `apply` would make of a day; nothing changes.

        Raises:
            StoreUnavailableError: try again.
        """
        try:
            reports, repriced = self._repriced(order, day, reprice)
            lone = _differences(reports, repriced)
            unsettled = self._tables.regroup(day)
            grouped = unsettled.grouped
            if not grouped.num_rows:
                return self._as_booked(lone, order, day)
            rated = _price_inside(grouped, order, window=_side(order, day), reprice=reprice)
            again = msgspec.structs.replace(unsettled, grouped=rated)
            self._tables.compare(settle(again, reprice=reprice))
            # Each call is said once, in the part of its home, whatever parts its reports are in.
            changed = _of(day, self._connection.execute(_RESETTLED).to_arrow_table())
        except duckdb.Error as error:
            raise StoreUnavailableError(f"span store: {error}") from error
        # A call by itself may share a key with others: it was settled again with them.
        said = pc.is_in(lone.column("call_id"), value_set=changed.column("call_id"))
        made = [lone.filter(pc.invert(said)), _typed(changed)]
        return self._as_booked(pa.concat_tables(made), order, day)

    def apply(
        self, order: RerateOrder, day: Window, reprice: Reprice, *, now: datetime
    ) -> pa.Table:
        """Give a day's reports and calls their new prices; answer the adjustments made.

        Raises:
            StoreUnavailableError: nothing of the day changed; call again.
        """
        self._shorten_log()
        if order.closed_before is not None and day.start < order.closed_before:
            made = self._correct(order, day, reprice, now=now)
        else:
            made = self._change(order, day, reprice, now=now)
        self._parts_in_log += 1
        return made

    def _change(
        self, order: RerateOrder, day: Window, reprice: Reprice, *, now: datetime
    ) -> pa.Table:
        """Give an open day's reports and calls their new prices."""
        reports, repriced = self._repriced(order, day, reprice)
        lone = _differences(reports, repriced)
        changed = _changed_rows(reports, repriced)
        contexts = self._writer.number_contexts(repriced.filter(changed).select(CONTEXT_NAMES))
        with transaction(self._connection):
            self._write_reports(repriced.filter(changed), contexts, day)
            unsettled = self._tables.regroup(day)
            made = [lone]
            if unsettled.grouped.num_rows:
                settled = settle(unsettled, reprice=reprice)
                self._tables.resettle(settled, now=now)
                made.append(_typed(self._connection.execute(_RESETTLED).to_arrow_table()))
            adjustments = pa.concat_tables(made)
            book_adjustments(self._connection, adjustments, _booking(order, now))
            self._mark(lone, now=now)
        return adjustments

    def unposted(self) -> tuple[int, pa.Table]:
        """Answer the next posting the ledger has not seen, and its CHANGE_SCHEMA rows.

        `version` is the posting's number, negated: never a settlement's.
        """
        posting = self._number(
            "SELECT coalesce(min(posting), 0) FROM adjustment"
            " WHERE posting > (SELECT posted FROM adjustment_state)"
        )
        if not posting:
            return 0, CHANGE_SCHEMA.empty_table()
        found = self._connection.execute(_UNPOSTED, {"posting": posting})
        return posting, found.to_arrow_table().cast(CHANGE_SCHEMA)

    def posted(self, posting: int) -> None:
        """Note that the ledger has every adjustment up to a posting."""
        with transaction(self._connection):
            self._connection.execute("UPDATE adjustment_state SET posted = ?", [posting])

    def take_adjustments(self, adjustments: pa.Table, *, now: datetime) -> None:
        """See `pipelines.ports.RebuildTarget.take_adjustments`."""
        with transaction(self._connection):
            take_adjustments(self._connection, adjustments, now=now)
            self._tables.late.take_over()

    def _repriced(
        self, order: RerateOrder, day: Window, reprice: Reprice
    ) -> tuple[pa.Table, pa.Table]:
        parameters = {"start": day.start, "end": day.end, "tenants": list(order.tenants)}
        found = self._connection.execute(_REPORTS, parameters).to_arrow_table()
        for name in _READ:
            at = found.schema.get_field_index(name)
            field = SPAN_SCHEMA.field(name)
            found = found.set_column(at, field, found.column(at).cast(field.type))
        repriced = reprice(found)
        return found, repriced.select(found.column_names)

    def _write_reports(self, changed: pa.Table, contexts: Column, day: Window) -> None:
        if not changed.num_rows:
            return
        rows = changed.select(["row_number", "cost_nusd"]).append_column(
            "context_id", pa.array(contexts)
        )
        load(self._connection, repriced=rows)
        bounds = {"start": day.start, "end": day.end}
        self._connection.execute(read_sql("reprice_facts"), bounds)

    def _mark(self, lone: pa.Table, *, now: datetime) -> None:
        load(self._connection, moved=lone.select(["tenant", "start_time"]))
        self._connection.execute(
            "INSERT INTO dirty (tenant, bucket, marked_at)"
            " SELECT DISTINCT tenant, bucket_of(start_time), $now FROM moved",
            {"now": now},
        )

    def _shorten_log(self) -> None:
        """Between two parts, write the log into the file; where others write, before a later one."""
        if self._parts_in_log >= self.parts_a_checkpoint and checkpoint(self._connection):
            self._parts_in_log = 0

    def _correct(
        self, order: RerateOrder, day: Window, reprice: Reprice, *, now: datetime
    ) -> pa.Table:
        """Book what a closed day's calls should have cost as corrections of now."""
        corrections = self.preview(order, day, reprice)
        with transaction(self._connection):
            book_adjustments(self._connection, corrections, _booking(order, now))
        return corrections

    def _as_booked(self, adjustments: pa.Table, order: RerateOrder, day: Window) -> pa.Table:
        """Return an open day's adjustments as they are, a closed day's as corrections."""
        if order.closed_before is None or day.start >= order.closed_before:
            return adjustments
        return due_corrections(self._connection, adjustments, day, tenants=order.tenants)

    def _number(self, query: str) -> int:
        row = self._connection.execute(query).fetchone()
        return int(row[0]) if row else 0


def _booking(order: RerateOrder, now: datetime) -> Booking:
    return Booking(run_id=order.run_id, price_version=order.price_version, zone=order.zone, now=now)


def _changed_rows(before: pa.Table, after: pa.Table) -> Column:
    """Mark the rows of which any price column differs; NULL equals NULL."""
    changed = np.zeros(before.num_rows, dtype=np.bool_)
    for name in _PRICED_NAMES:
        old, new = before.column(name), after.column(name)
        same = pc.fill_null(pc.equal(old, new), pc.and_(pc.is_null(old), pc.is_null(new)))
        changed |= ~np.asarray(same.to_numpy(), dtype=np.bool_)
    return pa.array(changed)


def _differences(before: pa.Table, after: pa.Table) -> pa.Table:
    """Return adjustments of the calls that are one report."""
    which = pc.and_(before.column("is_call").combine_chunks(), _changed_rows(before, after))
    old, new = before.filter(which), after.filter(which)
    columns: dict[str, Column] = {name: old.column(name) for name in ADJUSTED_COLUMNS}
    for name in PRICE_COLUMNS:
        columns[f"old_{name}"], columns[f"new_{name}"] = old.column(name), new.column(name)
    return _typed(pa.table(columns))


def _typed(adjustments: pa.Table) -> pa.Table:
    never = pa.array(np.zeros(adjustments.num_rows, dtype=np.bool_))
    whole = adjustments.append_column("is_correction", never)
    return whole.select(ADJUSTMENT_SCHEMA.names).cast(ADJUSTMENT_SCHEMA)


def _price_inside(
    grouped: pa.Table, order: RerateOrder, *, window: Window, reprice: Reprice
) -> pa.Table:
    """Reprice the rows that a re-rate is about; their neighbors keep what they have."""
    inside: Column = _is_in(window, grouped)
    if order.tenants:
        named: Column = pc.is_in(grouped.column("tenant"), value_set=pa.array(list(order.tenants)))
        inside = pc.and_(inside, named)
    outside: Column = pc.invert(inside)
    new = reprice(grouped.filter(inside)).select(grouped.schema.names).cast(grouped.schema)
    return pa.concat_tables([new, grouped.filter(outside)])


def _side(order: RerateOrder, day: Window) -> Window:
    """Return what of the order's window is closed, or open, as the day is."""
    closed, whole = order.closed_before, order.window
    if closed is None or not whole.start < closed < whole.end:
        return whole
    return Window(whole.start, closed) if day.start < closed else Window(closed, whole.end)


def _of(day: Window, adjustments: pa.Table) -> pa.Table:
    return adjustments.filter(_is_in(day, adjustments))


def _is_in(window: Window, rows: pa.Table) -> Column:
    starts = rows.column("start_time")
    return pc.and_(
        pc.greater_equal(starts, pa.scalar(window.start, starts.type)),
        pc.less(starts, pa.scalar(window.end, starts.type)),
    )


def _hour_of(part: Window) -> int:
    return (part.start - EPOCH) // _HOUR
