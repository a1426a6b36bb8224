"""Ranges are half-open, start where the zone's calendar says, and never show yesterday as today."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.params import instant
from controlplane.api.ranges import PRESETS, QUARTER_HOUR, align_up, preset
from controlplane.core.errors import InvalidInputError
from controlplane.core.fiscal import FiscalCalendar, Weekday

ZONES = (
    "UTC",
    "Asia/Kolkata",
    "America/New_York",
    "Europe/Madrid",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
)
instants = st.integers(0, 6 * 366 * 86_400).map(
    lambda seconds: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


@pytest.mark.parametrize("zone", ZONES)
def test_half_past_midnight_on_the_first_belongs_to_the_new_month(zone: str) -> None:
    local = datetime(2026, 11, 1, 0, 30, tzinfo=ZoneInfo(zone))
    now = local.astimezone(UTC)
    first = local.replace(minute=0).astimezone(UTC)
    for name in ("today", "mtd", "1d"):
        window = preset(name, now=now, zone=zone)
        assert first == window.start, name
        assert window.start <= now < window.end
        assert window.end - now <= QUARTER_HOUR
    yesterday = preset("yesterday", now=now, zone=zone)
    assert first == yesterday.end
    last_month = preset("last_month", now=now, zone=zone)
    assert first == last_month.end
    assert local.replace(month=10, minute=0).astimezone(UTC) == last_month.start


@given(now=instants, zone=st.sampled_from(ZONES), name=st.sampled_from(PRESETS))
def test_every_preset_is_aligned_and_holds_what_it_says(
    now: datetime, zone: str, name: str
) -> None:
    window = preset(name, now=now, zone=zone)
    assert window.start < window.end
    assert align_up(window.start) == window.start
    assert align_up(window.end) == window.end
    is_closed = name == "yesterday" or name.startswith("last_")
    assert window.contains(now) == (not is_closed)


@given(now=instants, zone=st.sampled_from(ZONES))
def test_year_and_quarter_start_on_their_first_of_month(now: datetime, zone: str) -> None:
    local = now.astimezone(ZoneInfo(zone))
    year = preset("ytd", now=now, zone=zone).start.astimezone(ZoneInfo(zone))
    quarter = preset("qtd", now=now, zone=zone).start.astimezone(ZoneInfo(zone))
    assert (local.year, 1, 1, 0, 0) == (year.year, year.month, year.day, year.hour, year.minute)
    first = 3 * ((local.month - 1) // 3) + 1
    assert (local.year, first, 1) == (quarter.year, quarter.month, quarter.day)
    assert (quarter.hour, quarter.minute) == (0, 0)


def test_days_over_a_clock_change_are_whole_local_days() -> None:
    """Madrid went back an hour on 25 October 2026: that day has 25 hours."""
    now = datetime(2026, 10, 26, 11, tzinfo=UTC)
    window = preset("2d", now=now, zone="Europe/Madrid")
    assert datetime(2026, 10, 24, 22, tzinfo=UTC) == window.start
    rolling = preset("48h", now=now, zone="Europe/Madrid")
    assert timedelta(hours=48) == rolling.end - rolling.start


@pytest.mark.parametrize("name", ["", "0d", "0h", "1101d", "-7d", "7 d", "week", "7D", "\u0667d"])
def test_other_words_are_refused_with_the_list(name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        preset(name, now=datetime(2026, 1, 1, tzinfo=UTC), zone="UTC")
    assert caught.value.field == "range"


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z"])
def test_years_without_a_calendar_around_them_are_refused(text: str) -> None:
    """A day of Tokyo around the first instant there is does not exist."""
    with pytest.raises(InvalidInputError, match=r"start: .* Ask for 1970 to 2199"):
        instant("start", text)


def test_presets_follow_the_fiscal_calendar() -> None:
    """25 November 2026 in a year from April with months from the 6th, weeks from Sunday."""
    now = datetime(2026, 11, 25, 11, tzinfo=UTC)
    british = FiscalCalendar(year_start_month=4, month_start_day=6, week_start=Weekday.SUNDAY)
    starts = {
        "wtd": datetime(2026, 11, 22, tzinfo=UTC),
        "mtd": datetime(2026, 11, 6, tzinfo=UTC),
        "qtd": datetime(2026, 10, 6, tzinfo=UTC),
        "ytd": datetime(2026, 4, 6, tzinfo=UTC),
        "last_month": datetime(2026, 10, 6, tzinfo=UTC),
        "last_quarter": datetime(2026, 7, 6, tzinfo=UTC),
        "last_year": datetime(2025, 4, 6, tzinfo=UTC),
    }
    for name, start in starts.items():
        assert start == preset(name, now=now, zone="UTC", calendar=british).start, name
