"""Fiscal calendars against dates that companies and trade bodies have published."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.calendar import Period, Window, period_name, window_at, windows
from controlplane.core.fiscal import (
    Anchor,
    Dates,
    FiscalCalendar,
    NamedBy,
    Pattern,
    Weekday,
    dates_name,
    fiscal_month,
    month_name,
    quarter_of,
    week_of,
    year_name,
    year_of,
)

RETAIL = FiscalCalendar(
    pattern=Pattern.W454,
    year_start_month=2,
    week_start=Weekday.SUNDAY,
    named_by=NamedBy.START,
)
"""The National Retail Federation's 4-5-4 calendar."""
LAST_SATURDAY_OF_SEPTEMBER = FiscalCalendar(
    pattern=Pattern.W544,
    year_start_month=10,
    anchor=Anchor.LAST,
    week_start=Weekday.SUNDAY,
)
"""A fiscal year that ends on the last Saturday of September, as Apple's annual reports say."""
CALENDARS = st.builds(
    FiscalCalendar,
    pattern=st.sampled_from(list(Pattern)),
    year_start_month=st.integers(1, 12),
    month_start_day=st.integers(1, 28),
    anchor=st.sampled_from(list(Anchor)),
    named_by=st.sampled_from(list(NamedBy)),
    week_start=st.sampled_from(list(Weekday)),
)
DAYS = st.dates(date(1990, 1, 1), date(2090, 1, 1))
ZONES = st.sampled_from(
    ["UTC", "Asia/Kolkata", "Asia/Kathmandu", "Europe/Madrid", "Australia/Lord_Howe"]
)


@pytest.mark.parametrize(
    ("named", "start", "weeks"),
    [
        (2023, date(2023, 1, 29), 53),
        (2024, date(2024, 2, 4), 52),
        (2025, date(2025, 2, 2), 52),
    ],
)
def test_the_retail_calendar_is_the_published_one(named: int, start: date, weeks: int) -> None:
    """2023 was the year of 53 weeks (nrf.com, 4-5-4 calendar)."""
    year = year_of(start, RETAIL)
    assert Dates(start, start + timedelta(weeks=weeks)) == year
    assert named == year_name(year, RETAIL)


def test_retail_months_have_four_five_and_four_weeks() -> None:
    """February 2025 ran to 1 March, March to 5 April, April to 3 May."""
    starts = [date(2025, 2, 2), date(2025, 3, 2), date(2025, 4, 6), date(2025, 5, 4)]
    for number, (start, end) in enumerate(pairwise(starts), start=1):
        month = fiscal_month(start, RETAIL)
        assert (Dates(start, end), number) == (month.dates, month.number)
    assert Dates(date(2025, 2, 2), date(2025, 5, 4)) == quarter_of(date(2025, 4, 30), RETAIL)


def test_the_last_month_of_a_long_year_has_the_extra_week() -> None:
    """The 53rd week of fiscal 2023 was 28 January to 3 February 2024."""
    last = fiscal_month(date(2024, 2, 3), RETAIL)
    assert (12, Dates(date(2023, 12, 31), date(2024, 2, 4))) == (last.number, last.dates)
    assert 14 * 7 == (quarter_of(date(2024, 2, 3), RETAIL).end - date(2023, 10, 29)).days


@pytest.mark.parametrize(
    ("ends", "named"),
    [
        (date(2021, 9, 25), 2021),
        (date(2022, 9, 24), 2022),
        (date(2023, 9, 30), 2023),
        (date(2024, 9, 28), 2024),
    ],
)
def test_years_that_end_on_the_last_saturday_of_september(ends: date, named: int) -> None:
    """Fiscal 2023 had 53 weeks (10-K of that year)."""
    year = year_of(ends, LAST_SATURDAY_OF_SEPTEMBER)
    assert ends + timedelta(days=1) == year.end
    assert named == year_name(year, LAST_SATURDAY_OF_SEPTEMBER)


def test_months_may_start_on_any_day_and_years_with_any_month() -> None:
    """The United Kingdom's tax year starts on 6 April."""
    british = FiscalCalendar(year_start_month=4, month_start_day=6)
    assert Dates(date(2026, 4, 6), date(2027, 4, 6)) == year_of(date(2027, 4, 5), british)
    assert Dates(date(2026, 4, 6), date(2026, 7, 6)) == quarter_of(date(2026, 5, 1), british)
    assert "FY2027-P09" == month_name(date(2027, 1, 5), british)
    assert "2027-01" == month_name(date(2027, 1, 5))


def test_every_period_has_a_name() -> None:
    """Of a week its first day."""
    kinds = {
        Period.DAY: "2026-11-25",
        Period.WEEK: "week of 2026-11-23",
        Period.MONTH: "2026-11",
        Period.QUARTER: "2026-Q4",
        Period.YEAR: "2026",
    }
    at = datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert kinds == {kind: dates_name(kind.value, at.date()) for kind in kinds}
    assert "2026-12" == period_name(datetime(2026, 11, 30, 20, tzinfo=UTC), zone="Asia/Kolkata")


def test_weeks_start_where_they_are_told_to() -> None:
    """2026-11-21 is a Saturday."""
    sundays = FiscalCalendar(week_start=Weekday.SUNDAY)
    assert date(2026, 11, 15) == week_of(date(2026, 11, 21), sundays).start
    assert date(2026, 11, 16) == week_of(date(2026, 11, 21)).start


@given(CALENDARS, DAYS)
def test_months_tile_quarters_and_quarters_tile_years(calendar: FiscalCalendar, day: date) -> None:
    """Twelve months a year, four quarters of three; a year of weeks has 52 or 53."""
    year = year_of(day, calendar)
    assert year.start <= day < year.end
    months = []
    at = year.start
    while at < year.end:
        month = fiscal_month(at, calendar)
        months.append(month)
        at = month.dates.end
    assert list(range(1, 13)) == [month.number for month in months]
    assert at == year.end
    quarters = {quarter_of(month.dates.start, calendar) for month in months}
    assert {(months[n].dates.start, months[n + 2].dates.end) for n in (0, 3, 6, 9)} == {
        (quarter.start, quarter.end) for quarter in quarters
    }
    if calendar.pattern is not Pattern.MONTHS:
        assert (year.end - year.start).days in {364, 371}
        assert week_of(year.start, calendar).start == year.start


@given(CALENDARS, ZONES, st.sampled_from(list(Period)), DAYS, st.integers(1, 120))
def test_windows_tile_a_span_in_every_calendar(
    calendar: FiscalCalendar, zone: str, period: Period, day: date, days: int
) -> None:
    """Without gap or overlap, and each window answers for its own instants."""
    start = datetime(day.year, day.month, day.day, 7, 30, tzinfo=UTC)
    span = Window(start, start + timedelta(days=days if period is not Period.HOUR else 2))
    tiles = list(windows(period, span, zone=zone, calendar=calendar))
    assert tiles[0].contains(span.start)
    assert tiles[-1].end >= span.end > tiles[-1].start
    assert all(left.end == right.start for left, right in pairwise(tiles))
    for tile in (tiles[0], tiles[-1]):
        assert tile == window_at(period, tile.start, zone=zone, calendar=calendar)
