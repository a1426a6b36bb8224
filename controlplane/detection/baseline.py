"""What a bucket should have cost: a robust seasonal expectation for many series at once.

Arrays are `float64[series, bucket]`, oldest bucket first, of equal width; only the past is used.
Floats are right here: an expectation is a statistic, not money that anyone is billed.
Source of the phase-local scale: the lab notes on on-call KPIs, where it was the single most
useful guard against noise at busy hours.
"""

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
    phases = _same_phase(values, at)
    if phases.shape[1] == 0:
        unknown = np.full(values.shape[0], np.nan)
        return unknown, unknown
    expected = np.median(phases, axis=1)
    local = MAD_TO_SIGMA * np.median(np.abs(phases - expected[:, None]), axis=1)
    past = values[:, max(0, at - BUCKETS_PER_DAY * DAYS_OF_HISTORY) : at]
    steps = np.abs(np.diff(past, axis=1))
    general = MAD_TO_SIGMA * np.median(steps, axis=1)
    return expected, np.sqrt(local**2 + general**2)


def _same_phase(values: Series, at: int) -> Series:
    days = min(at // BUCKETS_PER_DAY, DAYS_OF_HISTORY)
    if days < MIN_DAYS:
        return values[:, :0]
    weeks = [7 * BUCKETS_PER_DAY * week for week in (1, 2)]
    periods = (
        weeks if days >= DAYS_OF_HISTORY else [BUCKETS_PER_DAY * day for day in range(1, days + 1)]
    )
    offsets = np.arange(-PHASE_HALF_WIDTH, PHASE_HALF_WIDTH + 1)
    columns = np.concatenate([at - period + offsets for period in periods])
    return values[:, columns[(columns >= 0) & (columns < at)]]
