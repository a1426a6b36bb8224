"""When a budget burns: by how much beyond the plan, in both windows, and never on single calls."""

from datetime import timedelta

import pytest

from controlplane.alerts.alert import Severity
from controlplane.alerts.burn import RULES, Pace, Spent, burns, rules_for

HOUR = timedelta(hours=1)
MONTH = timedelta(days=30)
LIMIT = 72_000
"""100 an hour over a month."""
PAGE, TICKET, SURGE = RULES


def _burns(long: int, short: int, *, calls: int = 100, least: int = 0, **usual: int) -> list[str]:
    week = {name: (amount, amount) for name, amount in usual.items()}
    pace = Pace(PAGE, Spent(long, calls), Spent(short, calls), **week)
    return [
        burn.rule.severity for burn in burns([pace], limit=LIMIT, period=MONTH, least_amount=least)
    ]


@pytest.mark.parametrize(
    ("long", "short", "expected"),
    [
        (100, 9, []),  # the planned pace
        (1_539, 500, []),  # 100 planned and 14.4 times as much beyond it: 1,540
        (1_540, 500, [Severity.PAGE]),
        (5_000, 128, []),  # it was, and is calm now: 8.3 planned and 120 beyond it
        (5_000, 129, [Severity.PAGE]),
    ],
)
def test_both_windows_must_be_beyond_the_plan(
    long: int, short: int, expected: list[Severity]
) -> None:
    assert expected == _burns(long, short)


def test_what_is_usual_at_this_time_of_the_week_is_no_burn() -> None:
    """A weekly batch job, once it was seen in both weeks before."""
    assert [] == _burns(5_000, 500, usual_long=4_900, usual_short=490)
    assert [Severity.PAGE] == _burns(5_000, 500, usual_long=3_000, usual_short=250)
    one_week = Pace(PAGE, Spent(5_000, 99), Spent(500, 9), (4_900, 0), (490, 0))
    assert burns([one_week], limit=LIMIT, period=MONTH, least_amount=0)


def test_few_calls_and_little_money_wake_nobody() -> None:
    assert [] == _burns(5_000, 500, calls=19)
    assert [] == _burns(5_000, 500, least=4_901)
    assert [Severity.PAGE] == _burns(5_000, 500, least=4_900)


@pytest.mark.parametrize(
    ("period", "factors"),
    [
        (HOUR, []),
        (timedelta(hours=4), [3.0]),
        (timedelta(days=1), [3.0, 3.0, 1.5]),
        (timedelta(days=7), [3.36, 3.0, 1.5]),
        (MONTH, [14.4, 6.0, 1.5]),
        (timedelta(days=90), [43.2, 18.0, 4.32]),
    ],
)
def test_factors_come_from_the_length_of_the_period(
    period: timedelta, factors: list[float]
) -> None:
    """Share x period / window, at least a rule's own; no window longer than a quarter of its period."""
    found = [rule.factor(period) for rule in rules_for(period)]
    assert factors == pytest.approx(found)


def test_the_short_window_is_a_twelfth() -> None:
    assert [5, 30, 10] == [rule.short // timedelta(minutes=1) for rule in RULES]
    assert (Severity.PAGE, Severity.TICKET) == (PAGE.severity, TICKET.severity)


def _surges(long: int, short: int, *, calls: int = 100, usual: tuple[int, ...] = (200, 200)) -> int:
    of_short = tuple(one // 12 for one in usual)
    pace = Pace(SURGE, Spent(long, calls), Spent(short, calls), usual, of_short)
    return len(burns([pace], limit=LIMIT, period=MONTH, least_amount=0))


def test_a_surge_is_against_what_is_usual() -> None:
    """Two hours are 200 by plan; 4 permille of the limit, 288, is less than half as much again."""
    assert 1 == _surges(600, 50)  # three times
    assert 1 == _surges(500, 42)
    assert 0 == _surges(499, 50)
    assert 0 == _surges(600, 41)  # it was, and is calm now
    assert 0 == _surges(600, 50, calls=59)
    assert 0 == _surges(600, 50, usual=(200, 300))  # the larger: 750 would be
    assert 1 == _surges(750, 63, usual=(200, 300))
    assert 0 == _surges(600, 50, usual=())  # not known
    assert 0 == _surges(600, 50, usual=(200, 0))
