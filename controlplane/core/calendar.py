"""Half-open windows of time in a reporting zone."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

import msgspec


class Window(msgspec.Struct, frozen=True, order=True):
    """`[start, end)` in aware UTC."""

    start: datetime
    end: datetime

    def contains(self, at: datetime) -> bool:
        """Whether `at` lies in the window."""
        return self.start <= at < self.end


class Period(StrEnum):
    """A calendar period that budgets and reports repeat by."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def window_at(period: Period, at: datetime, *, zone: str = "UTC") -> Window:
    """Return the period of `zone`'s calendar that holds `at` (weeks start on Monday).

    Wall-clock arithmetic in the zone, so a day over a DST change has 23 or 25 hours.
    """
    tz = ZoneInfo(zone)
    local = at.astimezone(tz)
    if period is Period.HOUR:
        return _hour_at(at.astimezone(UTC), tz)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if period is Period.WEEK:
        midnight -= timedelta(days=midnight.weekday())
        following = midnight + timedelta(days=7)
    elif period is Period.MONTH:
        midnight = midnight.replace(day=1)
        following = (midnight + timedelta(days=32)).replace(day=1)
    else:
        following = midnight + timedelta(days=1)
    return Window(midnight.astimezone(UTC), following.astimezone(UTC))


def _hour_at(at: datetime, tz: ZoneInfo) -> Window:
    """Return the hour of the zone's wall clock, cut where the clock changes inside it.

    A repeated hour stays two windows, and a half-hour change makes a short one: hours tile time.
    """
    offset = at.astimezone(tz).utcoffset() or timedelta(0)
    start = (at + offset).replace(minute=0, second=0, microsecond=0) - offset
    minutes = [start + timedelta(minutes=minute) for minute in range(60)]
    same = [m for m in minutes if (m.astimezone(tz).utcoffset() or timedelta(0)) == offset]
    return Window(same[0], same[-1] + timedelta(minutes=1))


def windows(period: Period, span: Window, *, zone: str = "UTC") -> Iterator[Window]:
    """Yield the periods that overlap `span`, in order, unclipped."""
    window = window_at(period, span.start, zone=zone)
    while window.start < span.end:
        yield window
        window = window_at(period, window.end, zone=zone)
