"""Query parameters as data: one table checks them, documents them and refuses the rest."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from controlplane.api.ranges import MAX_DAYS, PRESETS, preset
from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.core.fiscal import GREGORIAN, FiscalCalendar

FILTER_PREFIX: Final = "filter."
UNATTRIBUTED: Final = "unattributed"
"""The word for rows without a value of a dimension, in filters."""
MAX_FILTER_VALUES: Final = 100
MAX_VALUE_CHARACTERS: Final = 256
DEFAULT_RANGE: Final = "24h"


class Param(msgspec.Struct, frozen=True):
    """One query parameter."""

    name: str
    about: str
    example: str = ""
    repeats: bool = False
    choices: tuple[str, ...] = ()
    integer: bool = False


START = Param("start", "First instant, RFC 3339 with an offset", "2026-11-01T00:00:00Z")
END = Param("end", "First instant after the window, RFC 3339 with an offset")
RANGE = Param(
    "range",
    f"Instead of start and end: {', '.join(PRESETS)}, <n>h or <n>d (today and n - 1 days before)",
    "7d",
)
ZONE = Param("zone", "IANA zone of days and months; default the organisation's", "Asia/Kolkata")
TENANT = Param("tenant", "Only these tenants; default all that the key may see", repeats=True)
LIMIT = Param("limit", "Rows per page", integer=True)
CURSOR = Param("cursor", "`meta.next_cursor` of the page before")
WINDOW: Final = (START, END, RANGE, ZONE, TENANT)

Given = Mapping[str, tuple[str, ...]]
"""Checked parameters: name to its values, commas in repeatable ones split."""


def read(
    items: Iterable[tuple[str, str]], *, params: Sequence[Param], dimensions: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Check names and multiplicity; `filter.<dimension>` is known for each of `dimensions`.

    Raises:
        InvalidInputError: an unknown name, a single parameter given twice, a value not among its
            choices or too long.
    """
    known = {param.name: param for param in params}
    known |= {
        FILTER_PREFIX + name: Param(FILTER_PREFIX + name, "", repeats=True) for name in dimensions
    }
    given: dict[str, tuple[str, ...]] = {}
    for name, value in items:
        param = known.get(name)
        if param is None:
            raise InvalidInputError(name, "no such parameter", _nearest(name, list(known)))
        if name in given and not param.repeats:
            raise InvalidInputError(name, "given twice", "Give it once")
        given[name] = given.get(name, ()) + _values(param, value)
    return given


def _nearest(name: str, known: list[str]) -> str:
    if not known:
        return "Ask without parameters"
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Use one of {', '.join(known)}"


def _values(param: Param, text: str) -> tuple[str, ...]:
    # A filter's value may hold a comma (a model's or a team's name), so only names are split.
    splits = param.repeats and not param.name.startswith(FILTER_PREFIX)
    values = tuple(part for part in text.split(",") if part) if splits else (text,)
    for value in values:
        if len(value) > MAX_VALUE_CHARACTERS:
            raise InvalidInputError(param.name, f"longer than {MAX_VALUE_CHARACTERS} characters")
        if param.choices and value not in param.choices:
            raise InvalidInputError(
                param.name, f"{value!r} is not known", f"Use one of {', '.join(param.choices)}"
            )
    return values


def one(given: Given, name: str, default: str | None = None) -> str | None:
    """Return a single parameter's value."""
    return given[name][0] if given.get(name) else default


def whole(given: Given, name: str, *, default: int, most: int) -> int:
    """Return an integer of 1 to `most`.

    Raises:
        InvalidInputError: not one.
    """
    text = one(given, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):  # noqa: PLR2004 - longer is above every limit
        raise InvalidInputError(name, f"{text!r} is not a whole number of 1 to {most}")
    return int(text)


def filters(given: Given) -> dict[str, tuple[str | None, ...]]:
    """Return `filter.*` as dimension to accepted values, None for unattributed.

    Raises:
        InvalidInputError: more than MAX_FILTER_VALUES values of one dimension.
    """
    found: dict[str, tuple[str | None, ...]] = {}
    for name, values in given.items():
        if name.startswith(FILTER_PREFIX):
            if len(values) > MAX_FILTER_VALUES:
                raise InvalidInputError(name, f"more than {MAX_FILTER_VALUES} values")
            found[name.removeprefix(FILTER_PREFIX)] = tuple(
                None if value == UNATTRIBUTED else value for value in values
            )
    return found


def zone(given: Given, default: str) -> str:
    """Return the reporting zone.

    Raises:
        InvalidInputError: not an IANA zone.
    """
    name = one(given, "zone", default) or default
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInputError(
            "zone", f"{name!r} is no IANA zone", 'Write it like "Europe/Madrid"'
        ) from None
    return name


def window(
    given: Given,
    *,
    now: datetime,
    in_zone: str,
    calendar: FiscalCalendar = GREGORIAN,
    default: str = DEFAULT_RANGE,
) -> Window:
    """Return the window asked for: start and end, or a range.

    Raises:
        InvalidInputError: half of a pair, both forms, no RFC 3339, empty or wider than MAX_DAYS.
    """
    start, end = one(given, "start"), one(given, "end")
    if start is None and end is None:
        name = one(given, "range", default) or default
        return preset(name, now=now, zone=in_zone, calendar=calendar)
    if "range" in given:
        raise InvalidInputError("range", "given together with start or end", "Use one form")
    if start is None or end is None:
        missing = "start" if start is None else "end"
        raise InvalidInputError(missing, "missing", "Give start and end, or range")
    asked = Window(instant("start", start), instant("end", end))
    if asked.start >= asked.end:
        raise InvalidInputError("end", "not after start", "Windows are [start, end)")
    if (asked.end - asked.start).days > MAX_DAYS:
        raise InvalidInputError("start", f"more than {MAX_DAYS} days before end")
    return asked


FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2200


def instant(name: str, text: str) -> datetime:
    """Read RFC 3339 with an offset as aware UTC.

    Raises:
        InvalidInputError: it is not that.
    """
    # A "+" that nobody percent-encoded arrives as a space.
    try:
        at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        if at.tzinfo is None:
            raise InvalidInputError(name, "has no offset", 'Write it like "2026-11-01T00:00:00Z"')
        utc = at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInputError(
            name, f"{text!r} is not RFC 3339", 'Write it like "2026-11-01T00:00:00Z"'
        ) from None
    if not FIRST_YEAR <= utc.year < LAST_YEAR:  # a period around it must exist in every zone
        raise InvalidInputError(name, f"{text!r} is out of range", "Ask for 1970 to 2199")
    return utc
