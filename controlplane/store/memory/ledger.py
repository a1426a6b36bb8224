"""The ledger in dictionaries: the reference that the databases are compared with.

Simulators run on it, because a schedule of a thousand calls must take milliseconds. A transaction
that fails is undone write by write, last one first.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final, TypeVar

import msgspec

from controlplane.budgets.budget import Budget
from controlplane.budgets.hold import HoldLine, SettledHold
from controlplane.budgets.lease import CHARGED_AS_LEASED, IN_HAND, Lease
from controlplane.budgets.ledger import Amounts, Entry, WindowKey, within_range
from controlplane.budgets.ports import LedgerTransaction
from controlplane.budgets.posting import WaitingCall
from controlplane.core.errors import ConflictError
from controlplane.policy.history import NodeReport
from controlplane.policy.wire import Generation, RefusedCalls

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_ABSENT: Final = object()


class MemoryLedger:
    """Implements `budgets.ports.Ledger`; for one thread."""

    def __init__(self, budgets: Iterable[Budget] = ()) -> None:
        self._state = _State()
        for budget in budgets:
            self.put_budget(budget)

    def put_budget(self, budget: Budget) -> None:
        """Keep a budget as it is now."""
        self._state.budgets[budget.id] = budget

    @contextmanager
    def transaction(self) -> Iterator[LedgerTransaction]:
        """Begin one.

        Raises:
            ConflictError: an entry was posted already; nothing was changed.
        """
        transaction = MemoryLedgerTransaction(self._state)
        try:
            yield transaction
        except BaseException:
            transaction.undo()
            raise

    def entries(self, window: WindowKey) -> list[Entry]:
        """Return the entries of a window, oldest first."""
        return list(self._state.entries.get(window, {}).values())


class _State(msgspec.Struct):
    budgets: dict[str, Budget] = {}
    balances: dict[WindowKey, Amounts] = {}
    windows: dict[str, tuple[WindowKey, ...]] = {}
    """Of each budget, those that have a balance, as they began to have one."""
    entries: dict[WindowKey, dict[str, Entry]] = {}
    leases: dict[str, Lease] = {}
    living: dict[str, Lease] = {}
    """Leases whose open money counts as leased."""
    by_holder: dict[str, tuple[str, ...]] = {}
    seqs: dict[str, int] = {}
    owners: dict[str, str] = {}
    holds: dict[str, SettledHold] = {}
    by_response: dict[str, set[str]] = {}
    by_call: dict[str, set[str]] = {}
    posted: dict[int, datetime] = {}
    waiting: dict[tuple[str, str], WaitingCall] = {}
    nodes: dict[tuple[str, str], NodeReport] = {}


class MemoryLedgerTransaction:
    """Implements `budgets.ports.LedgerTransaction`."""

    def __init__(self, state: _State) -> None:
        self._state = state
        self._undo: list[tuple[dict[object, object], object, object]] = []

    def _put(self, table: dict[_Key, _Value], key: _Key, value: _Value) -> None:
        self._remember(table, key)
        table[key] = value

    def _drop(self, table: dict[_Key, _Value], key: _Key) -> None:
        if key in table:
            self._remember(table, key)
            del table[key]

    def _remember(self, table: Mapping[_Key, _Value], key: _Key) -> None:
        self._undo.append((table, key, table.get(key, _ABSENT)))  # type: ignore[arg-type]  # put back as it was

    def undo(self) -> None:
        """Put everything back as it was."""
        for table, key, before in reversed(self._undo):
            if before is _ABSENT:
                table.pop(key, None)
            else:
                table[key] = before

    def budgets(self, ids: Collection[str] | None = None) -> dict[str, Budget]:
        """Return budgets that are not archived, of these ids or all."""
        return {
            key: budget
            for key, budget in sorted(self._state.budgets.items())
            if budget.archived_at is None and (ids is None or key in ids)
        }

    def amounts(self, windows: Collection[WindowKey]) -> dict[WindowKey, Amounts]:
        """Return what stands in each window's accounts."""
        balances = self._state.balances
        return {window: balances[window] for window in windows if window in balances}

    def frozen_until(self, now: datetime, *, for_seconds: float) -> datetime | None:  # noqa: ARG002 - nobody can put memory back
        """Return None: it is in order."""
        return None

    def amounts_between(self, budget_id: str, start: datetime, end: datetime) -> Amounts:
        """Return the sum over a budget's windows that start in `[start, end)`."""
        windows = self._state.windows.get(budget_id, ())
        found = (self._state.balances[key] for key in windows if start <= key.start < end)
        return sum(found, Amounts())

    def append(self, entries: Sequence[Entry]) -> None:
        """Post entries and carry the balances forward."""
        state = self._state
        for entry in within_range(entries, self.amounts({one.window for one in entries})):
            kept = state.entries.setdefault(entry.window, {})
            if entry.key in kept:
                raise ConflictError(f"the state has moved: {entry.key} is posted")
            self._put(kept, entry.key, entry)
            before = state.balances.get(entry.window, Amounts())
            if entry.window not in state.balances:
                budget_id = entry.window.budget_id
                known = state.windows.get(budget_id, ())
                self._put(state.windows, budget_id, (*known, entry.window))
            self._put(state.balances, entry.window, before + entry.change)

    def leases(self, ids: Collection[str]) -> list[Lease]:
        """Return the leases of these ids that exist."""
        return [self._state.leases[key] for key in sorted(ids) if key in self._state.leases]

    def leases_in_hand(self, holder: str) -> list[Lease]:
        """Return what a holder was granted, has not given back, and has something open of."""
        mine = (self._state.leases[key] for key in self._state.by_holder.get(holder, ()))
        return [lease for lease in mine if lease.state in IN_HAND and lease.open_nusd > 0]

    def owners(self, holders: Collection[str]) -> dict[str, str]:
        """Return, of the holders that were heard of, the id of the key that each is of."""
        known = self._state.owners
        return {holder: known[holder] for holder in holders if holder in known}

    def advance(self, holder: str, seq: int, *, key_id: str, now: datetime) -> bool:  # noqa: ARG002 - the port says when; nobody asks here
        """Note how far a holder's requests have come; False when this one is not its newest."""
        is_other = self._state.owners.get(holder, key_id) != key_id
        if is_other or seq <= self._state.seqs.get(holder, -1):
            return False
        self._put(self._state.seqs, holder, seq)
        self._put(self._state.owners, holder, key_id)
        return True

    def overdue_leases(self, now: datetime, *, limit: int) -> list[Lease]:
        """Return leases whose sweep is due and whose open money counts as leased."""
        due = [lease for lease in self._state.living.values() if lease.sweep_at <= now]
        return sorted(due, key=lambda lease: (lease.sweep_at, lease.id))[:limit]

    def save_leases(self, leases: Sequence[Lease]) -> None:
        """Write leases as they are now."""
        for lease in leases:
            if lease.id not in self._state.leases:
                mine = self._state.by_holder.get(lease.holder, ())
                self._put(self._state.by_holder, lease.holder, (*mine, lease.id))
            self._put(self._state.leases, lease.id, lease)
            if lease.state in CHARGED_AS_LEASED and lease.open_nusd > 0:
                self._put(self._state.living, lease.id, lease)
            else:
                self._drop(self._state.living, lease.id)

    def holders(
        self, windows: Collection[WindowKey], *, now: datetime, other_than: str
    ) -> dict[WindowKey, int]:
        """Return how many other holders have a lease or open calls in each window."""
        found: dict[WindowKey, set[str]] = {}
        for lease in self._state.living.values():
            is_living = lease.expires_at > now
            if is_living and lease.holder != other_than and lease.window in windows:
                found.setdefault(lease.window, set()).add(lease.holder)
        return {window: len(holders) for window, holders in found.items()}

    def leased_budgets(self, *, since: datetime) -> set[str]:
        """Return the budgets that a lease was granted from since then."""
        return {
            lease.window.budget_id
            for lease in self._state.leases.values()
            if lease.granted_at >= since
        }

    def known_holds(self, ids: Collection[str]) -> set[str]:
        """Return which of these holds are settled already."""
        return {hold_id for hold_id in ids if hold_id in self._state.holds}

    def save_holds(self, holds: Sequence[SettledHold]) -> None:
        """Write holds that have just been settled."""
        state = self._state
        for hold in holds:
            if hold.id in state.holds:
                raise ConflictError(f"the state has moved: {hold.id} is settled")
            self._put(state.holds, hold.id, hold)
            for index, key in (
                (state.by_response, hold.response_id),
                (state.by_call, hold.call_id),
            ):
                if key is not None:
                    self._put(index, key, {*index.get(key, ()), hold.id})

    def holds_of_calls(
        self, response_ids: Collection[str], call_ids: Collection[str]
    ) -> list[SettledHold]:
        """Return the settled holds that carry one of these ids; a call id may be a hold's own."""
        state = self._state
        found = {hold_id for hold_id in call_ids if hold_id in state.holds}
        found.update(*(state.by_response.get(key, ()) for key in response_ids))
        found.update(*(state.by_call.get(key, ()) for key in call_ids))
        return [state.holds[hold_id] for hold_id in sorted(found)]

    def save_lines(self, lines: Sequence[tuple[str, HoldLine]]) -> None:
        """Write (hold id, line) as corrected."""
        for hold_id, line in lines:
            hold = self._state.holds[hold_id]
            changed = tuple(
                line if one.window.budget_id == line.window.budget_id else one for one in hold.lines
            )
            self._put(self._state.holds, hold_id, msgspec.structs.replace(hold, lines=changed))

    def posted(self, versions: Collection[int]) -> set[int]:
        """Return which of these settlement versions the ledger has."""
        return {version for version in versions if version in self._state.posted}

    def save_posted(self, versions: Collection[int], *, now: datetime) -> None:
        """Note that the ledger has these settlement versions."""
        for version in versions:
            self._put(self._state.posted, version, now)

    def waiting(self, call_ids: Collection[str]) -> list[WaitingCall]:
        """Return the calls of these ids that wait for an agent's settle."""
        wanted = set(call_ids)
        return [call for (call_id, _), call in self._state.waiting.items() if call_id in wanted]

    def overdue_calls(self, now: datetime, *, limit: int) -> list[WaitingCall]:
        """Return calls that have waited long enough, oldest first."""
        due = [call for call in self._state.waiting.values() if call.due_at <= now]
        return sorted(due, key=lambda one: (one.due_at, one.call_id, one.window.budget_id))[:limit]

    def save_waiting(self, calls: Sequence[WaitingCall]) -> None:
        """Keep calls that wait."""
        for call in calls:
            self._put(self._state.waiting, (call.call_id, call.window.budget_id), call)

    def drop_waiting(self, calls: Sequence[WaitingCall]) -> None:
        """Forget calls that were posted or turned out to be enforced."""
        for call in calls:
            self._drop(self._state.waiting, (call.call_id, call.window.budget_id))

    def see_node(self, report: NodeReport, *, now: datetime) -> None:  # noqa: ARG002 - the same
        """Note that a node was heard of, and what it applied or refused."""
        self._put(self._state.nodes, (report.scope, report.node), report)

    def count_refused(self, counts: Sequence[RefusedCalls], *, holder: str) -> None:
        """Refusals are read from a database only; simulations count their own."""

    def generation(self, scope: str) -> Generation:  # noqa: ARG002 - the port has scopes
        """Return the newest generation of a scope; (0, 0): policies are kept elsewhere."""
        return Generation(0, 0)
