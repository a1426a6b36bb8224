"""The end of a window from its last days: worked by hand, and held against simulated months."""

import random

import pytest

from controlplane.alerts.forecast import Forecast, forecast


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


def test_the_cone_holds_four_months_in_five() -> None:
    """P10 to P90 brackets what months of noisy days came to, in 70 to 90 % of them."""
    chance, inside = random.Random(7), 0
    for _ in range(400):
        days = [max(0, int(chance.gauss(1_000, 300))) for _ in range(30)]
        cone = forecast(sum(days[:15]), days[1:15], days_left=15)
        assert cone is not None
        inside += cone.p10 <= sum(days) <= cone.p90
    assert 280 <= inside <= 360
