"""The lease book: what is held from leases, what is asked for, and what is given back when.

What is left of a lease is given back when it ends, is idle while others need it, or is too small
for a call that waits. None of this can overspend: that is up to `Leases` alone.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from typing_extensions import override

from controlplane.agent.demand import Demand
from controlplane.agent.lease import Instant, Lease, Leases
from controlplane.agent.refusals import Refusals, Refused
from controlplane.policy.wire import Grant, LeaseReturn, LeaseWant, Standing

RENEW_RATIO: Final = 0.25  # of the lease's life; then it is given back and asked for anew
SHORT_SECONDS: Final = 0.1  # how long "not enough" is taken for an answer
FIRST_CALLS: Final = 16  # a lease is for so many while nobody knows yet what is used
FIRST_PARTS: Final = 16  # or for such a part of what is free, where that is more
IDLE_SECONDS: Final = 2.0  # an unused lease goes back when others may need it
ESCROW_FRESH_RATIO: Final = 0.75  # of its life; with less left another is asked for
ESCROW_AGAIN_SECONDS: Final = 10.0  # after one was refused or recalled
RECALLED_SECONDS: Final = 0.1  # a lease that is asked back and was not used for this long goes
LEAVING_SECONDS: Final = 1.0  # the same of a process that is about to end


class Need(msgspec.Struct, frozen=True):
    """A waiting call: its ceiling, and the least that it could be cut to."""

    held_nusd: int
    least_nusd: int


class LeaseBook(Leases):
    """Every open lease of this holder, and what it knows of what it will need."""

    def __init__(self) -> None:
        super().__init__()
        self._demand: dict[str, Demand] = {}
        self._refusals = Refusals()
        self._escrow_asked: dict[str, Instant] = {}

    def accept(self, grant: Grant, asked: Instant, *, least_nusd: int = 0) -> bool:
        """Take a grant in; False when it is a refusal (amount 0) of at least so much."""
        if grant.is_escrow and grant.amount_nusd <= 0:
            return False  # it says nothing of what calls may have
        demand = self._demand.setdefault(grant.budget_id, Demand())
        if grant.amount_nusd <= 0:
            self._refusals.add(grant.budget_id, Refused(asked, grant.ttl_seconds, least_nusd))
            return False
        self.open(grant, asked)
        if not grant.is_escrow:
            self._refusals.drop(grant.budget_id)
            demand.filled(self.left_nusd(grant.budget_id))
        return True

    @override
    def hold(self, amounts: Mapping[str, int], now: Instant) -> dict[str, str] | None:
        leases = super().hold(amounts, now)
        for budget_id in leases or ():
            self._demand.setdefault(budget_id, Demand()).held(amounts[budget_id])
        return leases

    @override
    def release(self, leases: Mapping[str, str], unused: Mapping[str, int]) -> dict[str, int]:
        for budget_id in leases:
            if budget_id in self._demand:
                self._demand[budget_id].released(unused.get(budget_id, 0))
        return super().release(leases, unused)

    def holds_of(self, recalled: Collection[str]) -> bool:
        """Whether it has what others wait for; escrow is not: the next sync returns it."""
        return any(one.budget_id in recalled and not one.is_escrow for one in self.leases)

    def fell_short(self, budget_id: str, least_nusd: int, now: Instant) -> None:
        """Remember for a while that calls which need this much are not served."""
        is_short = self.fits([budget_id], now)[budget_id] < least_nusd
        if is_short and not self.is_refused(budget_id, least_nusd, now):
            self._refusals.add(budget_id, Refused(now, SHORT_SECONDS, least_nusd))

    def is_refused(self, budget_id: str, needed_nusd: int, now: Instant) -> bool:
        """Whether the server has said that there is not so much."""
        return self.refused_seconds(budget_id, needed_nusd, now) > 0

    def refused_seconds(self, budget_id: str, needed_nusd: int, now: Instant) -> float:
        """Return for how long it makes no sense to ask for so much; 0: it does."""
        return self._refusals.seconds(budget_id, needed_nusd, now)

    def forget_refusal(self, budget_ids: Iterable[str], now: Instant) -> None:
        """A call's money goes back to the server: asking makes sense again."""
        for budget_id in budget_ids:
            self._refusals.freed(budget_id, now)

    def forget_refusals(self, now: Instant) -> None:
        """Another policy is in force: what was refused under the last one says nothing."""
        self._refusals.renew(now)

    def heard(self, standing: Standing) -> bool:
        """Take what the server says is free; True when it is enough for what it had refused."""
        return self._refusals.heard(standing)

    def give_back(
        self,
        needs: Mapping[str, int],
        now: Instant,
        *,
        standings: Mapping[str, Standing] | None = None,
        recalled: Iterable[str] = (),
        is_leaving: bool = False,
        escrows: Mapping[str, int] | None = None,
    ) -> tuple[LeaseReturn, ...]:
        """Close leases that are ending, empty, too small for a waiting call, or needed elsewhere.

        What is closed can not be held from any more; the return must reach the server.

        Args:
            needs: by budget, the largest hold that a call waits for.
            now: on both clocks.
            standings: where the budgets' money is, as last told.
            recalled: budgets that the server wants back what is not in use of.
            is_leaving: whether this process is about to end: then all that is not in use goes.
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
                and lease.budget_id not in asked_back
                and not is_leaving,
            )
        ]
        closing += [
            lease
            for lease in self.leases
            if not lease.is_escrow
            and (
                self._ends(lease, needs, now, standings=standings or {}, asked_back=asked_back)
                or (is_leaving and lease.used.seconds_until(now) > LEAVING_SECONDS)
            )
        ]
        return self._close(closing)

    def give_back_spent(
        self, now: Instant, *, standings: Mapping[str, Standing]
    ) -> tuple[LeaseReturn, ...]:
        """Close what has too little left for a call: no reason to speak, but where one does anyway."""
        return self._close(
            [
                one
                for one in self.leases
                if one.left_nusd == 0
                or (
                    self._is_spent(one)
                    and one.life_left_seconds(now) < _renewed_before(one, standings)
                )
            ]
        )

    def _is_spent(self, lease: Lease) -> bool:
        """Whether calls of late would not fit in what it has left."""
        return not lease.is_escrow and lease.left_nusd < self._demand[lease.budget_id].largest

    def _ends(
        self,
        lease: Lease,
        needs: Mapping[str, int],
        now: Instant,
        *,
        standings: Mapping[str, Standing],
        asked_back: Collection[str],
    ) -> bool:
        is_urgent = not (self._is_spent(lease) or self._has_younger(lease, now))
        renewed_before = _renewed_before(lease, standings) if is_urgent else 0.0
        return (
            lease.life_left_seconds(now) < renewed_before
            or self.fits([lease.budget_id], now)[lease.budget_id] < needs.get(lease.budget_id, 0)
            or self._is_idle(lease, now, standings, is_recalled=lease.budget_id in asked_back)
        )

    def _has_younger(self, lease: Lease, now: Instant) -> bool:
        """Whether calls can go on with another lease: then this one is used to its end first."""
        life = lease.life_left_seconds(now)
        largest = self._demand[lease.budget_id].largest
        return any(
            one.left_nusd >= largest and one.life_left_seconds(now) > life
            for one in self._leases[lease.budget_id].values()
            if not one.is_escrow
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

    def wants(
        self,
        needs: Mapping[str, Sequence[Need]],
        *,
        elapsed_seconds: float,
        now: Instant,
        in_advance: bool = True,
        recalled: Collection[str] = (),
        free: Mapping[str, int] | None = None,
    ) -> tuple[LeaseWant, ...]:
        """Say what to ask for: what waiting calls lack, and busy budgets before they run dry.

        One that is about to end asks for nothing `in_advance`, and nobody of what is `recalled`.

        Args:
            needs: by budget, of the calls that wait.
            elapsed_seconds: since the last time.
            now: on both clocks.
            in_advance: whether to ask for more than those calls need.
            recalled: budgets that the server wants back what is not in use of.
            free: by budget, what may be free there as far as is known.
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
            first = max(FIRST_CALLS * largest, (free or {}).get(budget_id, 0) // FIRST_PARTS)
            ahead = (demand.ahead or first) if in_advance else demand.soon
            want_nusd = max(0, ahead + total - left)
            if total > left or largest > self.fits([budget_id], now)[budget_id]:
                least = min(need.least_nusd for need in waiting)
                wants.append(LeaseWant(budget_id, want_nusd, max(largest, total - left), least))
            elif (
                in_advance
                and budget_id not in recalled
                and demand.is_low(left)
                and not self._refusals.is_recent(budget_id, now)
            ):
                wants.append(LeaseWant(budget_id, want_nusd, demand.largest, demand.largest))
        return tuple(wants)


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
