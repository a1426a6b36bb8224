"""Words for windows of time, as half-open intervals in the reporting zone (UX-C03).

Weeks, months, quarters and years are the organisation's: its fiscal calendar says where they start.
"""

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from controlplane.core.calendar import Period, Window, window_at, window_before
from controlplane.core.errors import InvalidInputError
from controlplane.core.fiscal import GREGORIAN, FiscalCalendar

QUARTER_HOUR: Final = timedelta(minutes=15)
"""Width of the stored money cube: what a cost window must be aligned to."""
MAX_DAYS: Final = 1_100
"""Three years: the widest window that a question may name."""
PRESETS: Final = (
    "today",
    "yesterday",
    "24h",
    "7d",
    "30d",
    "90d",
    "wtd",
    "mtd",
    "last_month",
    "last_quarter",
    "last_year",
    "qtd",
    "ytd",
)
_ROLLING: Final = re.compile(r"([0-9]{1,4})([hd])")
_CLOSED: Final = {
    "yesterday": Period.DAY,
    "last_month": Period.MONTH,
    "last_quarter": Period.QUARTER,
    "last_year": Period.YEAR,
}
_TO_DATE: Final = {
    "today": Period.DAY,
    "wtd": Period.WEEK,
    "mtd": Period.MONTH,
    "qtd": Period.QUARTER,
    "ytd": Period.YEAR,
}


def align_up(at: datetime) -> datetime:
    """Return the first quarter-hour boundary at or after `at`."""
    past = timedelta(
        minutes=at.minute % 15, seconds=at.second, microseconds=at.microsecond
    )  # zones are whole quarter hours from UTC, so wall minutes serve
    return at if not past else at - past + QUARTER_HOUR


def preset(name: str, *, now: datetime, zone: str, calendar: FiscalCalendar = GREGORIAN) -> Window:
    """Return the window of a preset, `<n>h` or `<n>d`.

    Open-ended presets end with the quarter hour that holds `now`. `<n>d` is today and the n - 1
    days before it, from local midnight; `<n>h` is the last n hours.

    Raises:
        InvalidInputError: no such preset, or one wider than MAX_DAYS.
    """
    end = align_up(now)
    if end == now:
        end += QUARTER_HOUR  # half-open: the quarter hour that starts now holds it
    rolling = _ROLLING.fullmatch(name)
    if rolling:
        return _rolling(int(rolling[1]), rolling[2], end=end, zone=zone)
    if name not in PRESETS:
        raise InvalidInputError(
            "range", f"{name!r} is no range", f"Use one of {', '.join(PRESETS)}"
        )
    if name in _CLOSED:
        period = _CLOSED[name]
        current = window_at(period, now, zone=zone, calendar=calendar)
        return window_before(period, current, zone=zone, calendar=calendar)
    return Window(window_at(_TO_DATE[name], now, zone=zone, calendar=calendar).start, end)


COMPARED: Final = ("previous", "last_week", "last_month", "last_year")
"""Words for the window that another is compared with."""


def compared(name: str, window: Window, *, zone: str) -> Window:
    """Return the window that another is compared with.

    `previous` is as long and ends where it starts; the others are its place in the week, month or
    year before, by the zone's wall clock. A day that the earlier month does not have is its last one.
    """
    if name == "previous":
        return Window(window.start - (window.end - window.start), window.start)
    tz = ZoneInfo(zone)
    start, end = (_earlier(name, at.astimezone(tz)) for at in (window.start, window.end))
    first, last = align_up(start.astimezone(UTC)), align_up(end.astimezone(UTC))
    # Both ends may have become the last day of a shorter month: then it is that day's like.
    return Window(first, last if last > first else first + (window.end - window.start))


def _earlier(name: str, local: datetime) -> datetime:
    if name == "last_week":
        return local - timedelta(days=7)  # wall time: the same hour of the same weekday
    months = local.year * 12 + local.month - 1 - (12 if name == "last_year" else 1)
    year, month = divmod(months, 12)
    last = monthrange(year, month + 1)[1]
    return local.replace(year=year, month=month + 1, day=min(local.day, last))


def _rolling(count: int, unit: str, *, end: datetime, zone: str) -> Window:
    hours = count if unit == "h" else count * 24
    if not 1 <= hours <= MAX_DAYS * 24:
        raise InvalidInputError("range", f"{count}{unit} is not within 1h and {MAX_DAYS}d")
    if unit == "h":
        return Window(end - timedelta(hours=count), end)
    day = window_at(Period.DAY, end - QUARTER_HOUR, zone=zone)
    for _ in range(count - 1):
        day = window_before(Period.DAY, day, zone=zone)
    return Window(day.start, end)
