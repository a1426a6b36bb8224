"""The ledger on SQLite or Postgres: one writer at a time, everything in one transaction."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, tuple_, update

from controlplane.budgets.budget import Budget
from controlplane.budgets.hold import HoldLine, SettledHold
from controlplane.budgets.lease import CHARGED_AS_LEASED, IN_HAND, Lease
from controlplane.budgets.ledger import Amounts, Entry, WindowKey, within_range
from controlplane.budgets.ports import LedgerTransaction
from controlplane.budgets.posting import WaitingCall
from controlplane.policy.history import NodeReport
from controlplane.policy.wire import Generation, RefusedCalls
from controlplane.store.metadata.budgets import amounts_between, amounts_of, read_budgets
from controlplane.store.metadata.engine import LEDGER_LOCK, writing
from controlplane.store.metadata.ledger_rows import (
    ADVANCE_HOLDER,
    CARRY_FORWARD,
    SAVE_LEASE,
    amounts_row,
    entry_row,
    lease_row,
    line_row,
    to_hold,
    to_lease,
    to_line,
    to_waiting,
    waiting_row,
)
from controlplane.store.metadata.policies import newest_generation, write_node
from controlplane.store.metadata.refusals import write_refused
from controlplane.store.metadata.tables import (
    UtcMicros,
    call_posting,
    hold_line,
    lease_holder,
    ledger_entry,
    settled_hold,
    waiting_call,
)
from controlplane.store.metadata.tables import lease as lease_table
from controlplane.store.metadata.timeline import frozen_until

IN_CLAUSE: Final = 5_000
"""Values of one IN clause; SQLite takes 32,766 parameters a statement."""

_Value = TypeVar("_Value", str, int)


class LedgerRepository:
    """Implements `budgets.ports.Ledger`; safe for threads, one transaction at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def transaction(self) -> Iterator[LedgerTransaction]:
        """Begin one; waits for the one before it.

        Raises:
            UnavailableError: the database can not be written now; nothing was changed.
            ConflictError: an entry was posted already; nothing was changed.
        """
        with writing(self._engine, lock=LEDGER_LOCK) as connection:
            yield SqlLedgerTransaction(connection)


class SqlLedgerTransaction:
    """Implements `budgets.ports.LedgerTransaction` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def budgets(self, ids: Collection[str] | None = None) -> dict[str, Budget]:
        """Return budgets that are not archived, of these ids or all."""
        return read_budgets(self._connection, ids)

    def amounts(self, windows: Collection[WindowKey]) -> dict[WindowKey, Amounts]:
        """Return what stands in each window's accounts."""
        return amounts_of(self._connection, windows)

    def frozen_until(self, now: datetime, *, for_seconds: float) -> datetime | None:
        """Return until when nothing is granted; None: the ledger is in order."""
        return frozen_until(self._connection, now, for_seconds=for_seconds)

    def amounts_between(self, budget_id: str, start: datetime, end: datetime) -> Amounts:
        """Return the sum over a budget's windows that start in `[start, end)`."""
        return amounts_between(self._connection, budget_id, start=start, end=end)

    def append(self, entries: Sequence[Entry]) -> None:
        """Post entries and carry the balances forward."""
        if not entries:
            return
        entries = within_range(entries, self.amounts({entry.window for entry in entries}))
        totals: dict[WindowKey, Amounts] = {}
        for entry in entries:
            totals[entry.window] = totals.get(entry.window, Amounts()) + entry.change
        self._connection.execute(insert(ledger_entry), [entry_row(entry) for entry in entries])
        self._connection.execute(
            CARRY_FORWARD,
            [
                {
                    "budget_id": key.budget_id,
                    "window_start": UtcMicros.to_micros(key.start),
                    **amounts_row(change),
                }
                for key, change in totals.items()
            ],
        )

    def leases(self, ids: Collection[str]) -> list[Lease]:
        """Return the leases of these ids that exist."""
        query = select(lease_table)
        return [
            to_lease(row)
            for some in _portions(ids)
            for row in self._connection.execute(query.where(lease_table.c.id.in_(some)))
        ]

    def leases_in_hand(self, holder: str) -> list[Lease]:
        """Return what a holder was granted, has not given back, and has something open of."""
        table = lease_table.c
        rows = self._connection.execute(
            select(lease_table)
            .where(table.holder == holder, table.state.in_(sorted(IN_HAND)), table.open_nusd > 0)
            .order_by(table.id)
        )
        return [to_lease(row) for row in rows]

    def owners(self, holders: Collection[str]) -> dict[str, str]:
        """Return, of the holders that were heard of, the id of the key that each is of."""
        table = lease_holder.c
        query = select(table.holder, table.key_id).where(table.key_id != "")
        return {
            holder: key_id
            for some in _portions(holders)
            for holder, key_id in self._connection.execute(query.where(table.holder.in_(some)))
        }

    def advance(self, holder: str, seq: int, *, key_id: str, now: datetime) -> bool:
        """Note how far a holder's requests have come; False when this one is not its newest."""
        row = {
            "holder": holder,
            "seq": seq,
            "seen_at": UtcMicros.to_micros(now),
            "key_id": key_id,
        }
        return self._connection.execute(ADVANCE_HOLDER, row).rowcount > 0

    def overdue_leases(self, now: datetime, *, limit: int) -> list[Lease]:
        """Return leases whose sweep is due and whose open money counts as leased."""
        table = lease_table.c
        rows = self._connection.execute(
            select(lease_table)
            .where(table.state.in_(sorted(CHARGED_AS_LEASED)), table.sweep_at <= now)
            .where(table.open_nusd > 0)
            .order_by(table.sweep_at, table.id)
            .limit(limit)
        )
        return [to_lease(row) for row in rows]

    def save_leases(self, leases: Sequence[Lease]) -> None:
        """Write leases as they are now."""
        if not leases:
            return
        rows = [lease_row(one) for one in leases]
        self._connection.execute(SAVE_LEASE, rows)

    def holders(
        self, windows: Collection[WindowKey], *, now: datetime, other_than: str
    ) -> dict[WindowKey, int]:
        """Return how many other holders have a lease or open calls in each window."""
        if not windows:
            return {}
        table = lease_table.c
        keys = [(key.budget_id, key.start) for key in windows]
        rows = self._connection.execute(
            select(table.budget_id, table.window_start, func.count(table.holder.distinct()))
            .where(tuple_(table.budget_id, table.window_start).in_(keys))
            .where(table.state.in_(sorted(CHARGED_AS_LEASED)), table.expires_at > now)
            .where(table.open_nusd > 0, table.holder != other_than)
            .group_by(table.budget_id, table.window_start)
        )
        return {WindowKey(budget_id, start): count for budget_id, start, count in rows}

    def leased_budgets(self, *, since: datetime) -> set[str]:
        """Return the budgets that a lease was granted from since then."""
        table = lease_table.c
        rows = self._connection.execute(
            select(table.budget_id).where(table.granted_at >= since).distinct()
        )
        return {budget_id for (budget_id,) in rows}

    def known_holds(self, ids: Collection[str]) -> set[str]:
        """Return which of these holds are settled already."""
        query = select(settled_hold.c.id)
        return {
            hold_id
            for some in _portions(ids)
            for (hold_id,) in self._connection.execute(query.where(settled_hold.c.id.in_(some)))
        }

    def save_holds(self, holds: Sequence[SettledHold]) -> None:
        """Write holds that have just been settled."""
        if not holds:
            return
        rows = [
            {name: getattr(hold, name) for name in hold.__struct_fields__ if name != "lines"}
            for hold in holds
        ]
        self._connection.execute(insert(settled_hold), rows)
        lines = [line_row(hold.id, line) for hold in holds for line in hold.lines]
        if lines:
            self._connection.execute(insert(hold_line), lines)

    def holds_of_calls(
        self, response_ids: Collection[str], call_ids: Collection[str]
    ) -> list[SettledHold]:
        """Return the settled holds that carry one of these ids; a call id may be a hold's own."""
        query = select(settled_hold)
        rows: dict[str, Row[tuple[object, ...]]] = {}
        for column, ids in (
            (settled_hold.c.response_id, response_ids),
            (settled_hold.c.call_id, call_ids),
            (settled_hold.c.id, call_ids),
        ):
            for some in _portions(ids):
                found = self._connection.execute(query.where(column.in_(some)))
                rows.update((row.id, row) for row in found)
        lines = self._lines(rows)
        return [to_hold(row, lines.get(hold_id, [])) for hold_id, row in sorted(rows.items())]

    def _lines(self, hold_ids: Iterable[str]) -> dict[str, list[HoldLine]]:
        found: dict[str, list[HoldLine]] = {}
        query = select(hold_line).order_by(hold_line.c.budget_id)
        for some in _portions(hold_ids):
            for row in self._connection.execute(query.where(hold_line.c.hold_id.in_(some))):
                found.setdefault(row.hold_id, []).append(to_line(row))
        return found

    def save_lines(self, lines: Sequence[tuple[str, HoldLine]]) -> None:
        """Write (hold id, line) as corrected."""
        table = hold_line.c
        for hold_id, line in lines:
            self._connection.execute(
                update(hold_line)
                .where(table.hold_id == hold_id, table.budget_id == line.window.budget_id)
                .values(
                    enforced_nusd=line.charge.enforced_nusd,
                    unproven_nusd=line.charge.unproven_nusd,
                )
            )

    def posted(self, versions: Collection[int]) -> set[int]:
        """Return which of these settlement versions the ledger has."""
        query = select(call_posting.c.version)
        return {
            version
            for some in _portions(versions)
            for (version,) in self._connection.execute(
                query.where(call_posting.c.version.in_(some))
            )
        }

    def save_posted(self, versions: Collection[int], *, now: datetime) -> None:
        """Note that the ledger has these settlement versions."""
        rows = [{"version": version, "posted_at": now} for version in sorted(versions)]
        if rows:
            self._connection.execute(insert(call_posting), rows)

    def waiting(self, call_ids: Collection[str]) -> list[WaitingCall]:
        """Return the calls of these ids that wait for an agent's settle."""
        query = select(waiting_call)
        return [
            to_waiting(row)
            for some in _portions(call_ids)
            for row in self._connection.execute(query.where(waiting_call.c.call_id.in_(some)))
        ]

    def overdue_calls(self, now: datetime, *, limit: int) -> list[WaitingCall]:
        """Return calls that have waited long enough, oldest first."""
        table = waiting_call.c
        rows = self._connection.execute(
            select(waiting_call)
            .where(table.due_at <= now)
            .order_by(table.due_at, table.call_id, table.budget_id)
            .limit(limit)
        )
        return [to_waiting(row) for row in rows]

    def save_waiting(self, calls: Sequence[WaitingCall]) -> None:
        """Keep calls that wait."""
        if calls:
            self._connection.execute(insert(waiting_call), [waiting_row(call) for call in calls])

    def drop_waiting(self, calls: Sequence[WaitingCall]) -> None:
        """Forget calls that were posted or turned out to be enforced."""
        table = waiting_call.c
        for call in calls:
            self._connection.execute(
                delete(waiting_call).where(
                    table.call_id == call.call_id, table.budget_id == call.window.budget_id
                )
            )

    def see_node(self, report: NodeReport, *, now: datetime) -> None:
        """Note that a node was heard of, and what it applied or refused."""
        write_node(self._connection, report, now=now)

    def count_refused(self, counts: Sequence[RefusedCalls], *, holder: str) -> None:
        """See `LedgerTransaction.count_refused`."""
        write_refused(self._connection, counts, holder=holder)

    def generation(self, scope: str) -> Generation:
        """Return the newest generation of a scope; (0, 0) when it has none."""
        return newest_generation(self._connection, scope)


def _portions(values: Iterable[_Value]) -> Iterator[list[_Value]]:
    ordered = sorted(values)
    for start in range(0, len(ordered), IN_CLAUSE):
        yield ordered[start : start + IN_CLAUSE]
