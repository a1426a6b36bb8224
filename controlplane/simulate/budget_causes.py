"""Where the money was when a call was refused that would have fit."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from controlplane.agent.holder import Holder
from controlplane.simulate.budget_stage import Stage


class Cause(StrEnum):
    """The first place, in this order, that would have made the call fit with those before it."""

    SERVER = "server"
    """The ledger had it free: the agent's question or its answer was late, or it did not ask."""
    OWN = "own"
    """In the agent's own leases, in parts."""
    OTHERS = "others"
    """In the leases of other agents."""
    UNSETTLED = "unsettled"
    """Calls had ended, and the ledger had not heard of it."""
    LOST = "lost"
    """In leases that nobody alive has: their grant was lost, or their process ended."""
    UNPROVEN = "unproven"
    """Charged in full to holders that fell silent."""
    TIME = "time"
    """Nowhere: earlier refusals had kept it free in the comparison only."""


def cause_of(stage: Stage, holder: Holder, *, least_nusd: int) -> Cause:
    """Say where the money was that a refused call of this holder needed."""
    places = [_places(stage, holder, budget) for budget in stage.budgets]
    summed = 0
    tightest = min(places, key=lambda one: one[Cause.SERVER] + one[Cause.OWN])
    for cause, nusd in tightest.items():
        summed += max(0, nusd)
        if summed >= least_nusd:
            return cause
    return Cause.TIME


def _places(stage: Stage, holder: Holder, budget_id: str) -> Mapping[Cause, int]:
    amounts = stage.server.amounts(budget_id)
    alive = [proxy.agent.holder for proxy in stage.proxies if proxy.is_up]
    others = [one for one in alive if one is not holder]
    left = _left(others, budget_id)
    own = holder.book.left_nusd(budget_id)
    held = sum(one.queue.open_nusd().get(budget_id, 0) for one in alive)
    unsettled = sum(
        settle.held.get(budget_id, settle.held_nusd)
        for one in alive
        for settle in one.queue.batch()
        if budget_id in settle.leases
    )
    return {
        Cause.SERVER: stage.truth.limits[budget_id] - amounts.total_nusd,
        Cause.OWN: own,
        Cause.OTHERS: left,
        Cause.UNSETTLED: unsettled,
        Cause.LOST: amounts.leased_nusd - own - left - held - unsettled,
        Cause.UNPROVEN: amounts.unproven_nusd,
    }


def _left(holders: Iterable[Holder], budget_id: str) -> int:
    return sum(holder.book.left_nusd(budget_id) for holder in holders)
