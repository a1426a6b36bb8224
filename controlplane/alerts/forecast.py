"""Where a budget will be at the end of its window: a median and how far it may be off.

Two weeks of days repeat by the day of the week; fewer are taken as alike. What is left of the window
costs what such days cost. It spreads with how far the days lie apart, how little they say of their mean, and
how the level moved from one week to the next. Floats are right here: it is a statistic.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Final

import msgspec

MIN_DAYS: Final = 3
WEEK: Final = 7
MAX_DAYS: Final = 2 * WEEK
Z_P90: Final = 1.2816
"""Standard normal deviate that nine tenths lie below."""
Z_WEEKS: Final = 1.6
"""The same where the spread is known from seven differences only: Student's 1.415 and a margin, with
which the cone holds four in five held-out days of every simulated year (tests/unit/alerts)."""


class Forecast(msgspec.Struct, frozen=True):
    """At the end of the window, in the budget's unit."""

    p10: int
    p50: int
    p90: int


def forecast(
    used: int, days: Sequence[int], *, days_left: float, day_part: float = 0.0
) -> Forecast | None:
    """Project the last whole days; None where they are too few.

    Args:
        used: in the window, up to now.
        days: what each whole day came to, at most MAX_DAYS, yesterday last.
        days_left: of the window.
        day_part: how much of today is over; with a whole number of weeks today is like the first.
    """
    if len(days) < MIN_DAYS or days_left < 0:
        return None
    if len(days) < MAX_DAYS:
        more = statistics.fmean(days) * days_left
        deviation = statistics.stdev(days)
        spread = Z_P90 * deviation * math.sqrt(days_left * (1 + days_left / len(days)))
    else:
        more, spread = _by_weeks(days[-MAX_DAYS:], days_left, day_part)
    middle = used + more
    return Forecast(int(max(used, middle - spread)), int(middle), int(middle + spread))


def _by_weeks(days: Sequence[int], days_left: float, day_part: float) -> tuple[float, float]:
    """Return what days like those of the last two weeks come to, and its spread."""
    pairs = list(zip(days[:WEEK], days[WEEK:], strict=True))
    usual = [(before + after) / 2 for before, after in pairs]
    more = _until(usual, day_part + days_left) - _until(usual, day_part)
    moves = [after - before for before, after in pairs]
    variance = statistics.fmean(move * move for move in moves) / 2
    # A week's move beyond what such days make by chance is the level's own, and goes on.
    level = max(0.0, statistics.fmean(moves) ** 2 - 2 * variance / WEEK)
    of_mean = max(days_left / 2, days_left * days_left / MAX_DAYS)
    return more, Z_WEEKS * math.sqrt(variance * (days_left + of_mean) + level * days_left**2)


def _until(usual: Sequence[float], at: float) -> float:
    """Return what days that repeat come to from the first's start on."""
    whole, part = divmod(at, 1)
    weeks, rest = divmod(int(whole), len(usual))
    return weeks * math.fsum(usual) + math.fsum(usual[:rest]) + part * usual[rest]
