"""Where a budget will be at the end of its window: a median and how far it may be off.

Days are taken as alike and independent of each other: what is left of the window costs so many mean
days. It spreads with the root of their number, and with how little the days say of their mean. Floats are right here: it is a statistic.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Final

import msgspec

MIN_DAYS: Final = 3
MAX_DAYS: Final = 14
Z_P90: Final = 1.2816
"""Standard normal deviate that nine tenths lie below."""


class Forecast(msgspec.Struct, frozen=True):
    """At the end of the window, in the budget's unit."""

    p10: int
    p50: int
    p90: int


def forecast(used: int, days: Sequence[int], *, days_left: float) -> Forecast | None:
    """Project the last whole days; None where they are too few.

    Args:
        used: in the window, up to now.
        days: what each whole day came to, at most MAX_DAYS.
        days_left: of the window.
    """
    if len(days) < MIN_DAYS or days_left < 0:
        return None
    middle = used + statistics.fmean(days) * days_left
    spread = Z_P90 * statistics.stdev(days) * math.sqrt(days_left * (1 + days_left / len(days)))
    return Forecast(int(max(used, middle - spread)), int(middle), int(middle + spread))
