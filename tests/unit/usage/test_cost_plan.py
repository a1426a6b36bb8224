"""From which grid a cost question is answered, and which questions are refused."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.signals.queries import CostQuery, Granularity
from controlplane.usage.cost_plan import BUCKET, CostPlan, plan_costs
from controlplane.usage.dimensions import BY_NAME, DIMENSIONS

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
instants = st.integers(0, 2 * 86_400_000).map(lambda ms: AT + timedelta(milliseconds=ms))


def plan_of(**query: Any) -> CostPlan:
    """Plan a question of one tenant."""
    return plan_costs(CostQuery(tenants=("a",), **query))


@given(start=instants, end=instants)
def test_the_cube_answers_whole_buckets_inside_the_window(start: datetime, end: datetime) -> None:
    cube = plan_of(window=Window(start, end)).from_cube
    if cube.start < cube.end:
        assert start <= cube.start < start + BUCKET
        assert end - BUCKET < cube.end <= end
        for edge in (cube.start, cube.end):
            assert (edge.minute % 15, edge.second, edge.microsecond) == (0, 0, 0)
    else:
        assert end - start < 2 * BUCKET


def test_a_dimension_outside_the_cube_is_read_from_calls() -> None:
    day = Window(AT, AT + timedelta(days=1))
    assert plan_of(window=day, group_by=("team",)).from_cube == day
    by_user = plan_of(window=day, group_by=("user",)).from_cube
    assert by_user.start == by_user.end
    filtered = plan_of(window=day, filters={"user": ("u",)}).from_cube
    assert filtered.start == filtered.end


def test_long_scans_and_unknown_dimensions_are_refused_with_a_fix() -> None:
    long = Window(AT - timedelta(days=31, seconds=1), AT)
    with pytest.raises(InvalidInputError, match="shorter window"):
        plan_of(window=long, group_by=("user",))
    with pytest.raises(InvalidInputError, match="Use one of"):
        plan_of(window=long, group_by=("color",))
    with pytest.raises(InvalidInputError, match=r"filter\.color"):
        plan_of(window=long, filters={"color": ("red",)})


def test_a_zone_off_the_quarter_hour_is_refused() -> None:
    """Liberia was 44 minutes and 30 seconds behind until 1972."""
    long_ago = Window(datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 3, tzinfo=UTC))
    with pytest.raises(InvalidInputError, match="quarter hour"):
        plan_of(window=long_ago, granularity=Granularity.DAY, zone="Africa/Monrovia")


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"])
def test_periods_cover_the_window_without_gap(zone: str) -> None:
    window = Window(datetime(2026, 3, 25, 1, 7, tzinfo=UTC), datetime(2026, 4, 9, tzinfo=UTC))
    for granularity in (Granularity.HOUR, Granularity.DAY, Granularity.MONTH):
        periods = plan_of(window=window, granularity=granularity, zone=zone).periods
        assert periods[0].start <= window.start < periods[0].end
        assert periods[-1].start < window.end <= periods[-1].end
        assert all(a.end == b.start for a, b in pairwise(periods))


def test_a_dimension_is_the_first_of_its_columns_that_is_said() -> None:
    model = BY_NAME["model"]
    said = {"billing_model": None, "response_model": "r", "request_model": "q"}
    assert "r" == model.value_of(said)
    assert model.value_of(dict.fromkeys(said)) is None
    assert len(DIMENSIONS) == len(BY_NAME)
