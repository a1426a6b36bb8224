"""The local lease book: what this process may still promise, in integers, without the network.

Every nano-USD of a lease is held at most once: a settle gives nothing back here, the server frees
the difference and grants it anew. That keeps the book simple and the bound exact.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from controlplane.core.clock import Clock
from controlplane.policy.wire import Grant, LeaseReturn, LeaseWant

RENEW_RATIO: Final = 0.25  # of the lease's life; then it is given back and asked for anew
SHORT_SECONDS: Final = 1.0  # how long "not enough" is taken for an answer
IDLE_SECONDS: Final = 2.0  # an unused lease goes back, others may need it
AHEAD_SECONDS: Final = 2.0  # a lease is sized for this much of the recent rate
_SMOOTHING: Final = 0.5


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

    def life_left_seconds(self, now: Instant) -> float:
        """Return how long holds may still be taken from it."""
        return self.ttl_seconds - self.asked.seconds_until(now)


class Refused(msgspec.Struct, frozen=True):
    """The server had less than this for us; asking again before it ends would be noise."""

    since: Instant
    ttl_seconds: float
    nusd: int


class Need(msgspec.Struct, frozen=True):
    """A waiting call: its ceiling, and the least that it could be cut to."""

    held_nusd: int
    least_nusd: int


class LeaseBook:
    """Every open lease of this holder; sync, deterministic, told the time."""

    def __init__(self) -> None:
        self._leases: dict[str, dict[str, Lease]] = {}  # budget id → lease id → lease
        self._held_since_nusd: dict[str, int] = {}
        self._rate_nusd: dict[str, float] = {}
        self._refused: dict[str, Refused] = {}

    def accept(self, grant: Grant, asked: Instant) -> bool:
        """Take a grant in; False when it is a refusal (amount 0)."""
        if grant.amount_nusd <= 0:
            self._refused[grant.budget_id] = Refused(asked, grant.ttl_seconds, 0)
            return False
        self._refused.pop(grant.budget_id, None)
        self._leases.setdefault(grant.budget_id, {})[grant.lease_id] = Lease(
            grant.lease_id, grant.budget_id, grant.amount_nusd, asked, grant.ttl_seconds, asked
        )
        return True

    def hold(
        self, budget_ids: Iterable[str], amount_nusd: int, now: Instant
    ) -> dict[str, str] | None:
        """Take `amount_nusd` from one lease of each budget, all or none, in budget-id order."""
        chosen: list[Lease] = []
        for budget_id in sorted(budget_ids):
            lease = self._best(budget_id, now)
            if lease is None or lease.left_nusd < amount_nusd:
                return None
            chosen.append(lease)
        for lease in chosen:
            lease.left_nusd -= amount_nusd
            lease.used = now
            seen = self._held_since_nusd.get(lease.budget_id, 0)
            self._held_since_nusd[lease.budget_id] = seen + amount_nusd
        return {lease.budget_id: lease.lease_id for lease in chosen}

    def fits_nusd(self, budget_ids: Iterable[str], now: Instant) -> int:
        """Return the largest single hold that every one of these budgets could take now."""
        bests = [self._best(budget_id, now) for budget_id in budget_ids]
        return min((lease.left_nusd if lease else 0 for lease in bests), default=0)

    def _best(self, budget_id: str, now: Instant) -> Lease | None:
        leases = self._leases.get(budget_id)
        if not leases:
            return None
        living = (lease for lease in leases.values() if lease.life_left_seconds(now) > 0)
        return max(living, key=lambda lease: lease.left_nusd, default=None)

    def left_nusd(self, budget_id: str) -> int:
        """Return what all leases of the budget have left together."""
        return sum(lease.left_nusd for lease in self._leases.get(budget_id, {}).values())

    def fell_short(self, budget_id: str, least_nusd: int, now: Instant) -> None:
        """Remember for a while that calls which need this much are not served."""
        if self.fits_nusd([budget_id], now) < least_nusd:
            self._refused.setdefault(budget_id, Refused(now, SHORT_SECONDS, least_nusd))

    def is_refused(self, budget_id: str, needed_nusd: int, now: Instant) -> bool:
        """Whether the server has said that there is not so much."""
        refused = self._refused.get(budget_id)
        if refused is None or needed_nusd < refused.nusd:
            return False
        if refused.since.seconds_until(now) < refused.ttl_seconds:
            return True
        del self._refused[budget_id]
        return False

    def forget_refusal(self, budget_ids: Iterable[str]) -> None:
        """Money may have come back: asking makes sense again."""
        for budget_id in budget_ids:
            self._refused.pop(budget_id, None)

    def give_back(self, needs: dict[str, int], now: Instant) -> tuple[LeaseReturn, ...]:
        """Close leases that are ending, idle, empty or too small for a waiting call.

        What is closed can not be held from any more; the return must reach the server.
        """
        closing = [
            lease
            for leases in self._leases.values()
            for lease in leases.values()
            if lease.left_nusd == 0
            or lease.life_left_seconds(now) < RENEW_RATIO * lease.ttl_seconds
            or lease.used.seconds_until(now) > IDLE_SECONDS
            or lease.left_nusd < needs.get(lease.budget_id, 0)
        ]
        return self._close(closing)

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

    def _close(self, closing: list[Lease]) -> tuple[LeaseReturn, ...]:
        for lease in closing:
            del self._leases[lease.budget_id][lease.lease_id]
        return tuple(LeaseReturn(lease.lease_id, lease.left_nusd) for lease in closing)

    def wants(
        self, needs: Mapping[str, Sequence[Need]], *, elapsed_seconds: float, now: Instant
    ) -> tuple[LeaseWant, ...]:
        """Say what to ask for: waiting calls at once, busy budgets before they run dry."""
        wants = []
        for budget_id in sorted({*self._rate_nusd, *self._held_since_nusd, *needs}):
            held = self._held_since_nusd.pop(budget_id, 0)
            recent = held / max(elapsed_seconds, 1e-3)
            rate = self._rate_nusd.get(budget_id, recent)
            rate += _SMOOTHING * (recent - rate)
            self._rate_nusd[budget_id] = rate
            waiting = [
                need.held_nusd
                for need in needs.get(budget_id, ())
                if not self.is_refused(budget_id, need.least_nusd, now)
            ]
            ahead = int(rate * AHEAD_SECONDS)
            is_low = self.left_nusd(budget_id) < ahead // 2
            if waiting or (is_low and not self.is_refused(budget_id, ahead, now)):
                wants.append(LeaseWant(budget_id, ahead + sum(waiting), max(waiting, default=0)))
        return tuple(wants)

    @property
    def leases(self) -> list[Lease]:
        """Every open lease."""
        return [lease for leases in self._leases.values() for lease in leases.values()]
