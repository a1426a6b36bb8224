"""The working set of one ledger transaction: what was read, changed by pure arithmetic.

The flow reads leases and balances into a book, tells it what happened, and writes `entries`,
`leases` and `holds` back, all in one transaction.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import msgspec

from controlplane.budgets.budget import Budget
from controlplane.budgets.hold import HoldLine, Outcome, SettledHold
from controlplane.budgets.lease import (
    Lease,
    LeaseState,
    Step,
    escrow_amount,
    expired,
    granted,
    lease_amount,
    returned,
    settled,
)
from controlplane.budgets.ledger import Amounts, Balance, Entry, EntryKind, WindowKey
from controlplane.core.calendar import Window
from controlplane.policy.document import Mode
from controlplane.policy.wire import LeaseReturn, LeaseWant, Settle

EMPTY: Final[Mapping[str, Amounts]] = MappingProxyType({})


class LeaseTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How long leases live, in seconds."""

    ttl_seconds: float = 60.0
    skew_seconds: float = 5.0
    """Past its expiry a lease is swept only after this: a return may be under way."""
    max_call_seconds: float = 900.0
    """Holds of a returned lease may end this late before they count as unproven."""
    escrow_seconds: float = 1_200.0
    """How long a lease lives that is spent only while the server is out of reach."""

    @property
    def frozen_seconds(self) -> float:
        """How long after a restore somebody may still spend what the ledger has forgotten (L6)."""
        longest = max(self.ttl_seconds, self.escrow_seconds)
        return longest + self.skew_seconds + self.max_call_seconds


class LedgerBook:
    """Leases and balances of the windows that one transaction touches."""

    def __init__(
        self,
        budgets: Mapping[str, Budget],
        *,
        terms: LeaseTerms,
        now: datetime,
        holders: Mapping[WindowKey, int],
        amounts: Mapping[WindowKey, Amounts],
        earlier: Mapping[str, Amounts] = EMPTY,
    ) -> None:
        """Take in what one transaction begins with.

        Args:
            budgets: every budget, by id.
            terms: of leases.
            now: aware UTC.
            holders: other holders of each window.
            amounts: of each current window.
            earlier: of rolling budgets, by id, what the sub-windows before the current one have
                together.
        """
        self._budgets = budgets
        self._terms = terms
        self._now = now
        self._holders = holders
        self._amounts = dict(amounts)
        self._earlier = dict(earlier)
        self._leases: dict[str, Lease] = {}
        self._changed: dict[str, None] = {}
        self.entries: list[Entry] = []
        self.holds: list[SettledHold] = []

    def know(self, leases: Iterable[Lease]) -> None:
        """Take in leases as they are stored."""
        self._leases.update((lease.id, lease) for lease in leases)

    @property
    def leases(self) -> list[Lease]:
        """The leases that are new or changed."""
        return [self._leases[lease_id] for lease_id in self._changed]

    def balance(self, budget: Budget) -> Balance:
        """Return what counts against a budget now, as of here."""
        return Balance(budget.limit_at(self._now), self.amounts(budget))

    def amounts(self, budget: Budget) -> Amounts:
        """Return where a budget's current window is as of here."""
        key = WindowKey(budget.id, budget.window(self._now).start)
        current = self._amounts.get(key, Amounts())
        earlier = self._earlier.get(budget.id)
        return current if earlier is None else current + earlier

    def is_leased(self, budget_id: str) -> bool:
        """Whether something of a budget's current window is promised to somebody."""
        budget = self._budgets.get(budget_id)
        if budget is None:
            return False
        return self.amounts(budget).leased_nusd > 0

    def most_seconds(self, budget_id: str, seconds: float) -> float:
        """Return so many seconds, or fewer when a budget's window ends before."""
        budget = self._budgets.get(budget_id)
        if budget is None:
            return seconds
        return min(seconds, (budget.window(self._now).end - self._now).total_seconds())

    def span_of(self, said: Settle, *, holder: str) -> Window | None:
        """Return when a hold was taken, by our clock: while its leases lived; None: not known."""
        leases = [self._own(lease_id, holder) for lease_id in said.leases.values()]
        known = [lease for lease in leases if lease is not None]
        if not known:
            return None
        start = max(lease.granted_at for lease in known)
        end = min(lease.expires_at for lease in known)
        end = min(self._now, end + timedelta(seconds=self._terms.skew_seconds))
        return Window(start, max(start, end))

    def settle(self, said: Settle, outcome: Outcome, *, holder: str) -> SettledHold:
        """End a hold: charge every budget it was taken from; the caller knows it is the first.

        Money that was spent is charged whether or not the lease is known: a restored server may
        have forgotten it.
        """
        lines = tuple(
            self._charge(said, budget, outcome=outcome, holder=holder)
            for budget_id in sorted(said.leases)
            if (budget := self._budgets.get(budget_id)) is not None
        )
        hold = SettledHold(
            id=said.hold_id,
            holder=holder,
            held_nusd=said.held_nusd,
            started_at=said.started_at,
            settled_at=self._now,
            reason=outcome.reason,
            response_id=said.response_id,
            call_id=said.call_id,
            lines=lines,
        )
        self.holds.append(hold)
        return hold

    def _charge(self, said: Settle, budget: Budget, *, outcome: Outcome, holder: str) -> HoldLine:
        lease_id, held = said.leases[budget.id], said.held.get(budget.id, said.held_nusd)
        charge = outcome.charge(budget.unit, held)
        lease = self._own(lease_id, holder)
        key = f"settle:{said.hold_id}"
        if lease is None or lease.window.budget_id != budget.id:
            window = WindowKey(budget.id, budget.window(said.started_at).start)
            self._post(window, key, EntryKind.SETTLE, change=charge)
        else:
            window = lease.window
            self._take(settled(lease, held, charge), key, EntryKind.SETTLE)
        return HoldLine(window=window, lease_id=lease_id, charge=charge)

    def give_back(self, said: LeaseReturn, *, holder: str) -> bool:
        """Free what a holder never held; False when it is not its lease, or was given back."""
        lease = self._own(said.lease_id, holder)
        if lease is None or said.unspent_nusd < 0:
            return False
        sweep_at = self._now + timedelta(seconds=self._terms.max_call_seconds)
        step = returned(lease, said.unspent_nusd, sweep_at=sweep_at)
        return self._take(step, f"return:{lease.id}", EntryKind.RETURN)

    def disown(self, lease: Lease) -> bool:
        """Free a lease that its holder says it never received: no call was held against it."""
        return self.give_back(LeaseReturn(lease.id, lease.open_nusd), holder=lease.holder)

    def expire(self, lease_id: str) -> bool:
        """Charge in full what a silent holder has; False when that is done or has nothing open."""
        lease = self._leases[lease_id]
        step = expired(lease)
        return self._take(step, f"expire:{lease.id}", EntryKind.EXPIRE)

    def grant(self, said: LeaseWant, *, holder: str, new_id: Callable[[], str]) -> Lease | None:
        """Promise a slice of the current window; None when nothing is free or it is not to be had.

        Only hard budgets are leased: the others never refuse, so there is nothing to promise.
        """
        budget = self._budgets.get(said.budget_id)
        if budget is None or budget.mode is not Mode.HARD or budget.archived_at is not None:
            return None
        window = budget.window(self._now)
        key = WindowKey(budget.id, window.start)
        free, holders = self.balance(budget).grantable_nusd, self._holders.get(key, 0) + 1
        if said.is_escrow:
            amount = escrow_amount(budget.escrow_nusd, free_nusd=free, holders=holders)
        else:
            amount = lease_amount(
                want_nusd=max(0, said.want_nusd),
                need_nusd=max(0, said.need_nusd),
                free_nusd=free,
                holders=holders,
            )
        if amount <= 0 or amount < said.least_nusd:
            return None  # what is too little for this call may be enough for another's
        # A lease ends with its window: no hold is taken from last month's money.
        terms = self._terms
        life = terms.escrow_seconds if said.is_escrow else terms.ttl_seconds
        expires_at = min(self._now + timedelta(seconds=life), window.end)
        lease = Lease(
            id=new_id(),
            window=key,
            holder=holder,
            amount_nusd=amount,
            open_nusd=amount,
            state=LeaseState.GRANTED,
            granted_at=self._now,
            expires_at=expires_at,
            sweep_at=expires_at + timedelta(seconds=self._terms.skew_seconds),
        )
        self._take(granted(lease), f"grant:{lease.id}", EntryKind.GRANT)
        return lease

    def _own(self, lease_id: str, holder: str) -> Lease | None:
        lease = self._leases.get(lease_id)
        return lease if lease is not None and lease.holder == holder else None

    def _take(self, step: Step | None, key: str, kind: EntryKind) -> bool:
        if step is None:
            return False
        self._leases[step.lease.id] = step.lease
        self._changed[step.lease.id] = None
        self._post(step.lease.window, key, kind, change=step.change)
        return True

    def _post(self, window: WindowKey, key: str, kind: EntryKind, *, change: Amounts) -> None:
        budget = self._budgets.get(window.budget_id)
        if budget is not None and budget.is_rolling:
            counted = budget.counted_window(self._now)
            if counted.start <= window.start < budget.window(self._now).start:
                earlier = self._earlier.get(budget.id, Amounts())
                self._earlier[budget.id] = earlier + change
        self._amounts[window] = self._amounts.get(window, Amounts()) + change
        self.entries.append(Entry(window=window, key=key, kind=kind, at=self._now, change=change))
