"""Drift: the gate on size, the correction for many tests, and its error rates."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from controlplane.detection.drift import (
    GRID_BASE,
    MIN_ROWS,
    _benjamini_hochberg,
    drifted,
)


def _histogram(values: np.ndarray) -> np.ndarray:
    """Count as `SpanReader.output_lengths` says."""
    bins = np.floor(np.log(values.astype(np.int64)) / np.log(1.1)).astype(np.int64)
    return np.bincount(bins, minlength=120)


def _lengths(rng: np.random.Generator, rows: int, *, scale: float = 1.0) -> np.ndarray:
    return np.maximum(1, rng.lognormal(5.5, 0.8, rows) * scale)


def test_any_of_ten_models_false_alarm_at_most_five_percent() -> None:
    """No drift, ten models, 300 rounds at two sizes: a finding in at most one round of twenty."""
    rng = np.random.default_rng(3)
    for rows in (300, 3_000):
        rounds = 0
        for _ in range(150):
            reference = {str(m): _histogram(_lengths(rng, 10 * rows)) for m in range(10)}
            current = {str(m): _histogram(_lengths(rng, rows)) for m in range(10)}
            rounds += bool(drifted(reference, current))
        assert rounds / 150 <= 0.05


def test_a_move_of_forty_percent_is_found_at_a_thousand_rows() -> None:
    """Power at least 95 % on the one model that moved, and only that one is named."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(100):
        reference = {str(m): _histogram(_lengths(rng, 20_000)) for m in range(10)}
        current = {str(m): _histogram(_lengths(rng, 1_000)) for m in range(10)}
        current["4"] = _histogram(_lengths(rng, 1_000, scale=1.4))
        hits += [d.group for d in drifted(reference, current)] == ["4"]
    assert hits >= 95


def test_a_certain_but_small_move_is_not_told() -> None:
    """Two percent longer on a million rows is significant and does not matter."""
    rng = np.random.default_rng(5)
    reference = {"m": _histogram(_lengths(rng, 1_000_000))}
    assert [] == drifted(reference, {"m": _histogram(_lengths(rng, 1_000_000, scale=1.02))})


def test_few_rows_are_not_tested() -> None:
    """Eight rows prove nothing (a known complaint about other tools)."""
    few = np.zeros(50, dtype=np.int64)
    few[40] = MIN_ROWS - 1
    many = np.zeros(50, dtype=np.int64)
    many[10] = 10_000
    assert [] == drifted({"m": many}, {"m": few})


def test_finding_names_both_medians() -> None:
    """Every row in one bin: the medians are the bins' middles."""
    old, new = np.zeros(60, dtype=np.int64), np.zeros(60, dtype=np.int64)
    old[30], new[50] = 500, 500
    (found,) = drifted({"m": old}, {"m": new})
    assert (GRID_BASE**30.5, GRID_BASE**50.5) == (found.reference_median, found.current_median)
    assert 1.0 == found.statistic


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_correction_is_scipys(p_values: list[float]) -> None:
    """Ours exists for the import's sake only."""
    expected = stats.false_discovery_control(p_values)
    np.testing.assert_allclose(_benjamini_hochberg(np.array(p_values)), expected)
