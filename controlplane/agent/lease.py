"""The local lease book: what this process may still promise, in integers, without the network.

Every unit of a lease is in one place: left, or held by one open call. A call that ends gives back
what it certainly did not use, so a lease lasts for what calls cost and not for what they could have
cost. What is left is given back when the lease ends, is idle while others need it, or is too small.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from controlplane.agent.demand import Demand
from controlplane.core.clock import Clock
from controlplane.policy.wire import Grant, LeaseReturn, LeaseWant, Standing

RENEW_RATIO: Final = 0.25  # of the lease's life; then it is given back and asked for anew
SHORT_SECONDS: Final = 0.1  # how long "not enough" is taken for an answer
FIRST_CALLS: Final = 16  # a lease is for so many while nobody knows yet what is used
QUIET_SECONDS: Final = 2.0  # after a refusal nothing is asked for in advance for so long
IDLE_SECONDS: Final = 2.0  # an unused lease goes back when others may need it
ESCROW_FRESH_RATIO: Final = 0.75  # of its life; with less left another is asked for
ESCROW_AGAIN_SECONDS: Final = 10.0  # after one was refused or recalled
RECALLED_SECONDS: Final = 0.1  # a lease that is asked back and was not used for this long goes


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
    """Every open lease of this holder; sync, deterministic, told the time.

    Amounts are in the unit of their budget: nano-USD, tokens or requests.
    """

    def __init__(self) -> None:
        self._leases: dict[str, dict[str, Lease]] = {}  # budget id → lease id → lease
        self._demand: dict[str, Demand] = {}
        self._refused: dict[str, Refused] = {}
        self._freed: dict[str, Instant] = {}
        self._escrow_asked: dict[str, Instant] = {}
        self.is_isolated = False
        """The server does not answer: what is held in escrow may be spent (ADR 054)."""

    def accept(self, grant: Grant, asked: Instant, *, least_nusd: int = 0) -> bool:
        """Take a grant in; False when it is a refusal (amount 0) of at least so much."""
        if grant.is_escrow and grant.amount_nusd <= 0:
            return False  # it says nothing of what calls may have
        demand = self._demand.setdefault(grant.budget_id, Demand())
        if grant.amount_nusd <= 0:
            if not self._has_freed_since(grant.budget_id, asked):
                self._refused[grant.budget_id] = Refused(asked, grant.ttl_seconds, least_nusd)
            return False
        if not grant.is_escrow:
            self._refused.pop(grant.budget_id, None)
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
        if not grant.is_escrow:
            demand.filled(self.left_nusd(grant.budget_id))
        return True

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
            self._demand.setdefault(lease.budget_id, Demand()).held(amount)
        return {lease.budget_id: lease.lease_id for lease, _ in chosen}

    def release(self, leases: Mapping[str, str], unused: Mapping[str, int]) -> dict[str, int]:
        """Put back what an ended call did not use; returns by budget what was put back.

        A lease that was given back meanwhile takes nothing: the server frees the rest of the hold.
        """
        released: dict[str, int] = {}
        for budget_id, lease_id in leases.items():
            amount = unused.get(budget_id, 0)
            if budget_id in self._demand:
                self._demand[budget_id].released(amount)
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

    def holds_of(self, recalled: Collection[str]) -> bool:
        """Whether it has what others wait for; escrow is not: the next sync returns it."""
        return any(one.budget_id in recalled and not one.is_escrow for one in self.leases)

    def fell_short(self, budget_id: str, least_nusd: int, now: Instant) -> None:
        """Remember for a while that calls which need this much are not served."""
        is_short = self.fits([budget_id], now)[budget_id] < least_nusd
        if (
            is_short
            and not self._has_freed_since(budget_id, now)
            and not self.is_refused(budget_id, least_nusd, now)
        ):
            self._refused[budget_id] = Refused(now, SHORT_SECONDS, least_nusd)

    def is_refused(self, budget_id: str, needed_nusd: int, now: Instant) -> bool:
        """Whether the server has said that there is not so much."""
        return self.refused_seconds(budget_id, needed_nusd, now) > 0

    def refused_seconds(self, budget_id: str, needed_nusd: int, now: Instant) -> float:
        """Return for how long it makes no sense to ask for so much; 0: it does."""
        refused = self._refused.get(budget_id)
        if refused is None or needed_nusd < refused.nusd:
            return 0.0
        return max(0.0, refused.ttl_seconds - refused.since.seconds_until(now))

    def forget_refusal(self, budget_ids: Iterable[str], now: Instant) -> None:
        """A call's money goes back to the server: asking makes sense again.

        Also when the answer to what was asked before is still to come.
        """
        for budget_id in budget_ids:
            self._refused.pop(budget_id, None)
            self._freed[budget_id] = now

    def heard(self, standing: Standing) -> bool:
        """Take what the server says is free; True when it is enough for what it had refused."""
        refused = self._refused.get(standing.budget_id)
        if refused is None or standing.free_nusd < max(1, refused.nusd):
            return False
        del self._refused[standing.budget_id]
        return True

    def _has_freed_since(self, budget_id: str, asked: Instant) -> bool:
        freed = self._freed.get(budget_id)
        return freed is not None and asked.seconds_until(freed) > 0

    def give_back(
        self,
        needs: Mapping[str, int],
        now: Instant,
        *,
        standings: Mapping[str, Standing] | None = None,
        recalled: Iterable[str] = (),
        is_asking: bool = True,
        escrows: Mapping[str, int] | None = None,
    ) -> tuple[LeaseReturn, ...]:
        """Close leases that are ending, empty, too small for a waiting call, or needed elsewhere.

        What is closed can not be held from any more; the return must reach the server.

        Args:
            needs: by budget, the largest hold that a call waits for.
            now: on both clocks.
            standings: where the budgets' money is, as last told.
            recalled: budgets that the server wants back what is not in use of.
            is_asking: whether the same message asks for leases.
            escrows: by budget, what is kept for times without a server.
        """
        asked_back = set(recalled)
        closing = [
            lease
            for lease in self.leases
            if lease.is_escrow
            and self._ends_escrow(
                lease,
                now,
                is_wanted=bool((escrows or {}).get(lease.budget_id))
                and lease.budget_id not in asked_back,
            )
        ]
        closing += [
            lease
            for lease in self.leases
            if not lease.is_escrow
            and self._ends(lease, needs, now, standings=standings or {}, asked_back=asked_back)
        ]
        if closing or is_asking:  # an empty lease is no reason to speak
            rest = (one for one in self.leases if one not in closing)
            closing += [one for one in rest if one.left_nusd == 0]
        return self._close(closing)

    def _ends(
        self,
        lease: Lease,
        needs: Mapping[str, int],
        now: Instant,
        *,
        standings: Mapping[str, Standing],
        asked_back: Collection[str],
    ) -> bool:
        return (
            lease.life_left_seconds(now) < _renewed_before(lease, standings)
            or self.fits([lease.budget_id], now)[lease.budget_id] < needs.get(lease.budget_id, 0)
            or self._is_idle(lease, now, standings, is_recalled=lease.budget_id in asked_back)
        )

    def _ends_escrow(self, lease: Lease, now: Instant, *, is_wanted: bool) -> bool:
        """Whether escrow goes back: it is over, or in better times unwanted or replaced."""
        if lease.life_left_seconds(now) <= 0:
            return True
        if self.is_isolated:
            return False
        if not is_wanted:
            self._escrow_asked[lease.budget_id] = now  # not to be asked for again at once
        others = self._leases[lease.budget_id].values()
        return not is_wanted or any(
            one.is_escrow and lease.asked.seconds_until(one.asked) > 0 for one in others
        )

    def escrow_wants(
        self, escrows: Mapping[str, int], now: Instant, *, standings: Mapping[str, Standing]
    ) -> tuple[LeaseWant, ...]:
        """Ask for what is to be spent while the server is out of reach, where somebody calls."""
        wants = []
        for budget_id, amount in sorted(escrows.items()):
            mine = self._leases.get(budget_id, {}).values()
            has = any(_is_fresh_escrow(one, amount, now=now, standings=standings) for one in mine)
            asked = self._escrow_asked.get(budget_id)
            was_asked = asked is not None and asked.seconds_until(now) < ESCROW_AGAIN_SECONDS
            if amount > 0 and budget_id in self._demand and not has and not was_asked:
                self._escrow_asked[budget_id] = now
                wants.append(LeaseWant(budget_id, amount, amount, amount, is_escrow=True))
        return tuple(wants)

    @staticmethod
    def _is_idle(
        lease: Lease, now: Instant, standings: Mapping[str, Standing], *, is_recalled: bool
    ) -> bool:
        idle = lease.used.seconds_until(now)
        if is_recalled:
            return idle > RECALLED_SECONDS
        standing = standings.get(lease.budget_id)
        is_scarce = standing is None or standing.free_nusd < lease.left_nusd
        return is_scarce and idle > IDLE_SECONDS

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
        self,
        needs: Mapping[str, Sequence[Need]],
        *,
        elapsed_seconds: float,
        now: Instant,
        in_advance: bool = True,
    ) -> tuple[LeaseWant, ...]:
        """Say what to ask for: what waiting calls lack, and busy budgets before they run dry.

        One that is about to end asks for nothing `in_advance`.
        """
        wants = []
        for budget_id in sorted({*self._demand, *needs}):
            demand = self._demand.setdefault(budget_id, Demand())
            demand.passed(elapsed_seconds)
            left = self.left_nusd(budget_id)
            waiting = [
                need
                for need in needs.get(budget_id, ())
                if not self.is_refused(budget_id, need.least_nusd, now)
            ]
            total = sum(need.held_nusd for need in waiting)
            largest = max((need.held_nusd for need in waiting), default=0)
            ahead = (demand.ahead or FIRST_CALLS * largest) if in_advance else demand.soon
            want_nusd = max(0, ahead + total - left)
            if total > left or largest > self.fits([budget_id], now)[budget_id]:
                least = min(need.least_nusd for need in waiting)
                wants.append(LeaseWant(budget_id, want_nusd, max(largest, total - left), least))
            elif in_advance and demand.is_low(left) and not self._was_refused(budget_id, now):
                wants.append(LeaseWant(budget_id, want_nusd, demand.largest, demand.largest))
        return tuple(wants)

    def _was_refused(self, budget_id: str, now: Instant) -> bool:
        """Whether the server had nothing a moment ago: then only a call that waits asks again."""
        refused = self._refused.get(budget_id)
        return refused is not None and refused.since.seconds_until(now) < QUIET_SECONDS

    @property
    def leases(self) -> list[Lease]:
        """Every open lease."""
        return [lease for leases in self._leases.values() for lease in leases.values()]


def _is_fresh_escrow(
    lease: Lease, amount: int, *, now: Instant, standings: Mapping[str, Standing]
) -> bool:
    """Whether a lease is all that may be asked for: whole, young, or as long as its window."""
    if not (lease.is_escrow and lease.is_whole and lease.amount_nusd == amount):
        return False
    standing = standings.get(lease.budget_id)
    life = lease.life_left_seconds(now)
    if standing is not None and lease.expires_at >= standing.window_end:
        return life > 0
    return life >= ESCROW_FRESH_RATIO * lease.ttl_seconds


def _renewed_before(lease: Lease, standings: Mapping[str, Standing]) -> float:
    """Return the life left, in seconds, with which a lease is changed for a new one.

    One that ends with its window is used to the end: a new one would end there as well.
    """
    standing = standings.get(lease.budget_id)
    if standing is not None and lease.expires_at >= standing.window_end:
        return 0.0
    return RENEW_RATIO * lease.ttl_seconds
