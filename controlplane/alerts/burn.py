"""Whether money goes faster than planned: two windows, and the excess over what is usual.

A money budget is meant to be spent, so spending at the planned pace is no alert; what counts is how
much of the limit went beyond the plan. The short window (a twelfth) lets an alert clear soon after.
Where two weeks say what is usual, less is enough: several times that, for two hours.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import msgspec

from controlplane.alerts.alert import Severity

SHORT_PART: Final = 12
MIN_CALLS: Final = 20
"""Fewer in the long window are single calls, not a rate."""
MIN_FACTOR: Final = 3
"""A burn is at least so many times the planned pace beyond it: in a short period an hour is much."""
MAX_WINDOW_PART: Final = 4
"""A window is at most this part of its period: a budget of an hour has no burn over six."""
PERMILLE: Final = 1_000


class BurnRule(msgspec.Struct, frozen=True):
    """So much of the limit beyond the plan within a window."""

    window: timedelta
    share_permille: int
    severity: Severity
    least_factor: float = MIN_FACTOR
    min_calls: int = MIN_CALLS
    is_surge: bool = False
    """Against what is usual, where both weeks before know it; the plan alone is too coarse for so
    little: a working day is several times the plan of its month."""

    @property
    def short(self) -> timedelta:
        """The window that has to burn still."""
        return self.window / SHORT_PART

    def factor(self, period: timedelta) -> float:
        """Return how many times the planned pace the excess must be: share x period / window."""
        return max(self.least_factor, self.share_permille * (period / self.window) / PERMILLE)


RULES: Final = (
    BurnRule(timedelta(hours=1), 20, Severity.PAGE),
    BurnRule(timedelta(hours=6), 50, Severity.TICKET),
    BurnRule(timedelta(hours=2), 4, Severity.PAGE, least_factor=1.5, min_calls=60, is_surge=True),
)
USUAL_AFTER: Final = (timedelta(days=7), timedelta(days=14))
"""What was spent at this time of the week in each of these is usual, where it was in both."""


class Spent(msgspec.Struct, frozen=True):
    """What went in a span of time, and in how many postings."""

    amount: int = 0
    calls: int = 0


class Pace(msgspec.Struct, frozen=True):
    """What a rule looks at: now, and the same spans of earlier weeks."""

    rule: BurnRule
    long: Spent
    short: Spent
    usual_long: tuple[int, ...] = ()
    usual_short: tuple[int, ...] = ()


class Burn(msgspec.Struct, frozen=True):
    """A rule that holds."""

    rule: BurnRule
    amount: int
    expected: int


def rules_for(period: timedelta) -> tuple[BurnRule, ...]:
    """Return the rules that mean something in a period of this length."""
    return tuple(rule for rule in RULES if rule.window * MAX_WINDOW_PART <= period)


def burns(
    paces: Sequence[Pace], *, limit: int, period: timedelta, least_amount: int
) -> tuple[Burn, ...]:
    """Return the rules that hold; pure, in the budget's unit.

    Args:
        paces: of the rules for `period`.
        limit: of the window.
        period: its length.
        least_amount: an excess below this is not worth anybody's time.
    """
    found = []
    for pace in paces:
        rule = pace.rule
        planned = limit * (rule.window / period)
        if planned <= 0 or pace.long.calls < rule.min_calls:
            continue
        usual_long, usual_short = (_usual(rule, one) for one in (pace.usual_long, pace.usual_short))
        if usual_long is None or usual_short is None:
            continue
        expected = max(planned, usual_long)
        expected_short = max(planned / SHORT_PART, usual_short)
        most = rule.factor(period) * planned
        most_short = most / SHORT_PART
        if rule.is_surge:
            most = max(most, rule.least_factor * expected)
            most_short = max(most_short, rule.least_factor * expected_short)
        burns_long = pace.long.amount - expected >= max(most, least_amount)
        if burns_long and pace.short.amount - expected_short >= most_short:
            found.append(Burn(rule, pace.long.amount, int(expected)))
    return tuple(found)


def _usual(rule: BurnRule, weeks: Sequence[int]) -> int | None:
    """Return what is usual of the same span in earlier weeks; None: not known, and has to be.

    What one week only had may have been an incident, so the smaller is usual. A surge is compared
    with the larger: of few calls with a heavy tail the smaller of two is low by chance.
    """
    if not rule.is_surge:
        return min(weeks, default=0)
    return max(weeks) if len(weeks) == len(USUAL_AFTER) and min(weeks) > 0 else None
