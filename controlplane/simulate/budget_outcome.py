"""What one simulated run came to."""

import msgspec

from controlplane.budgets.ledger import Amounts
from controlplane.simulate.budget_causes import Cause
from controlplane.simulate.budget_clients import Clients
from controlplane.simulate.budget_schedule import Kind
from controlplane.simulate.budget_stage import Stage


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one run came to."""

    seed: str
    weather: str
    unit: str
    holds: int
    proxies: int
    asked: int
    admitted: int
    denied: int
    falsely_denied: int
    false_denial_causes: dict[str, int]
    """By where the money was; see `budget_causes.Cause`."""
    denied_cut_off: int
    """Would have fit, but agent and server did not reach each other; not among the false ones."""
    unserved: int
    overspend_nusd: int
    debt_nusd: int
    """By the ledger, bypassing calls left out."""
    utilization_ratio: float | None
    """Of the tightest budget; null when fewer calls were wanted than it could pay for."""
    stranded_ratio: float
    """Part of the limit that is charged or leased and was never spent."""
    syncs: int
    lease_calls: int
    lease_calls_of_large: int
    asked_of_large: int
    at_ceiling: int
    is_conserved: bool


def outcome_of(stage: Stage, clients: Clients) -> Outcome:
    """Say what it came to."""
    schedule, truth = stage.schedule, stage.truth
    windows = stage.windows()
    amounts = {window[0]: stage.server.amounts(window[0]) for window in windows}
    bypassed = {window[0]: truth.bypassed_nusd.get(window, 0) for window in windows}
    spent = {window[0]: truth.spent_nusd.get(window, 0) for window in windows}
    return Outcome(
        seed=schedule.seed,
        weather=schedule.weather.value,
        unit=schedule.unit.value,
        holds=schedule.holds,
        proxies=schedule.proxies,
        asked=truth.asked,
        admitted=truth.admitted,
        denied=truth.denied,
        falsely_denied=truth.falsely_denied,
        false_denial_causes={cause.value: clients.causes[cause] for cause in Cause},
        denied_cut_off=truth.denied_cut_off,
        unserved=truth.unserved,
        overspend_nusd=truth.overspend_nusd,
        debt_nusd=sum(
            max(0, amounts[name].total_nusd - bypassed[name] - truth.allowed_nusd[(name, start)])
            for name, start in windows
        ),
        utilization_ratio=_utilization(stage, spent),
        stranded_ratio=max(
            (_held(amounts[name]) - spent[name]) / max(1, truth.limits[name]) for name, _ in windows
        ),
        syncs=stage.server.counts.syncs,
        lease_calls=stage.server.counts.lease_calls,
        lease_calls_of_large=stage.server.counts.lease_calls_of_large,
        asked_of_large=clients.asked_of_large,
        at_ceiling=clients.at_ceiling,
        is_conserved=all(spent[name] <= _held(amounts[name]) for name in amounts),
    )


def _utilization(stage: Stage, spent: dict[str, int]) -> float | None:
    changes = any(event.kind is Kind.LIMIT for event in stage.schedule.events)
    limits = stage.truth.limits
    tightest = min(limits, key=lambda name: limits[name])
    wanted = stage.truth.offered_nusd >= 1.2 * limits[tightest] > 0  # half a request is none
    if changes or stage.schedule.rolls or stage.schedule.traffic.bypass_ratio or not wanted:
        return None
    return spent[tightest] / limits[tightest]


def _held(amounts: Amounts) -> int:
    return amounts.enforced_nusd + amounts.unproven_nusd + amounts.leased_nusd
