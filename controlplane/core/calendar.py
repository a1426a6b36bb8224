"""Half-open windows of time in a reporting zone and the organisation's calendar.

Dates are `core.fiscal`'s; here they meet the zone's clock. A period is bounded by local midnights,
so a day has 23, 24.5 or 25 hours where the clock changes; a midnight that the clock skips is the
instant of the change, one that it repeats is the first of the two. Periods tile time.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

import msgspec

from controlplane.core.fiscal import (
    GREGORIAN,
    Dates,
    FiscalCalendar,
    dates_name,
    month_of,
    quarter_of,
    week_of,
    year_of,
)


class Window(msgspec.Struct, frozen=True, order=True):
    """`[start, end)` in aware UTC."""

    start: datetime
    end: datetime

    def contains(self, at: datetime) -> bool:
        """Whether `at` lies in the window."""
        return self.start <= at < self.end

    def clip(self, other: "Window") -> "Window":
        """Return the part of it that lies in `other`; empty (start = end) where there is none."""
        start = min(max(self.start, other.start), other.end)
        return Window(start, max(start, min(self.end, other.end)))


class Period(StrEnum):
    """A calendar period that budgets and reports repeat by."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


def window_at(
    period: Period, at: datetime, *, zone: str = "UTC", calendar: FiscalCalendar = GREGORIAN
) -> Window:
    """Return the period of the calendar, in `zone`, that holds `at`."""
    tz = ZoneInfo(zone)
    if period is Period.HOUR:
        return _hour_at(at.astimezone(UTC), tz)
    dates = dates_at(period, at.astimezone(tz).date(), calendar)
    return Window(midnight(dates.start, tz), midnight(dates.end, tz))


def dates_at(period: Period, day: date, calendar: FiscalCalendar = GREGORIAN) -> Dates:
    """Return the period of whole days that holds a day (an hour's is its day)."""
    match period:
        case Period.HOUR | Period.DAY:
            return Dates(day, day + timedelta(days=1))
        case Period.WEEK:
            return week_of(day, calendar)
        case Period.MONTH:
            return month_of(day, calendar)
        case Period.QUARTER:
            return quarter_of(day, calendar)
        case Period.YEAR:
            return year_of(day, calendar)


def midnight(day: date, tz: ZoneInfo) -> datetime:
    """Return the first instant of a local day, in UTC."""
    return datetime.combine(day, time.min, tz).astimezone(UTC)


def window_before(
    period: Period, window: Window, *, zone: str = "UTC", calendar: FiscalCalendar = GREGORIAN
) -> Window:
    """Return the period that ends where `window` starts."""
    last = window.start - timedelta(microseconds=1)
    return window_at(period, last, zone=zone, calendar=calendar)


def windows(
    period: Period, span: Window, *, zone: str = "UTC", calendar: FiscalCalendar = GREGORIAN
) -> Iterator[Window]:
    """Yield the periods that overlap `span`, in order, unclipped."""
    window = window_at(period, span.start, zone=zone, calendar=calendar)
    while window.start < span.end:
        yield window
        window = window_at(period, window.end, zone=zone, calendar=calendar)


def period_name(
    at: datetime,
    period: Period = Period.MONTH,
    *,
    zone: str = "UTC",
    calendar: FiscalCalendar = GREGORIAN,
) -> str:
    """Name the period that holds an instant, as statements and exports call it."""
    return dates_name(period.value, at.astimezone(ZoneInfo(zone)).date(), calendar)


def _hour_at(at: datetime, tz: ZoneInfo) -> Window:
    """Return the hour of the zone's wall clock, cut where the clock changes inside it.

    A repeated hour stays two windows, and a half-hour change makes a short one: hours tile time.
    """
    offset = at.astimezone(tz).utcoffset() or timedelta(0)
    start = (at + offset).replace(minute=0, second=0, microsecond=0) - offset
    minutes = [start + timedelta(minutes=minute) for minute in range(60)]
    same = [m for m in minutes if (m.astimezone(tz).utcoffset() or timedelta(0)) == offset]
    return Window(same[0], same[-1] + timedelta(minutes=1))
