"""Unit costs and concentration, against arithmetic done another way."""

from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.fiscal import Dates
from controlplane.usage.unit_cost import (
    concentration,
    figure,
    gini,
    metric_days,
    metric_total,
)


def test_a_figure_keeps_both_sides_and_never_divides_by_nothing() -> None:
    """10 nano-USD over 4 is 2.5: half to even is 2."""
    assert 2 == figure("request", 10, 4).unit_cost_nusd
    assert 4 == figure("request", 14, 4).unit_cost_nusd
    assert (10, Fraction(0), None) == _sides(0)
    assert (10, None, None) == _sides(None)


def _sides(denominator: int | None) -> tuple[int, Fraction | None, int | None]:
    made = figure("gpu_hour", 10, denominator)
    return made.cost_nusd, made.denominator, made.unit_cost_nusd


@pytest.mark.parametrize(
    ("costs", "expected"),
    [([5, 5, 5, 5], 0.0), ([0, 0, 0, 12], 0.75), ([1, 3], 0.25), ([], None), ([0, 0], None)],
)
def test_gini_of_known_distributions(costs: list[int], expected: float | None) -> None:
    """One of four has everything: 1 - 1/n."""
    assert expected == gini(costs)


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=40))
def test_gini_is_the_mean_difference_over_twice_the_mean(costs: list[int]) -> None:
    """Its definition over all pairs, which costs n squared."""
    pairs = sum(abs(a - b) for a, b in product(costs, repeat=2))
    total = sum(costs)
    expected = float(Fraction(pairs, 2 * len(costs) * total)) if total else None
    assert expected == gini(costs)


@given(st.lists(st.integers(0, 2**62), max_size=400))
def test_the_curve_rises_to_the_whole_and_the_cuts_are_the_smallest(costs: list[int]) -> None:
    """Dropping one group from a cut leaves less than its share."""
    measured = concentration(costs)
    falling = sorted(costs, reverse=True)
    total = sum(costs)
    assert (len(costs), total) == (measured.groups, measured.cost_nusd)
    if costs:
        assert (len(costs), total) == measured.curve[-1]
    assert len(measured.curve) <= 101
    assert all(cost == sum(falling[:count]) for count, cost in measured.curve)
    for cut, percent in ((measured.half, 50), (measured.most, 80)):
        if total:
            assert sum(falling[:cut]) * 100 >= total * percent
            assert sum(falling[: cut - 1]) * 100 < total * percent
        else:
            assert 0 == cut


def test_days_without_a_value_are_gaps_and_not_zeros() -> None:
    """Three days, one of them missing."""
    days = metric_days(
        {date(2026, 11, 1): Decimal("1.5"), date(2026, 11, 3): Decimal(0)},
        Dates(date(2026, 11, 1), date(2026, 11, 4)),
    )
    assert [Decimal("1.5"), None, Decimal(0)] == [one.value for one in days]
    assert Fraction(3, 2) == metric_total(days)
    assert metric_total(days[1:2]) is None
