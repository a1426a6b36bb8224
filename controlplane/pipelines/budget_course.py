"""How a budget comes to its limit: what was spent by when, and where it is likely to end.

Two flows share it: the watch, which tells of it, and the API, which shows it.
"""

import itertools
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

import msgspec

from controlplane.alerts.burn import Spent
from controlplane.alerts.forecast import MAX_DAYS, Forecast, forecast
from controlplane.budgets.budget import Budget
from controlplane.budgets.ledger import Amounts
from controlplane.core.calendar import Window

DAY: Final = timedelta(days=1)
SHORTEST_BY_DAYS: Final = timedelta(days=6)
"""A window with fewer days is forecast by its own run rate."""
MAX_POINTS: Final = 62
CONE_POINTS: Final = 16
STEPS: Final = (
    *(timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1), timedelta(hours=6)),
    *(DAY, timedelta(days=7)),
)


class SpentByBudget(Protocol):
    """What is asked of storage."""

    def spent(self, budget_id: str, spans: Sequence[Window]) -> list[Spent]:
        """Return what was spent by calls of each span, and in how many postings of calls."""
        ...

    def spent_of(self, budget_id: str, window: Window, spans: Sequence[Window]) -> list[int]:
        """Return what calls of each span moved in windows that start in `window`, restated too."""
        ...


class Reached(msgspec.Struct, frozen=True):
    """What the window had come to at a moment, in the budget's unit."""

    at: datetime
    amount: int


class Expected(msgspec.Struct, frozen=True):
    """What the window is likely to have come to at a moment."""

    at: datetime
    amounts: Forecast


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """The current window of a budget."""

    window: Window
    used: int
    reached: tuple[Reached, ...]
    """From the window's start to now; the last is `used`. Empty where the window rolls."""
    expected: tuple[Expected, ...]
    """From now to the window's end; empty where too little is known."""
    exhausted_at: datetime | None
    """When the median meets the limit; None: not within this window, or not known."""


class DaysSpent:
    """What budgets came to on whole days (UTC); each is asked for once an hour: calls come late."""

    def __init__(self, budgets: SpentByBudget) -> None:
        self._budgets = budgets
        self._known: dict[tuple[str, datetime, datetime], int] = {}

    def last(self, budget: Budget, now: datetime) -> list[int]:
        """Return the last whole days of which the budget counted all, oldest first."""
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        starts = [today - back * DAY for back in range(MAX_DAYS, 0, -1)]
        starts = [start for start in starts if start >= budget.counts_from]
        hour = now.replace(minute=0, second=0, microsecond=0)
        missing = [start for start in starts if (budget.id, start, hour) not in self._known]
        spans = [Window(start, start + DAY) for start in missing]
        for start, spent in zip(missing, self._budgets.spent(budget.id, spans), strict=True):
            self._known[budget.id, start, hour] = spent.amount
        return [self._known[budget.id, start, hour] for start in starts]

    def forget_before(self, now: datetime) -> None:
        """Let go of what was asked for in hours that are over."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        self._known = {key: spent for key, spent in self._known.items() if key[2] == hour}


def is_forecast_by_days(budget: Budget, now: datetime) -> bool:
    """Whether the window ends, and has days enough to speak for it."""
    window = budget.window(now)
    return not budget.is_rolling and window.end - window.start >= SHORTEST_BY_DAYS


def day_part(now: datetime) -> float:
    """Return how much of the day (UTC) is over."""
    return (now - now.replace(hour=0, minute=0, second=0, microsecond=0)) / DAY


def course(budget: Budget, amounts: Amounts, now: datetime, *, budgets: SpentByBudget) -> Course:
    """Look at the current window of a budget.

    Args:
        budget: whose.
        amounts: of its current window, now.
        now: aware UTC.
        budgets: where what was spent is kept.
    """
    window = budget.counted_window(now)
    used = amounts.total_nusd - amounts.leased_nusd
    expected: tuple[Expected, ...] = ()
    if is_forecast_by_days(budget, now):
        days = DaysSpent(budgets).last(budget, now)
        expected = _cone(used, days, start=now, end=window.end)
    return Course(
        window=window,
        used=used,
        reached=() if budget.is_rolling else _reached(budget, used, now, budgets=budgets),
        expected=expected,
        exhausted_at=_exhausted_at(expected, budget.limit_at(now)),
    )


def _reached(
    budget: Budget, used: int, now: datetime, *, budgets: SpentByBudget
) -> tuple[Reached, ...]:
    window = budget.window(now)
    length = window.end - window.start
    step = next((one for one in STEPS if length / one <= MAX_POINTS), length / MAX_POINTS)
    ends = [window.start + step * n for n in range(1, math.ceil((now - window.start) / step))]
    starts = [window.start, *ends]
    spans = [Window(start, end) for start, end in zip(starts, ends, strict=False)]
    points = [Reached(window.start, 0)]
    for span, amount in zip(spans, budgets.spent_of(budget.id, window, spans), strict=True):
        points.append(Reached(span.end, points[-1].amount + amount))
    return (*points, Reached(now, used))


def _cone(
    used: int, days: Sequence[int], *, start: datetime, end: datetime
) -> tuple[Expected, ...]:
    points = []
    for step in range(CONE_POINTS + 1):
        at = start + (end - start) * step / CONE_POINTS
        amounts = forecast(used, days, days_left=(at - start) / DAY, day_part=day_part(start))
        if amounts is None:
            return ()
        points.append(Expected(at, amounts))
    return tuple(points)


def _exhausted_at(expected: Sequence[Expected], limit: int) -> datetime | None:
    """Return when the median meets the limit; it is a line from point to point."""
    if expected and expected[0].amounts.p50 >= limit:
        return expected[0].at
    for before, after in itertools.pairwise(expected):
        if after.amounts.p50 >= limit:
            risen = after.amounts.p50 - before.amounts.p50
            share = (limit - before.amounts.p50) / risen
            return before.at + (after.at - before.at) * share
    return None
