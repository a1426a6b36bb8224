"""What a bucket should have cost: a robust seasonal expectation for many series at once.

Arrays are `float64[series, bucket]`, oldest bucket first, of equal width; only the past is used.
NaN is "the series had not begun": a new team is not compared with the nothing before it.
Floats are right here: an expectation is a statistic, not money that anyone is billed.
Source of the phase-local scale: the lab notes on on-call KPIs, where it was the single most
useful guard against noise at busy hours.
"""

import warnings
from typing import Final

import numpy as np
import numpy.typing as npt

Series = npt.NDArray[np.float64]

BUCKETS_PER_DAY: Final = 96
DAYS_OF_HISTORY: Final = 14
MIN_DAYS: Final = 3
PHASE_HALF_WIDTH: Final = 2  # buckets on either side of the same time of day
MAD_TO_SIGMA: Final = 1.4826


def expectation(values: Series, at: int) -> tuple[Series, Series]:
    """Return the expected value and its scale at bucket `at`, one per series.

    Weekdays are compared with the same weekday where two of them are there, else with the last
    days at the same time of day. Both are NaN for a series whose history is shorter than
    MIN_DAYS: a cold start stays quiet.
    """
    weekly = _phases(values, at, [7 * BUCKETS_PER_DAY * week for week in (1, 2)])
    daily = _phases(values, at, [BUCKETS_PER_DAY * day for day in range(1, 8)])
    by_week, week_scale = _center(weekly)
    by_day, day_scale = _center(daily)
    has_weeks = (weekly.shape[1] > 0) & ~np.isnan(weekly).any(axis=1)
    has_days = (~np.isnan(daily)).sum(axis=1) >= MIN_DAYS * (2 * PHASE_HALF_WIDTH + 1)
    expected = np.where(has_weeks, by_week, by_day)
    local = np.where(has_weeks, week_scale, day_scale)
    past = values[:, max(0, at - BUCKETS_PER_DAY * DAYS_OF_HISTORY) : at]
    general = MAD_TO_SIGMA * _median(np.abs(np.diff(past, axis=1)))
    known = has_weeks | has_days
    return np.where(known, expected, np.nan), np.where(known, np.hypot(local, general), np.nan)


def _phases(values: Series, at: int, periods: list[int]) -> Series:
    """Return the buckets of the same time of day, `periods` ago and a little around."""
    offsets = np.arange(-PHASE_HALF_WIDTH, PHASE_HALF_WIDTH + 1)
    columns = np.concatenate([at - period + offsets for period in periods])
    return values[:, columns[(columns >= 0) & (columns < at)]]


def _center(phases: Series) -> tuple[Series, Series]:
    middle = _median(phases)
    return middle, MAD_TO_SIGMA * _median(np.abs(phases - middle[:, None]))


def _median(values: Series) -> Series:
    """Return the median of what is known in each row; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a row of NaN is an answer, not a fault
        middle: Series = np.nanmedian(values, axis=1)
    return middle
