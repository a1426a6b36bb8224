"""The magnitude head: spend above its expectation, in units of its own spread and in money."""

from typing import Final

import msgspec
import numpy as np

from controlplane.detection.baseline import Series, expectation

SCORE_THRESHOLD: Final = 6.0
"""Spreads above the expectation: no false alarm in 80 group-weeks of the tests' seeded noise."""
MIN_EXCESS_NUSD: Final = 50_000_000
"""Five cents a bucket: a ratio on pennies is not worth anyone's sleep (AL-24)."""
SUSTAINED_BUCKETS: Final = 2
"""A single bucket may be one large batch; two in a row are a change."""


class Excess(msgspec.Struct, frozen=True):
    """A series that costs more than expected at a bucket; amounts in nano-USD."""

    series: int
    bucket: int
    actual_nusd: int
    expected_nusd: int
    score: float
    since: int
    """First bucket of the run of excess that this one ends."""


def cost_excess(costs_nusd: Series, at: int) -> list[Excess]:
    """Return the series whose last SUSTAINED_BUCKETS buckets up to `at` are all in excess."""
    runs = [_scores(costs_nusd, at - back) for back in range(SUSTAINED_BUCKETS)]
    held = np.logical_and.reduce(
        [_is_excess(costs_nusd, at - i, run) for i, run in enumerate(runs)]
    )
    expected, scores = runs[0]
    return [
        Excess(
            series=int(series),
            bucket=at,
            actual_nusd=round(costs_nusd[series, at]),
            expected_nusd=round(expected[series]),
            score=float(scores[series]),
            since=at - SUSTAINED_BUCKETS + 1,
        )
        for series in np.flatnonzero(held)
    ]


def _scores(costs: Series, at: int) -> tuple[Series, Series]:
    expected, scale = expectation(costs, at)
    # A flat past has no spread of its own: a tenth of the level, and never below the money floor.
    floor = np.maximum(0.1 * np.abs(expected), MIN_EXCESS_NUSD / SCORE_THRESHOLD)
    return expected, (costs[:, at] - expected) / np.maximum(scale, floor)


def _is_excess(costs: Series, at: int, run: tuple[Series, Series]) -> np.typing.NDArray[np.bool_]:
    expected, scores = run
    with np.errstate(invalid="ignore"):  # NaN: no history, never an excess
        return (scores >= SCORE_THRESHOLD) & (costs[:, at] - expected >= MIN_EXCESS_NUSD)
