"""Half-open periods in real zones: they tile time, over every change of the clock."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.calendar import Period, Window, window_at, windows

ZONES = [
    "UTC",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Europe/Madrid",
    "America/New_York",
    "Australia/Lord_Howe",
]
INSTANTS = st.integers(0, 4 * 366 * 24 * 3600).map(
    lambda seconds: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


@given(st.sampled_from(list(Period)), st.sampled_from(ZONES), INSTANTS)
def test_a_period_holds_its_instant_and_both_neighbours_touch(
    period: Period, zone: str, at: datetime
) -> None:
    """`[start, end)` contains the instant; the next period starts where it ends."""
    window = window_at(period, at, zone=zone)
    assert window.contains(at)
    assert not window.contains(window.end)
    assert window == window_at(period, window.start, zone=zone)
    assert window.end == window_at(period, window.end, zone=zone).start


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Madrid", datetime(2026, 3, 29, 12, tzinfo=UTC), 23),
        ("Europe/Madrid", datetime(2026, 10, 25, 12, tzinfo=UTC), 25),
        ("America/New_York", datetime(2026, 3, 8, 12, tzinfo=UTC), 23),
        ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC), 24.5),
        ("Asia/Kolkata", datetime(2026, 3, 29, 12, tzinfo=UTC), 24),
    ],
)
def test_days_over_clock_changes(zone: str, day: datetime, hours: float) -> None:
    """A day has as many hours as its zone gives it, a half hour on Lord Howe."""
    window = window_at(Period.DAY, day, zone=zone)
    assert timedelta(hours=hours) == window.end - window.start


def test_a_month_starts_at_midnight_of_its_first_day_there() -> None:
    """00:30 on the 1st in Kolkata is still the day before in UTC."""
    at = datetime(2026, 3, 1, 0, 30, tzinfo=ZoneInfo("Asia/Kolkata"))
    window = window_at(Period.MONTH, at, zone="Asia/Kolkata")
    assert datetime(2026, 2, 28, 18, 30, tzinfo=UTC) == window.start
    assert datetime(2026, 3, 31, 18, 30, tzinfo=UTC) == window.end


def test_a_week_starts_on_monday() -> None:
    """2026-11-21 is a Saturday."""
    window = window_at(Period.WEEK, datetime(2026, 11, 21, tzinfo=UTC))
    assert datetime(2026, 11, 16, tzinfo=UTC) == window.start


@given(st.sampled_from(ZONES), INSTANTS, st.integers(1, 100))
def test_days_and_hours_tile_a_span(zone: str, start: datetime, hours: int) -> None:
    """Without gap or overlap, whatever the clock does."""
    span = Window(start, start + timedelta(hours=hours))
    for period in (Period.HOUR, Period.DAY):
        tiles = list(windows(period, span, zone=zone))
        assert tiles[0].contains(span.start)
        assert tiles[-1].end >= span.end > tiles[-1].start
        assert all(left.end == right.start for left, right in pairwise(tiles))
