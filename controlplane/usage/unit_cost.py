"""What one of something costs, and how concentrated cost is; pure arithmetic over answers.

Numerator and denominator stay visible beside every figure; without a denominator there is no figure
(never infinity, never 0). Costs are what is priced: the caller says what that leaves out.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final

import msgspec

from controlplane.core.fiscal import Dates

TOKENS_PER_FIGURE: Final = 1_000_000
SECONDS_PER_HOUR: Final = 3_600
MAX_CURVE_POINTS: Final = 100


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """`cost_nusd` over `denominator`; `unit_cost_nusd` None where the denominator is 0 or unknown.

    `reason` says why a denominator is not known.
    """

    name: str
    cost_nusd: int
    denominator: Fraction | None
    unit_cost_nusd: int | None
    reason: str | None = None


def figure(
    name: str, cost_nusd: int, denominator: Fraction | int | None, *, reason: str | None = None
) -> Figure:
    """Divide, rounded half-even to a nano-dollar for display."""
    exact = None if denominator is None else Fraction(denominator)
    unit = round(Fraction(cost_nusd) / exact) if exact else None
    return Figure(
        name=name, cost_nusd=cost_nusd, denominator=exact, unit_cost_nusd=unit, reason=reason
    )


class Concentration(msgspec.Struct, frozen=True, kw_only=True):
    """How unevenly cost is spread over the groups of one dimension.

    `gini` is 0 when all cost the same and approaches 1 when one costs everything. `half` and `most`
    are how many of the dearest groups together make 50 and 80 percent. `curve` is (groups so far,
    cost so far), the dearest first, thinned to MAX_CURVE_POINTS; the last point is the whole.
    """

    groups: int
    cost_nusd: int
    gini: float | None
    half: int
    most: int
    curve: tuple[tuple[int, int], ...]


def concentration(costs_nusd: Sequence[int]) -> Concentration:
    """Measure the concentration of costs, one per group, in any order; all are 0 or more."""
    falling = sorted(costs_nusd, reverse=True)
    total = sum(falling)
    reached: list[int] = []
    so_far = 0
    for cost in falling:
        so_far += cost
        reached.append(so_far)
    return Concentration(
        groups=len(falling),
        cost_nusd=total,
        gini=gini(falling),
        half=_needed(reached, total * 50, 100),
        most=_needed(reached, total * 80, 100),
        curve=_curve(reached),
    )


def gini(costs_nusd: Sequence[int]) -> float | None:
    """Return the Gini coefficient, sum over pairs of |x - y| / (2 n sum); None without cost.

    Exact over integers and rounded once.
    """
    rising, total = sorted(costs_nusd), sum(costs_nusd)
    count = len(rising)
    if not total:
        return None
    weighted = sum((2 * place - count - 1) * cost for place, cost in enumerate(rising, start=1))
    return float(Fraction(weighted, count * total))


def _needed(reached: Sequence[int], wanted: int, scale: int) -> int:
    """Return how many of the first groups reach `wanted` / `scale`."""
    if not reached or not reached[-1]:
        return 0
    return next(place for place, cost in enumerate(reached, start=1) if cost * scale >= wanted)


def _curve(reached: Sequence[int]) -> tuple[tuple[int, int], ...]:
    count = len(reached)
    step = max(1, -(-count // MAX_CURVE_POINTS))
    kept = sorted({*range(step - 1, count, step), count - 1}) if count else []
    return tuple((at + 1, reached[at]) for at in kept)


class MetricDay(msgspec.Struct, frozen=True):
    """A business metric on one day; None where nothing was uploaded: a gap, not a 0."""

    day: date
    value: Decimal | None


def metric_days(values: Mapping[date, Decimal], days: Dates) -> tuple[MetricDay, ...]:
    """Return each of the days with its value or its gap."""
    count = (days.end - days.start).days
    every = (days.start + timedelta(days=number) for number in range(count))
    return tuple(MetricDay(day, values.get(day)) for day in every)


def metric_total(days: Sequence[MetricDay]) -> Fraction | None:
    """Sum a metric; None where no day has a value."""
    known = [Fraction(one.value) for one in days if one.value is not None]
    return sum(known, Fraction(0)) if known else None
