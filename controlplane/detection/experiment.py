"""Compare the arms of an experiment while it runs: intervals that hold at every look.

A person who looks daily and stops at the first good day is wrong far more often than a test that is
meant to be read once says. Asymptotic confidence sequences (Waudby-Smith, Arbour, Sinha, Kennedy,
Ramdas 2021, Time-uniform central limit theory, theorem 2.2) hold at all sample sizes at once:

    mean ± s * sqrt(2 (n r² + 1) / (n² r²) * log(sqrt(n r² + 1) / a))

with r chosen to be tightest near TARGET_UNITS (there, section 2.3). Two arms share a: the interval of
their difference is the widest that both intervals allow, so it holds whatever the arms' sizes.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

ALPHA: Final = 0.05
TARGET_UNITS: Final = 500
MIN_UNITS: Final = 30
"""With fewer in either arm nothing is decided: the theory is of large numbers."""


class Interval(msgspec.Struct, frozen=True):
    """Bounds that hold at this and every other look with probability 1 - alpha."""

    low: float
    high: float


class ArmSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What one arm's units did in one measure."""

    units: int
    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "ArmSummary":
        """Summarize one value per unit."""
        units = len(values)
        if not units:
            return cls(units=0, mean=0.0, deviation=0.0)
        mean = math.fsum(values) / units
        spread = math.fsum((value - mean) ** 2 for value in values)
        return cls(units=units, mean=mean, deviation=math.sqrt(spread / max(1, units - 1)))


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """An arm against the control; `verdict` is what may be said now, however often one looks."""

    difference: float
    interval: Interval | None
    """Of the difference, None while there are too few units."""
    relative: float | None
    """Difference / the control's mean."""
    verdict: str  # lower | higher | undecided


def compare(control: ArmSummary, arm: ArmSummary, *, alpha: float = ALPHA) -> Comparison:
    """Say whether an arm differs from the control."""
    difference = arm.mean - control.mean
    relative = difference / control.mean if control.mean else None
    if min(control.units, arm.units) < MIN_UNITS:
        return Comparison(
            difference=difference, interval=None, relative=relative, verdict="undecided"
        )
    reach = half_width(control, alpha=alpha / 2) + half_width(arm, alpha=alpha / 2)
    interval = Interval(difference - reach, difference + reach)
    verdict = "undecided"
    if interval.high < 0:
        verdict = "lower"
    elif interval.low > 0:
        verdict = "higher"
    return Comparison(difference=difference, interval=interval, relative=relative, verdict=verdict)


def half_width(arm: ArmSummary, *, alpha: float) -> float:
    """Return half the width of the confidence sequence of an arm's mean at its size."""
    n, square = arm.units, _tuning(alpha)
    grown = n * square + 1
    return arm.deviation * math.sqrt(
        2 * grown / (n * n * square) * math.log(math.sqrt(grown) / alpha)
    )


def _tuning(alpha: float) -> float:
    """Return r², tightest near TARGET_UNITS."""
    log = -2 * math.log(alpha)
    return (log + math.log(log + 1)) / TARGET_UNITS
