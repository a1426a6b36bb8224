"""Many simulated runs, added up: the figures of `controlplane simulate budget`."""

import logging
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from controlplane.simulate.budget_outcome import Outcome
from controlplane.simulate.budget_schedule import Weather, draw
from controlplane.simulate.budget_stage import World
from controlplane.simulate.budget_world import simulate


class Spread(msgspec.Struct, frozen=True):
    """How a figure is distributed over the runs that have it."""

    runs: int
    min: float | None = None
    p05: float | None = None
    p50: float | None = None
    p95: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Sort and cut."""
        ordered = sorted(values)
        if not ordered:
            return cls(0)

        def at(part: float) -> float:
            return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 6)

        return cls(len(ordered), at(0), at(0.05), at(0.5), at(0.95), round(ordered[-1], 6))


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one kind of weather."""

    schedules: int
    overspend_nusd: int
    utilization_ratio: Spread
    utilization_ratio_100_holds: float | None
    utilization_ratio_1000_holds: float | None
    false_denial_ratio: float
    false_denial_ratios: Spread
    false_denial_causes: dict[str, float]
    """The same ratio in parts, by where the money was when a call was refused."""
    denied_cut_off: int
    """Calls that would have fit and came while agent and server did not reach each other: refused
    by design when no lease holds them, so not among the false denials."""
    denied_cut_off_ratio: float
    """Of the calls that would have fit."""
    lease_calls_per_request: float
    sync_calls_per_request: float
    unserved_ratio: float
    """Requests refused because an agent had no policy, or one too old."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What all runs came to; the first four are the product's promises.

    `overspend_nusd`: all schedules, whatever fails. `utilization_ratio`, `false_denial_ratio`:
    schedules in which nothing fails (`calm`), by all of whose budgets more is asked for than there
    is; where machines and networks fail, see `weather`. `lease_calls_per_request`: while the budget
    holds at least 1,000 holds.
    """

    overspend_nusd: int
    utilization_ratio: float | None
    false_denial_ratio: float
    lease_calls_per_request: float | None
    seed: str
    schedules: int
    schedules_by_unit: dict[str, int]
    """Of the budgets' limits: USD, tokens or requests."""
    requests: int
    admitted: int
    at_ceiling_ratio: float
    overspent_schedules: tuple[str, ...]
    unbalanced_schedules: tuple[str, ...]
    """Whose ledger says less than was spent."""
    weather: dict[str, Group]
    stranded_ratio: Spread
    """Part of the limit that was charged or leased and never spent."""


def run_schedules(
    seed: str, numbers: Iterable[int], *, world_of: Callable[[int], World]
) -> Iterator[Outcome]:
    """Run the schedules `seed:number`, each in a world of its own."""
    logging.getLogger("controlplane.agent").setLevel(logging.CRITICAL)
    for number in numbers:
        yield simulate(draw(f"{seed}:{number}"), world_of(number))


def add_up(seed: str, outcomes: Sequence[Outcome]) -> Figures:
    """Compute the figures."""
    calm = [one for one in outcomes if one.weather == Weather.CALM.value]
    large = sum(one.asked_of_large for one in outcomes)
    return Figures(
        overspend_nusd=sum(one.overspend_nusd for one in outcomes),
        utilization_ratio=_mean(_utilization(calm)),
        false_denial_ratio=_falsely_denied(calm),
        lease_calls_per_request=round(sum(one.lease_calls_of_large for one in outcomes) / large, 6)
        if large
        else None,
        seed=seed,
        schedules=len(outcomes),
        schedules_by_unit=dict(sorted(Counter(one.unit for one in outcomes).items())),
        requests=sum(one.asked for one in outcomes),
        admitted=sum(one.admitted for one in outcomes),
        at_ceiling_ratio=_ratio(
            sum(one.at_ceiling for one in outcomes), sum(one.asked for one in outcomes)
        ),
        overspent_schedules=tuple(one.seed for one in outcomes if one.overspend_nusd),
        unbalanced_schedules=tuple(one.seed for one in outcomes if not one.is_conserved),
        weather={
            sky.value: _group([one for one in outcomes if one.weather == sky.value])
            for sky in Weather
        },
        stranded_ratio=Spread.of(one.stranded_ratio for one in outcomes),
    )


def _group(outcomes: Sequence[Outcome]) -> Group:
    asked = sum(one.asked for one in outcomes)
    cut_off = sum(one.denied_cut_off for one in outcomes)
    return Group(
        schedules=len(outcomes),
        overspend_nusd=sum(one.overspend_nusd for one in outcomes),
        utilization_ratio=Spread.of(_utilization(outcomes)),
        utilization_ratio_100_holds=_mean(_utilization(outcomes, holds=100)),
        utilization_ratio_1000_holds=_mean(_utilization(outcomes, holds=1_000)),
        false_denial_ratio=_falsely_denied(outcomes),
        false_denial_ratios=Spread.of(_falsely_denied([one]) for one in outcomes),
        false_denial_causes=_causes(outcomes),
        denied_cut_off=cut_off,
        denied_cut_off_ratio=_ratio(cut_off, cut_off + sum(_could(one) for one in outcomes)),
        lease_calls_per_request=_ratio(sum(one.lease_calls for one in outcomes), asked),
        sync_calls_per_request=_ratio(sum(one.syncs for one in outcomes), asked),
        unserved_ratio=_ratio(sum(one.unserved for one in outcomes), asked),
    )


def _utilization(outcomes: Iterable[Outcome], *, holds: int | None = None) -> list[float]:
    return [
        one.utilization_ratio
        for one in outcomes
        if one.utilization_ratio is not None and holds in {None, one.holds}
    ]


def _falsely_denied(outcomes: Iterable[Outcome]) -> float:
    """Return the part of the calls that would have fit which was denied all the same."""
    denied = admitted = 0
    for one in outcomes:
        denied, admitted = denied + one.falsely_denied, admitted + one.admitted
    return _ratio(denied, denied + admitted)


def _causes(outcomes: Iterable[Outcome]) -> dict[str, float]:
    found: Counter[str] = Counter()
    could = 0
    for one in outcomes:
        found.update(one.false_denial_causes)
        could += _could(one)
    return {cause: _ratio(number, could) for cause, number in found.items()}


def _could(one: Outcome) -> int:
    return one.falsely_denied + one.admitted


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 6) if values else None
