"""The end of a window from its last days: worked by hand, and held against simulated months."""

import itertools
import random
import statistics

import pytest

from controlplane.alerts.forecast import Forecast, forecast

MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def test_worked_example() -> None:
    """Mean 20, standard deviation 10; four days left: 80 more, +- 1.2816 x 10 x root of 4 x (1 + 4/3)."""
    assert Forecast(140, 180, 219) == forecast(100, [10, 20, 30], days_left=4)


@pytest.mark.parametrize("days", [[], [5], [5, 5]])
def test_too_few_days_say_nothing(days: list[int]) -> None:
    assert forecast(100, days, days_left=4) is None


def test_what_is_spent_stays_spent() -> None:
    assert Forecast(100, 100, 100) == forecast(100, [10, 90, 10], days_left=0)
    found = forecast(100, [0, 0, 300], days_left=1)
    assert found is not None
    assert found.p10 == 100


def test_two_weeks_repeat_by_the_day_of_the_week() -> None:
    """Five days of 10 and two of 1, twice; now is noon of a sixth day: half of 1, then 1, then 10."""
    days = [1, 1, 10, 10, 10, 10, 10] * 2
    for days_left, expected in ((0.5, 0.5), (1.5, 1.5), (2.5, 11.5), (8.5, 53.5), (15.5, 105.5)):
        found = forecast(1_000, [100 * one for one in days], days_left=days_left, day_part=0.5)
        end = int(1_000 + 100 * expected)
        assert found == Forecast(end, end, end)


def _year(chance: random.Random, *, weekend: float, noise: float, trend: float) -> list[int]:
    """365 days from a Thursday on: a weekly shape, growth, a level that wanders, heavy-tailed noise."""
    level, days = 100_000.0, []
    for day in range(365):
        level *= 1 + chance.gauss(trend / 365, 0.01)
        shape = weekend if (day + 3) % 7 >= 5 else 1.0
        days.append(int(level * shape * chance.lognormvariate(0, noise)))
    return days


@pytest.mark.parametrize("weekend", [1.0, 0.35, 0.05])
@pytest.mark.parametrize(("noise", "trend"), [(0.2, 0.0), (0.2, 0.6), (0.4, 0.3)])
def test_the_cone_brackets_four_in_five_held_out_days_of_a_year(
    weekend: float, noise: float, trend: float
) -> None:
    """Of each day of the year, every later day of its month: what was reached lies in P10 to P90."""
    chance, ends = random.Random(20260101), list(itertools.accumulate(MONTHS))
    inside: list[bool] = []
    widths: list[float] = []
    for _ in range(2):
        year = _year(chance, weekend=weekend, noise=noise, trend=trend)
        for today in range(14, 365):
            end = next(end for end in ends if end > today)
            for day in range(today, end):
                reached = sum(year[today : day + 1])
                cone = forecast(0, year[today - 14 : today], days_left=day + 1 - today)
                assert cone is not None
                inside.append(cone.p10 <= reached <= cone.p90)
                widths.append((cone.p90 - cone.p10) / reached)
    assert 0.8 <= statistics.fmean(inside) <= 0.95
    assert statistics.median(widths) < 1  # and says something


def test_the_cone_holds_four_months_in_five() -> None:
    """P10 to P90 brackets what months of noisy days came to, in 70 to 90 % of them."""
    chance, inside = random.Random(7), 0
    for _ in range(400):
        days = [max(0, int(chance.gauss(1_000, 300))) for _ in range(30)]
        cone = forecast(sum(days[:15]), days[1:15], days_left=15)
        assert cone is not None
        inside += cone.p10 <= sum(days) <= cone.p90
    assert 280 <= inside <= 360
