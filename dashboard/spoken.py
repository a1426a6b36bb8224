"""Numbers and names as people read them. Display rounds here and nowhere else."""

import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final
from zoneinfo import ZoneInfo

UNKNOWN: Final = "–"  # noqa: RUF001 - the dash that tables of figures use
_ONE_DIGIT_US: Final = 10_000
_CENT: Final = Decimal("0.01")
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|$~:])")
_STEPS: Final = ((10**9, "B"), (10**6, "M"), (10**3, "k"))


def money(usd: str | None) -> str:
    """Write a decimal string of USD; below one dollar two significant digits stay (UX-C12)."""
    if usd is None:
        return UNKNOWN
    amount = Decimal(usd)
    sign = "-" if amount < 0 else ""
    size = abs(amount)
    if size >= 1 or not size:
        return f"{sign}${size.quantize(_CENT, ROUND_HALF_EVEN):,}"
    decimals = max(2, 1 - size.adjusted())
    return f"{sign}${size.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN):f}"


def count(number: int | None) -> str:
    """Write an integer with thousands separators."""
    return UNKNOWN if number is None else f"{number:,}"


def quantity(number: str | None) -> str:
    """Write a decimal string that is no money: separators, and at most two decimals above one."""
    if number is None:
        return UNKNOWN
    exact = Decimal(number)
    if exact == exact.to_integral_value():
        return f"{exact.to_integral_value():,f}"
    decimals = 2 if abs(exact) >= 1 else 1 - exact.adjusted()
    return f"{exact.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN):,f}"


def short(number: int | None) -> str:
    """Write an integer in at most four digits and a letter."""
    if number is None:
        return UNKNOWN
    for size, letter in _STEPS:
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def ratio(part: float | None) -> str:
    """Write a ratio as percent; small ones keep a digit."""
    if part is None:
        return UNKNOWN
    percent = part * 100
    if 0 < percent < 0.05:  # noqa: PLR2004 - what would be written as nothing
        return "< 0.1 %"
    return f"{percent:.1f} %" if abs(percent) < 10 else f"{percent:.0f} %"  # noqa: PLR2004 - digits shown


def span(lasted: timedelta) -> str:
    """Write how long something took, in its largest whole unit."""
    seconds = max(int(lasted.total_seconds()), 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def milliseconds(microseconds: int | None) -> str:
    """Write a duration."""
    if microseconds is None:
        return UNKNOWN
    if microseconds >= 10**6:
        return f"{microseconds / 10**6:.2f} s"
    digits = 1 if microseconds < _ONE_DIGIT_US else 0
    return f"{microseconds / 1000:.{digits}f} ms"


def moment(at: datetime | str | None, *, zone: str) -> str:
    """Write an instant in the reporting zone, seconds included."""
    if at is None:
        return UNKNOWN
    aware = parse(at) if isinstance(at, str) else at
    return aware.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S")


def parse(text: str) -> datetime:
    """Read RFC 3339."""
    return datetime.fromisoformat(text).astimezone(UTC)


def plain(text: str) -> str:
    """Escape what came from telemetry so that Markdown shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", text)
