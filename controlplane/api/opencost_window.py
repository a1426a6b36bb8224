"""OpenCost's words for windows and steps, on the organisation's clock and calendar.

opencost.io/docs/integrations/api: words, durations (`30m`, `24h`, `7d`, `2w`), pairs of RFC 3339
instants or of Unix seconds. Days are whole and hold now, as there: `7d` is today and six before it.
Cost is kept in quarter hours, so a window or step between them is refused, not rounded.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from controlplane.api.params import instant
from controlplane.api.ranges import MAX_DAYS, QUARTER_HOUR, align_up
from controlplane.core.calendar import Period, Window, midnight, window_at, window_before
from controlplane.core.errors import InvalidInputError, LimitExceededError
from controlplane.core.fiscal import FiscalCalendar

MAX_STEPS: Final = 400
"""Each is a question of its own to the store."""
_DURATION: Final = re.compile(r"([0-9]{1,6})([mhdw])")
_UNIX: Final = re.compile(r"([0-9]{1,12})[,-]([0-9]{1,12})")
_PERIODS: Final = {"today": Period.DAY, "week": Period.WEEK, "month": Period.MONTH}
_CLOSED: Final = {"yesterday": Period.DAY, "lastweek": Period.WEEK, "lastmonth": Period.MONTH}
WORDS: Final = (*_PERIODS, *_CLOSED)
_HINT: Final = f"{', '.join(WORDS)}, 24h, 7d, or two instants with a comma between"


def window_of(text: str, *, now: datetime, zone: str, calendar: FiscalCalendar) -> Window:
    """Read a window.

    Raises:
        InvalidInputError: none that OpenCost has, empty, too wide, or not on quarter hours.
    """
    found = _named(text, now=now, zone=zone, calendar=calendar)
    if found is None:
        found = _lasting(text, now=now, zone=zone) or _pair(text)
    if found.start >= found.end:
        raise InvalidInputError("window", f"{text!r} is empty", "Its end is after its start")
    if found.end - found.start > timedelta(days=MAX_DAYS):
        raise InvalidInputError("window", f"{text!r} is longer than {MAX_DAYS} days")
    if any(align_up(at) != at for at in (found.start, found.end)):
        raise InvalidInputError("window", f"{text!r} is not on quarter hours")
    return found


def steps_of(window: Window, text: str | None, *, zone: str) -> tuple[Window, ...]:
    """Cut a window into steps from its start on; the last one may be shorter. Days are local.

    Raises:
        InvalidInputError: no duration of whole quarter hours.
        LimitExceededError: more than MAX_STEPS.
    """
    if text is None:
        return (window,)
    count, unit = _duration("step", text)
    tz, start = ZoneInfo(zone), window.start
    made: list[Window] = []
    while start < window.end:
        if len(made) == MAX_STEPS:
            raise LimitExceededError("steps of a window", MAX_STEPS)
        if unit in "dw":
            local = start.astimezone(tz) + timedelta(days=count * (7 if unit == "w" else 1))
            end = align_up(local.astimezone(UTC))
        else:
            end = start + _length(count, unit)
        made.append(Window(start, min(end, window.end)))
        start = end
    return tuple(made)


def check_duration(name: str, text: str | None) -> None:
    """Pass a duration that is not used: what is stored has one resolution.

    Raises:
        InvalidInputError: it is none.
    """
    if text is not None and not _DURATION.fullmatch(text):
        raise InvalidInputError(name, f"{text!r} is no duration", "Write it like 1m or 24h")


def _named(text: str, *, now: datetime, zone: str, calendar: FiscalCalendar) -> Window | None:
    period = _PERIODS.get(text) or _CLOSED.get(text)
    if period is None:
        return None
    current = window_at(period, now, zone=zone, calendar=calendar)
    if text in _CLOSED:
        return window_before(period, current, zone=zone, calendar=calendar)
    if period is Period.DAY:
        return current
    return Window(current.start, align_up(now + timedelta(microseconds=1)))


def _lasting(text: str, *, now: datetime, zone: str) -> Window | None:
    if not _DURATION.fullmatch(text):
        return None
    count, unit = _duration("window", text)
    if unit == "m":
        end = align_up(now + timedelta(microseconds=1))
        return Window(end - _length(count, unit), end)
    if unit == "h":
        end = window_at(Period.HOUR, now, zone=zone).end
        return Window(end - _length(count, unit), end)
    days = count * (7 if unit == "w" else 1)
    tz = ZoneInfo(zone)
    tomorrow = now.astimezone(tz).date() + timedelta(days=1)
    return Window(midnight(tomorrow - timedelta(days=days), tz), midnight(tomorrow, tz))


def _duration(name: str, text: str) -> tuple[int, str]:
    check_duration(name, text)
    count, unit = int(text[:-1]), text[-1]
    length = _length(count, unit)
    if not timedelta() < length <= timedelta(days=MAX_DAYS):
        raise InvalidInputError(name, f"{text!r} is not within 15m and {MAX_DAYS}d")
    if length % QUARTER_HOUR:
        raise InvalidInputError(
            name, f"{text!r} is not whole quarter hours", "Cost is kept by quarter hour: use 15m"
        )
    return count, unit


def _length(count: int, unit: str) -> timedelta:
    minutes = {"m": 1, "h": 60, "d": 1_440, "w": 10_080}[unit]
    return timedelta(minutes=count * minutes)


def _pair(text: str) -> Window:
    unix = _UNIX.fullmatch(text)
    if unix:
        try:
            return Window(*(datetime.fromtimestamp(int(part), UTC) for part in unix.groups()))
        except (ValueError, OverflowError, OSError):
            raise InvalidInputError("window", f"{text!r} is out of range") from None
    start, comma, end = text.partition(",")
    if not comma:
        raise InvalidInputError("window", f"{text!r} is no window", _HINT)
    return Window(instant("window", start), instant("window", end))
