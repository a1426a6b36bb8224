"""The cost detector: quiet on noise, holidays and cold starts; loud on what costs money."""

import numpy as np
import pytest

from controlplane.detection.baseline import BUCKETS_PER_DAY, expectation
from controlplane.detection.heads import MIN_EXCESS_NUSD, Excess, cost_excess

WEEK = 7 * BUCKETS_PER_DAY
CENTS = 10_000_000


def _weeks(*, seed: int, groups: int, weeks: int) -> np.ndarray:
    """Human-shaped cost: daily wave, quiet weekends, log-normal noise; nano-USD a quarter hour."""
    rng = np.random.default_rng(seed)
    at = np.arange(weeks * WEEK)
    wave = 1 + 0.7 * np.sin(2 * np.pi * at / BUCKETS_PER_DAY - 2)
    weekend = np.where(at // BUCKETS_PER_DAY % 7 >= 5, 0.3, 1.0)
    level = rng.uniform(20, 2000, groups) * CENTS
    noise = rng.lognormal(0, 0.25, (groups, len(at)))
    return level[:, None] * wave * weekend * noise


def test_expectation_of_a_repeating_day_is_that_day() -> None:
    """Without noise, the same time of day is what is expected and nothing spreads but the wave."""
    day = np.arange(1, BUCKETS_PER_DAY + 1, dtype=float)
    values = np.tile(day, 15)[None, :]
    expected, _ = expectation(values, 14 * BUCKETS_PER_DAY + 40)
    assert day[40] == expected[0]


def test_a_spike_is_found_in_its_second_bucket_with_its_size() -> None:
    """Actual, expected, start and series are named."""
    values = np.full((3, 20 * BUCKETS_PER_DAY), 100.0 * CENTS)
    at = 16 * BUCKETS_PER_DAY
    values[1, at : at + 4] = 500.0 * CENTS
    assert [] == cost_excess(values, at)
    (found,) = cost_excess(values, at + 1)
    assert (
        Excess(
            series=1,
            bucket=at + 1,
            actual_nusd=500 * CENTS,
            expected_nusd=100 * CENTS,
            score=40.0,  # 400 cents over a tenth of 100 cents
            since=at,
        )
        == found
    )


def test_cold_start_is_quiet() -> None:
    """Fewer than three days of history never alarm, whatever the value."""
    values = np.full((1, 3 * BUCKETS_PER_DAY), 1.0 * CENTS)
    values[0, -2:] = 1e15
    assert [] == cost_excess(values, values.shape[1] - 1)


def test_a_new_series_is_compared_with_its_own_days_only() -> None:
    """Nothing before the beginning is no zero: five days of $1 expect $1, not something less."""
    values = np.full((1, 20 * BUCKETS_PER_DAY), np.nan)
    values[0, 15 * BUCKETS_PER_DAY :] = 100.0 * CENTS
    expected, _ = expectation(values, values.shape[1] - 1)
    assert 100.0 * CENTS == expected[0]
    assert [] == cost_excess(values, values.shape[1] - 1)


def test_pennies_are_quiet() -> None:
    """A huge ratio below the money floor is not worth telling."""
    values = np.zeros((1, 10 * BUCKETS_PER_DAY))
    values[0, -4:] = MIN_EXCESS_NUSD - 1
    assert [] == cost_excess(values, values.shape[1] - 1)


def test_false_alarms_on_noise_stay_below_the_budget() -> None:
    """At most half an alarm a week and group on weekly-seasonal noise without incidents."""
    values = _weeks(seed=7, groups=40, weeks=5)
    start = 3 * WEEK
    episodes, last = 0, np.full(40, -100)
    for at in range(start, values.shape[1]):
        for found in cost_excess(values, at):
            episodes += at - last[found.series] > 24
            last[found.series] = at
    assert episodes / 40 / 2 <= 0.5


@pytest.mark.parametrize("factor", [4.0, 10.0])
def test_runaway_spend_is_found(factor: float) -> None:
    """A group that suddenly costs four times its expectation is found within an hour, nine in ten."""
    values = _weeks(seed=8, groups=50, weeks=4)
    at = 3 * WEEK + 2 * BUCKETS_PER_DAY + 56  # Wednesday afternoon
    values[:, at : at + 8] *= factor
    found = {e.series for back in range(4) for e in cost_excess(values, at + back)}
    assert len(found) >= 45
