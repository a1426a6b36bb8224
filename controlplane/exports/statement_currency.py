"""Statements in a billing currency other than USD: what is converted, at which dated rate.

USD is what is accounted, and every line keeps its cost in USD. What an owner's cost at one price was
on a day is converted once, half-even to billionths, at the day's rate (`usage.converted`); a line's
amount at a rate is the sum of its parts of those, so that statements, FOCUS exports and cost answers
agree to the last digit. Sums of amounts are the rest: of a line, of a rate, of the statement. What has
no owner is converted first and shared out in the currency, so that statements sum to the same before
and after.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

import msgspec
import pyarrow as pa

from controlplane.core.errors import InvalidInputError
from controlplane.pricing.currency import ExchangeRate, RateTable
from controlplane.usage.converted import CellKey

HOW: Final = (
    "USD is the accounting unit. Each day's cost of an owner at a price was converted once, half-even to "
    "billionths; lines are sums of that."
)


class Cell(msgspec.Struct, frozen=True):
    """A line's part of one local day."""

    day: date
    quantity: int
    calls: int
    cost_nusd: int
    amount_nano: int


class BilledRow(msgspec.Struct, frozen=True, kw_only=True):
    """A line's part at one rate; a part of what is shared was converted before, at none."""

    line: int
    rate: int | None
    """Positions in the statement's lines and rates."""
    quantity: int
    calls: int
    cost_nusd: int
    amount_nano: int


class RateUse(msgspec.Struct, frozen=True, kw_only=True):
    """A dated rate, and what of the statement was converted at it."""

    day: date
    usd_per_unit: str
    source: str
    cost_nusd: int
    amount_nano: int


class Billing(msgspec.Struct, frozen=True, kw_only=True):
    """A statement's amounts in its currency, in billionths."""

    currency: str
    rates: tuple[RateUse, ...]
    rows: tuple[BilledRow, ...]
    total_nano: int
    previous_nano: int | None
    """None where a day of the period before has no rate."""

    def of_line(self, line: int) -> int:
        """Return a line's amount."""
        return sum(row.amount_nano for row in self.rows if row.line == line)


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """What statements are converted with; `days` are the local days of the charges' periods."""

    currency: str
    rates: RateTable
    days: tuple[date, ...]
    previous: Mapping[str | None, int | None]
    """What each owner's own calls cost in the period before, converted."""

    def rate_on(self, day: date) -> ExchangeRate:
        """Return the rate that holds on a day.

        Raises:
            InvalidInputError: none does; nothing is guessed.
        """
        rate = self.rates.on(day)
        if rate is None:
            raise InvalidInputError(
                "currency",
                f"no {self.currency} rate up to {day}",
                "Add one: `controlplane rates import`",
            )
        return rate


def bill(
    owner: str | None,
    lines: Sequence[Sequence[Cell]],
    conversion: Conversion,
    *,
    parts: Sequence[tuple[int, int]] = (),
) -> Billing:
    """Convert an owner's lines; `parts` are of what is shared, each in nano-USD and converted.

    Raises:
        InvalidInputError: no rate holds on a line's day.
    """
    days = sorted({cell.day for cells in lines for cell in cells})
    rate_of = {day: conversion.rate_on(day) for day in days}
    rates = list(dict.fromkeys(rate_of.values()))
    rows = [
        _row((line, place), some)
        for line, cells in enumerate(lines)
        for place, rate in enumerate(rates)
        if (some := [cell for cell in cells if rate_of[cell.day] == rate])
    ]
    uses = tuple(_use(rate, [row for row in rows if row.rate == n]) for n, rate in enumerate(rates))
    rows += [
        BilledRow(line=line, rate=None, quantity=0, calls=0, cost_nusd=nusd, amount_nano=nano)
        for line, (nusd, nano) in enumerate(parts, start=len(lines))
    ]
    return Billing(
        currency=conversion.currency,
        rates=uses,
        rows=tuple(rows),
        total_nano=sum(row.amount_nano for row in rows),
        previous_nano=conversion.previous.get(owner, 0),
    )


def _row(places: tuple[int, int], cells: Sequence[Cell]) -> BilledRow:
    return BilledRow(
        line=places[0],
        rate=places[1],
        quantity=sum(cell.quantity for cell in cells),
        calls=sum(cell.calls for cell in cells),
        cost_nusd=sum(cell.cost_nusd for cell in cells),
        amount_nano=sum(cell.amount_nano for cell in cells),
    )


def _use(rate: ExchangeRate, rows: Sequence[BilledRow]) -> RateUse:
    return RateUse(
        day=rate.day,
        usd_per_unit=rate.usd_per_unit,
        source=rate.source,
        cost_nusd=sum(row.cost_nusd for row in rows),
        amount_nano=sum(row.amount_nano for row in rows),
    )


def previous_in(
    rows: Sequence[tuple[str | None, date, CellKey, int]], rates: RateTable
) -> dict[str | None, int | None]:
    """Convert what each owner's calls cost on the days of the period before, cell by cell."""
    found: dict[str | None, int | None] = {}
    amounts = rates.convert_cells([(day, cell, nusd) for _, day, cell, nusd in rows])
    for (owner, *_), made in zip(rows, amounts, strict=True):
        before = found.get(owner, 0)
        found[owner] = None if made is None or before is None else before + made
    return found


_COLUMNS: Final = ("currency", "amount_nano", "usd_per_unit", "rate_day", "rate_source")


def in_currency(table: pa.Table, billing: Billing) -> pa.Table:
    """Return a statement's lines as a row a line and rate, with cost in USD and the amount."""
    lines = table.to_pylist()
    rows = []
    for row in billing.rows:
        rate = None if row.rate is None else billing.rates[row.rate]
        rows.append(
            {
                **lines[row.line],
                "quantity": row.quantity,
                "calls": row.calls,
                "cost_nusd": row.cost_nusd,
                "currency": billing.currency,
                "amount_nano": row.amount_nano,
                "usd_per_unit": rate.usd_per_unit if rate else None,
                "rate_day": rate.day.isoformat() if rate else None,
                "rate_source": rate.source if rate else None,
            }
        )
    kinds = {"amount_nano": pa.int64()}
    added = [pa.field(name, kinds.get(name, pa.string())) for name in _COLUMNS]
    return pa.Table.from_pylist(rows, schema=pa.schema([*table.schema, *added]))
