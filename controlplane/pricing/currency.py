"""Other currencies: USD is what is accounted; a converted amount carries its dated rate.

A rate is USD for one unit of a currency on a UTC day. What an owner's cost at one price was on a day
(`usage.converted`) is converted once, at the newest rate of the latest day up to it, and everything
else is a sum or a part of that: nothing is converted twice and no rate is guessed. A day before the
first rate has no amount.
"""

import csv
import io
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import floor
from re import compile as compile_pattern
from typing import Final, Protocol

import msgspec

from controlplane.core.errors import InvalidInputError
from controlplane.core.money import divide_half_even

USD: Final = "USD"
MAX_RATE: Final = Decimal(1_000_000)
MAX_RATES: Final = 100_000
COLUMNS: Final = ("currency", "day", "usd_per_unit")
_CODE: Final = compile_pattern(r"[A-Z]{3}")


class ExchangeRate(msgspec.Struct, frozen=True, kw_only=True):
    """USD for one unit of a currency on a day; a later record of the day replaces it."""

    currency: str
    day: date
    usd_per_unit: str
    """A decimal, as its source writes it."""
    source: str
    recorded_at: datetime


class Converted(msgspec.Struct, frozen=True):
    """An amount in another currency, in billionths, and the rate that made it."""

    amount_nano: int
    rate: ExchangeRate


class ExchangeRates(Protocol):
    """Where rates are kept: appended to, never changed."""

    def add(self, rates: Iterable[ExchangeRate]) -> None:
        """Append rates."""
        ...

    def of(self, currency: str) -> list[ExchangeRate]:
        """Return every rate of a currency, oldest record first."""
        ...

    def currencies(self) -> list[str]:
        """Return the codes that have rates, sorted."""
        ...


def check_rate(rate: ExchangeRate) -> None:
    """Check what people or files say.

    Raises:
        InvalidInputError: no ISO 4217 code, or a rate that is none.
    """
    if not _CODE.fullmatch(rate.currency) or rate.currency == USD:
        raise InvalidInputError("currency", f"{rate.currency!r}", 'An ISO code such as "EUR"')
    try:
        usd = Decimal(rate.usd_per_unit)
    except InvalidOperation:
        usd = Decimal("NaN")
    if not usd.is_finite() or not 0 < usd <= MAX_RATE:
        raise InvalidInputError("usd_per_unit", f"{rate.usd_per_unit!r}", 'Write it like "1.0873"')


class RateTable:
    """The rates of one currency by day."""

    def __init__(self, rates: Iterable[ExchangeRate]) -> None:
        by_day: dict[date, ExchangeRate] = {}
        for rate in sorted(rates, key=lambda one: one.recorded_at):
            by_day[rate.day] = rate
        self._days = sorted(by_day)
        self._rates = [by_day[day] for day in self._days]

    @classmethod
    def of_nothing(cls, _currency: str) -> "RateTable":
        """Return a table without rates: where none are kept."""
        return cls(())

    def on(self, day: date) -> ExchangeRate | None:
        """Return the rate that holds on a day; None before the first."""
        place = bisect_right(self._days, day)
        return self._rates[place - 1] if place else None

    def convert(self, nusd: int, day: date) -> Converted | None:
        """Convert a day's nano-USD, rounded half-even once; None where no rate holds."""
        rate = self.on(day)
        if rate is None:
            return None
        exact = nusd / Fraction(rate.usd_per_unit)
        return Converted(divide_half_even(exact.numerator, exact.denominator), rate)

    def convert_cells(self, rows: Sequence[tuple[date, Hashable, int]]) -> list[int | None]:
        """Convert rows of (day, cell, nano-USD): a cell of a day once, its rows as parts of it.

        Returns billionths of each row in order; None where no rate holds.
        """
        places: dict[tuple[date, Hashable], list[int]] = {}
        for place, (day, cell, _) in enumerate(rows):
            places.setdefault((day, cell), []).append(place)
        made: list[int | None] = [None] * len(rows)
        for (day, _), some in places.items():
            for place, amount in zip(
                some, self.convert_parts([rows[at][2] for at in some], day) or (), strict=False
            ):
                made[place] = amount
        return made

    def convert_parts(self, parts: Sequence[int], day: date) -> list[int] | None:
        """Convert parts of a day so that they sum to what the day converts to; each is off < 1.

        The billionths left over go to the largest remainders, ties to the earlier part.
        """
        whole = self.convert(sum(parts), day)
        if whole is None:
            return None
        if len(parts) == 1:
            return [whole.amount_nano]
        exact = [part / Fraction(whole.rate.usd_per_unit) for part in parts]
        made = [floor(one) for one in exact]
        order = sorted(range(len(parts)), key=lambda at: (made[at] - exact[at], at))
        for at in order[: whole.amount_nano - sum(made)]:
            made[at] += 1
        return made


def read_rates_csv(text: str, *, source: str, now: datetime) -> list[ExchangeRate]:
    """Read `currency,day,usd_per_unit` lines under a header; columns may stand in any order.

    Raises:
        InvalidInputError: names the line that is no rate, or the column that is missing.
    """
    rows = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise InvalidInputError("csv", f"has no column {missing[0]}", f"Write {','.join(COLUMNS)}")
    rates = []
    for number, row in enumerate(rows, start=2):
        if number > MAX_RATES:
            raise InvalidInputError("csv", f"has more than {MAX_RATES} lines")
        try:
            day = date.fromisoformat((row["day"] or "").strip())
        except ValueError:
            raise InvalidInputError("csv", f"line {number}: day {row['day']!r}") from None
        rate = ExchangeRate(
            currency=(row["currency"] or "").strip().upper(),
            day=day,
            usd_per_unit=(row["usd_per_unit"] or "").strip(),
            source=source,
            recorded_at=now,
        )
        try:
            check_rate(rate)
        except InvalidInputError as wrong:
            raise InvalidInputError("csv", f"line {number}: {wrong}") from None
        rates.append(rate)
    if not rates:
        raise InvalidInputError("csv", "has no rates")
    return rates
