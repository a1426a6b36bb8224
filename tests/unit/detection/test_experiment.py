"""Intervals that hold at every look: seldom wrong under peeking, and able to see what is there."""

import math

import numpy as np
import pytest

from controlplane.detection.experiment import MIN_UNITS, ArmSummary, compare, half_width

RUNS = 300
LOOKS = range(MIN_UNITS, 1_000, 20)


def summaries(values: np.ndarray) -> list[ArmSummary]:
    return [ArmSummary.of(values[:n].tolist()) for n in LOOKS]


def ever_decides(control: np.ndarray, arm: np.ndarray) -> bool:
    """Look after every twenty units and stop at the first verdict, as people do."""
    pairs = zip(summaries(control), summaries(arm), strict=True)
    return any(compare(a, b).verdict != "undecided" for a, b in pairs)


@pytest.mark.parametrize("shape", ["normal", "heavy", "rare"])
def test_equal_arms_are_seldom_told_apart_however_often_one_looks(shape: str) -> None:
    """At most 5 % of runs ever decide, up to what 300 runs can show (three standard deviations)."""
    random = np.random.default_rng(7)

    def draw() -> np.ndarray:
        if shape == "normal":
            return random.normal(10, 3, LOOKS.stop)
        if shape == "heavy":
            return random.lognormal(0, 1.2, LOOKS.stop)
        return (random.random(LOOKS.stop) < 0.05).astype(float)

    wrong = sum(ever_decides(draw(), draw()) for _ in range(RUNS)) / RUNS
    assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


def test_one_look_at_a_time_would_be_wrong_often() -> None:
    """The test that is meant to be read once, read as often, decides far more: the looks matter."""
    random = np.random.default_rng(7)
    wrong = 0
    for _ in range(RUNS):
        a, b = random.normal(0, 1, LOOKS.stop), random.normal(0, 1, LOOKS.stop)
        wrong += any(abs(a[:n].mean() - b[:n].mean()) > 1.96 * math.sqrt(2 / n) for n in LOOKS)
    assert wrong / RUNS > 0.15


def test_a_real_difference_is_found() -> None:
    """Half a standard deviation, 1,000 units an arm: nearly always, and in the right direction."""
    random = np.random.default_rng(3)
    found = 0
    for _ in range(50):
        control = ArmSummary.of(random.normal(10, 2, 1_000).tolist())
        cheaper = ArmSummary.of(random.normal(9, 2, 1_000).tolist())
        found += compare(control, cheaper).verdict == "lower"
        assert compare(control, cheaper).verdict != "higher"
    assert found >= 48


def test_numbers_by_hand() -> None:
    """n = 100, s = 2, a = 0.025: r² = (7.378 + ln 8.378) / 500 = 0.019007."""
    arm = ArmSummary(units=100, mean=5.0, deviation=2.0)
    square = 0.019007
    grown = 100 * square + 1
    expected = 2 * math.sqrt(2 * grown / (100**2 * square) * math.log(math.sqrt(grown) / 0.025))
    assert math.isclose(expected, half_width(arm, alpha=0.025), rel_tol=1e-4)
    other = ArmSummary(units=100, mean=8.0, deviation=2.0)
    found = compare(arm, other)
    assert (3.0, 0.6) == (found.difference, found.relative)
    assert found.interval is not None
    assert math.isclose(3 - 2 * expected, found.interval.low, rel_tol=1e-4)
    assert "higher" == found.verdict


def test_few_units_decide_nothing() -> None:
    """Whatever they did."""
    few = ArmSummary.of([1.0] * (MIN_UNITS - 1))
    many = ArmSummary.of([9.0] * 500)
    found = compare(few, many)
    assert (None, "undecided") == (found.interval, found.verdict)
    assert compare(ArmSummary.of([]), many).relative is None
