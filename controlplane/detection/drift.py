"""Whether a distribution moved: a two-sample test on log-grid histograms, gated by effect size.

Histograms merge by addition, so a window is a sum of finer ones. A significant but small move is
not a finding (large samples make everything significant), and testing many models at once is
corrected by Benjamini and Hochberg's procedure (1995).
"""

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import kolmogorov

GRID_BASE: Final = 1.1
"""Bin edges are GRID_BASE^k: a bin is 10 % wide whatever the unit."""
MAX_BINS: Final = 291 + 1
"""Bins up to the largest quantity there can be: ln(2^40) / ln(GRID_BASE) is below 291."""
FALSE_DISCOVERY_RATE: Final = 0.01
MIN_STATISTIC: Final = 0.1
"""Largest gap between the two cumulative distributions that is worth telling."""
MIN_ROWS: Final = 200

Counts = npt.NDArray[np.int64]


class Drift(msgspec.Struct, frozen=True):
    """A group whose current window differs from its reference."""

    group: str
    statistic: float
    p_value: float
    reference_median: float
    current_median: float
    reference_rows: int
    current_rows: int


def drifted(reference: dict[str, Counts], current: dict[str, Counts]) -> list[Drift]:
    """Compare each group's histograms; both arrays of a group are indexed by bin.

    Groups with fewer than MIN_ROWS on either side are not tested and do not count as a test.
    """
    tested = [
        _compare(group, reference[group], counts)
        for group, counts in sorted(current.items())
        if group in reference and min(reference[group].sum(), counts.sum()) >= MIN_ROWS
    ]
    if not tested:
        return []
    adjusted = _benjamini_hochberg(np.array([drift.p_value for drift in tested]))
    return [
        drift
        for drift, q_value in zip(tested, adjusted, strict=True)
        if q_value <= FALSE_DISCOVERY_RATE and drift.statistic >= MIN_STATISTIC
    ]


def _benjamini_hochberg(p_values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return adjusted p-values: the smallest p * m / rank at this rank or any later one.

    scipy.stats has it too, and costs two seconds of CPU to import; a test compares the two.
    """
    order = np.argsort(p_values)[::-1]
    ranks = np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum.accumulate(p_values[order] * len(p_values) / ranks)
    return np.minimum(adjusted, 1.0)


def _compare(group: str, reference: Counts, current: Counts) -> Drift:
    length = max(len(reference), len(current))
    old, new = (np.pad(h, (0, length - len(h))) for h in (reference, current))
    old_rows, new_rows = int(old.sum()), int(new.sum())
    gap = np.abs(np.cumsum(old) / old_rows - np.cumsum(new) / new_rows)
    statistic = float(gap.max())
    # Kolmogorov-Smirnov's limit law; conservative on binned data, which only costs power.
    effective = old_rows * new_rows / (old_rows + new_rows)
    return Drift(
        group=group,
        statistic=statistic,
        p_value=float(kolmogorov(statistic * np.sqrt(effective))),
        reference_median=_median(old),
        current_median=_median(new),
        reference_rows=old_rows,
        current_rows=new_rows,
    )


def _median(counts: Counts) -> float:
    middle = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return float(GRID_BASE ** (middle + 0.5))
