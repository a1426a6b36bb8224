"""The organisation's calendar of dates: weeks, months, quarters and years that need no clock.

Two kinds of year. *Calendar months*: a month starts on a chosen day, the year with a chosen month.
*Weeks* (4-4-5, 4-5-4, 5-4-4): every quarter is thirteen whole weeks; the year starts on the first
day of a week nearest to, or last before, an anchor date, so that some years have 53 weeks and the
last month has one more. The retail calendar is 4-5-4, weeks from Sunday, nearest to 1 February.
"""

from datetime import MAXYEAR, MINYEAR, date, timedelta
from enum import StrEnum
from itertools import accumulate
from typing import Annotated, Final

import msgspec


class Pattern(StrEnum):
    """How a fiscal year is divided into months."""

    MONTHS = "months"
    W445 = "4-4-5"
    W454 = "4-5-4"
    W544 = "5-4-4"


class Anchor(StrEnum):
    """Which week a year of weeks starts with."""

    NEAREST = "nearest"
    LAST = "last"
    """The last one that starts on or before the anchor date."""


class NamedBy(StrEnum):
    """Which calendar year a fiscal year is called after."""

    END = "end"
    START = "start"


class Weekday(StrEnum):
    """The first day of a week."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"


class FiscalCalendar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How dates fall into periods; the default is the Gregorian calendar with weeks from Monday.

    `month_start_day` is at most 28, so that every month has one.
    """

    pattern: Pattern = Pattern.MONTHS
    year_start_month: Annotated[int, msgspec.Meta(ge=1, le=12)] = 1
    month_start_day: Annotated[int, msgspec.Meta(ge=1, le=28)] = 1
    anchor: Anchor = Anchor.NEAREST
    named_by: NamedBy = NamedBy.END
    week_start: Weekday = Weekday.MONDAY


GREGORIAN: Final = FiscalCalendar()
DAYS_A_WEEK: Final = 7
MONTHS_A_YEAR: Final = 12
MONTHS_A_QUARTER: Final = 3
_WEEKDAYS: Final = tuple(Weekday)


class Dates(msgspec.Struct, frozen=True, order=True):
    """`[start, end)` in days."""

    start: date
    end: date


class FiscalMonth(msgspec.Struct, frozen=True):
    """A month with its place in the fiscal year: `number` counts from 1."""

    dates: Dates
    year: Dates
    number: int


def week_of(day: date, calendar: FiscalCalendar = GREGORIAN) -> Dates:
    """Return the week that holds a day."""
    start = _week_start(day, calendar)
    return Dates(start, start + timedelta(days=DAYS_A_WEEK))


def month_of(day: date, calendar: FiscalCalendar = GREGORIAN) -> Dates:
    """Return the month that holds a day."""
    return fiscal_month(day, calendar).dates


def quarter_of(day: date, calendar: FiscalCalendar = GREGORIAN) -> Dates:
    """Return the quarter that holds a day: three months of its year."""
    month = fiscal_month(day, calendar)
    first = (month.number - 1) // MONTHS_A_QUARTER * MONTHS_A_QUARTER
    starts = _month_starts(month.year, calendar)
    return Dates(starts[first], starts[first + MONTHS_A_QUARTER])


def year_of(day: date, calendar: FiscalCalendar = GREGORIAN) -> Dates:
    """Return the fiscal year that holds a day."""
    for named in (day.year + 1, day.year, day.year - 1):
        start = _year_start(named, calendar)
        if start <= day:
            return Dates(start, _year_start(named + 1, calendar))
    msg = f"no fiscal year of {calendar} holds {day}"
    raise ValueError(msg)


def fiscal_month(day: date, calendar: FiscalCalendar = GREGORIAN) -> FiscalMonth:
    """Return the month that holds a day, with its number in the year."""
    year = year_of(day, calendar)
    starts = _month_starts(year, calendar)
    number = next(n for n in range(MONTHS_A_YEAR, 0, -1) if starts[n - 1] <= day)
    return FiscalMonth(Dates(starts[number - 1], starts[number]), year, number)


def year_name(year: Dates, calendar: FiscalCalendar = GREGORIAN) -> int:
    """Return the number that a fiscal year is called by."""
    if calendar.named_by is NamedBy.START:
        # A year of weeks may start some days before its anchor, in the calendar year before.
        return (year.start + timedelta(days=DAYS_A_WEEK)).year
    return (year.end - timedelta(days=DAYS_A_WEEK)).year


def month_name(day: date, calendar: FiscalCalendar = GREGORIAN) -> str:
    """Name the month that holds a day: `2026-11`, or `FY2027-P02` outside the Gregorian calendar."""
    month = fiscal_month(day, calendar)
    if _is_gregorian(calendar):
        return f"{month.dates.start:%Y-%m}"
    return f"FY{year_name(month.year, calendar)}-P{month.number:02d}"


def dates_name(period: str, day: date, calendar: FiscalCalendar = GREGORIAN) -> str:
    """Name the day, week, month, quarter or year that holds a day."""
    match period:
        case "week":
            return f"week of {week_of(day, calendar).start}"
        case "month":
            return month_name(day, calendar)
        case "quarter" | "year":
            month = fiscal_month(day, calendar)
            year = f"{'' if _is_gregorian(calendar) else 'FY'}{year_name(month.year, calendar)}"
            quarter = (month.number - 1) // MONTHS_A_QUARTER + 1
            return year if period == "year" else f"{year}-Q{quarter}"
        case _:
            return f"{day}"


def _is_gregorian(calendar: FiscalCalendar) -> bool:
    is_whole_months = calendar.pattern is Pattern.MONTHS
    return is_whole_months and calendar.year_start_month == 1 and calendar.month_start_day == 1


def _week_start(day: date, calendar: FiscalCalendar) -> date:
    first = _WEEKDAYS.index(calendar.week_start)
    return day - timedelta(days=(day.weekday() - first) % DAYS_A_WEEK)


def _year_start(named: int, calendar: FiscalCalendar) -> date:
    """Return the first day of the fiscal year that starts in, or for weeks near, a calendar year."""
    anchor = date(
        min(max(named, MINYEAR + 1), MAXYEAR - 1),
        calendar.year_start_month,
        calendar.month_start_day,
    )
    if calendar.pattern is Pattern.MONTHS:
        return anchor
    reach = DAYS_A_WEEK // 2 if calendar.anchor is Anchor.NEAREST else 0
    return _week_start(anchor + timedelta(days=reach), calendar)


def _month_starts(year: Dates, calendar: FiscalCalendar) -> list[date]:
    """Return where the twelve months start, and where the last one ends."""
    if calendar.pattern is Pattern.MONTHS:
        return [_months_later(year.start, n) for n in range(MONTHS_A_YEAR)] + [year.end]
    weeks = [int(count) for count in calendar.pattern.split("-")] * 4
    offsets = [0, *accumulate(weeks)][:MONTHS_A_YEAR]
    return [year.start + timedelta(weeks=offset) for offset in offsets] + [year.end]


def _months_later(day: date, count: int) -> date:
    years, month = divmod(day.month - 1 + count, MONTHS_A_YEAR)
    return day.replace(year=day.year + years, month=month + 1)
