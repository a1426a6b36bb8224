"""Windows that no calendar has: fixed lengths from an anchor, and rolling ones in quarter hours.

A rolling window is kept in sub-windows of 15 minutes (algorithms L7). A call is charged to the one
it began in, and at any moment the sub-windows that the last `length` touches are counted, the open
one included. Whatever span of that length one looks at later lies within sub-windows that were
counted together, so the limit bounds it; money comes back up to 15 minutes later than it might.
"""

import re
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.core.instants import align_down

SUB_WINDOW: Final = timedelta(minutes=15)
MAX_ROLLING: Final = timedelta(days=31)
MAX_FIXED: Final = timedelta(days=366)
_EVERY: Final = re.compile(r"([1-9]\d{0,4})([hd])")


class WindowKind(StrEnum):
    """How a budget's windows follow each other."""

    CALENDAR = "calendar"
    """Periods of the organisation's calendar."""
    FIXED = "fixed"
    """Every so many hours or days from an anchor."""
    ROLLING = "rolling"
    """The last so many hours or days, at any moment."""


class Every(msgspec.Struct, frozen=True):
    """A length of time: so many hours, or so many days."""

    count: int
    is_days: bool

    @property
    def length(self) -> timedelta:
        """Return it with days of 24 hours."""
        return timedelta(days=self.count) if self.is_days else timedelta(hours=self.count)


def parse_every(text: str) -> Every:
    """Read `6h` or `30d`.

    Raises:
        InvalidInputError: something else.
    """
    found = _EVERY.fullmatch(text)
    if found is None:
        raise InvalidInputError(
            "every", f"{text!r} is no length", 'Write hours or days: "6h", "3d"'
        )
    return Every(int(found[1]), is_days=found[2] == "d")


def fixed_window(every: Every, *, anchor: datetime, at: datetime, zone: str) -> Window:
    """Return the window that holds `at`; windows tile time in both directions from the anchor.

    Hours are counted as they pass. Days begin at the anchor's time of day in `zone`, so that one
    on which the clock changes has 23 or 25 hours; a time that the clock skips is taken as it would
    have been.
    """
    if not every.is_days:
        number = (at - anchor) // every.length
        start = anchor + number * every.length
        return Window(start, start + every.length)
    tz = ZoneInfo(zone)
    local = anchor.astimezone(tz)
    days = (at.astimezone(tz).date() - local.date()).days
    number = days // every.count
    if _on_day(local, number * every.count, tz) > at:  # before the anchor's time of the first day
        number -= 1
    return Window(
        _on_day(local, number * every.count, tz), _on_day(local, (number + 1) * every.count, tz)
    )


def sub_window(at: datetime) -> Window:
    """Return the quarter hour of a rolling window that holds `at`."""
    start = align_down(at, SUB_WINDOW)
    return Window(start, start + SUB_WINDOW)


def rolling_window(every: Every, at: datetime) -> Window:
    """Return everything that counts at `at`: whole sub-windows that the last `every` touches."""
    now = sub_window(at)
    # One more than the length has: a span that ends in this quarter hour began in that one.
    return Window(now.start - every.length, now.end)


def _on_day(local: datetime, days: int, tz: ZoneInfo) -> datetime:
    day = local.date() + timedelta(days=days)
    at: time = local.time()
    return datetime.combine(day, at, tz).astimezone(UTC)
