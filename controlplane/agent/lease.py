"""What this process may still promise, in integers, without the network.

Every unit of a lease is in one place: left, or held by one open call. A call that ends gives back
what it certainly did not use, so a lease lasts for what calls cost and not for what they could have
cost.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from controlplane.core.clock import Clock
from controlplane.policy.wire import Grant, LeaseReturn


class Instant(msgspec.Struct, frozen=True):
    """One moment on both clocks; what has passed since is the larger of the two (L2)."""

    wall: datetime
    monotonic: float

    @classmethod
    def of(cls, clock: Clock) -> "Instant":
        """Read both clocks."""
        return cls(clock.now(), clock.monotonic())

    def seconds_until(self, later: "Instant") -> float:
        """Return what passed until `later`, never less than either clock says."""
        return max(later.monotonic - self.monotonic, (later.wall - self.wall).total_seconds())


class Lease(msgspec.Struct):
    """A slice of one budget, anchored when it was asked for: the server's clock started later."""

    lease_id: str
    budget_id: str
    left_nusd: int
    asked: Instant
    ttl_seconds: float
    used: Instant
    expires_at: datetime  # by the server's clock
    is_escrow: bool = False
    amount_nusd: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it is spent or held."""
        return self.left_nusd >= self.amount_nusd

    def life_left_seconds(self, now: Instant) -> float:
        """Return how long holds may still be taken from it."""
        return self.ttl_seconds - self.asked.seconds_until(now)


class Leases:
    """Every open lease of this holder; sync, deterministic, told the time.

    Amounts are in the unit of their budget: nano-USD, tokens or requests.
    """

    def __init__(self) -> None:
        self._leases: dict[str, dict[str, Lease]] = {}  # budget id → lease id → lease
        self.is_isolated = False
        """The server does not answer: what is held in escrow may be spent (ADR 054)."""

    def open(self, grant: Grant, asked: Instant) -> None:
        """Take a lease in; its life is counted from when it was asked for."""
        self._leases.setdefault(grant.budget_id, {})[grant.lease_id] = Lease(
            lease_id=grant.lease_id,
            budget_id=grant.budget_id,
            left_nusd=grant.amount_nusd,
            asked=asked,
            ttl_seconds=grant.ttl_seconds,
            used=asked,
            expires_at=grant.expires_at,
            is_escrow=grant.is_escrow,
            amount_nusd=grant.amount_nusd,
        )

    def hold(self, amounts: Mapping[str, int], now: Instant) -> dict[str, str] | None:
        """Take each budget's amount from one of its leases, all or none, in budget-id order."""
        chosen: list[tuple[Lease, int]] = []
        for budget_id, amount in sorted(amounts.items()):
            # The smallest that fits: what is left of an old lease is used up first; escrow last.
            fitting = (one for one in self._living(budget_id, now) if one.left_nusd >= amount)
            lease = min(fitting, key=lambda one: (one.is_escrow, one.left_nusd), default=None)
            if lease is None:
                return None
            chosen.append((lease, amount))
        for lease, amount in chosen:
            lease.left_nusd -= amount
            lease.used = now
        return {lease.budget_id: lease.lease_id for lease, _ in chosen}

    def release(self, leases: Mapping[str, str], unused: Mapping[str, int]) -> dict[str, int]:
        """Put back what an ended call did not use; returns by budget what was put back.

        A lease that was given back meanwhile takes nothing: the server frees the rest of the hold.
        """
        released: dict[str, int] = {}
        for budget_id, lease_id in leases.items():
            amount = unused.get(budget_id, 0)
            lease = self._leases.get(budget_id, {}).get(lease_id)
            if lease is not None and amount > 0:
                lease.left_nusd += amount
                released[budget_id] = amount
        return released

    def fits(self, budget_ids: Iterable[str], now: Instant) -> dict[str, int]:
        """Return by budget the largest single hold that it could take now."""
        return {
            budget_id: max((one.left_nusd for one in self._living(budget_id, now)), default=0)
            for budget_id in budget_ids
        }

    def _living(self, budget_id: str, now: Instant) -> Iterator[Lease]:
        leases = self._leases.get(budget_id, {})
        return (
            lease
            for lease in leases.values()
            if lease.life_left_seconds(now) > 0 and (self.is_isolated or not lease.is_escrow)
        )

    def left_nusd(self, budget_id: str) -> int:
        """Return what all leases of the budget have left together, escrow not counted."""
        leases = self._leases.get(budget_id, {}).values()
        return sum(lease.left_nusd for lease in leases if not lease.is_escrow)

    def give_back_all(self, budget_ids: Sequence[str] | None = None) -> tuple[LeaseReturn, ...]:
        """Close every lease, or those of budgets that are no more."""
        return self._close(
            [
                lease
                for budget_id, leases in self._leases.items()
                for lease in leases.values()
                if budget_ids is None or budget_id in budget_ids
            ]
        )

    def _close(self, closing: Iterable[Lease]) -> tuple[LeaseReturn, ...]:
        closed = list(closing)
        for lease in closed:
            del self._leases[lease.budget_id][lease.lease_id]
        return tuple(LeaseReturn(lease.lease_id, lease.left_nusd) for lease in closed)

    @property
    def leases(self) -> list[Lease]:
        """Every open lease."""
        return [lease for leases in self._leases.values() for lease in leases.values()]
