"""A bill's lines in another currency → lines in USD, each at the dated rate of its day."""

from collections.abc import Callable, Iterable
from datetime import date
from decimal import Context, Decimal
from typing import Final

import msgspec

from controlplane.core.errors import InvalidInputError
from controlplane.pricing.currency import USD, RateTable
from controlplane.signals.billing import BillLine

_EXACT: Final = Context(prec=60)


class UsedRate(msgspec.Struct, frozen=True, order=True):
    """A dated rate that lines of a bill were converted at."""

    currency: str
    day: date
    usd_per_unit: str
    source: str


Rates = Callable[[str], RateTable]
"""The dated rates of a currency."""


def in_usd(
    lines: Iterable[BillLine], rates_of: Rates
) -> tuple[list[BillLine], tuple[UsedRate, ...]]:
    """Convert lines that are not in USD, each at the rate of its day.

    Raises:
        InvalidInputError: no rate holds on a line's day; nothing is guessed.
    """
    tables: dict[str, RateTable] = {}
    used: set[UsedRate] = set()
    made = []
    for line in lines:
        if line.currency == USD or line.cost_usd is None:
            made.append(line)
            continue
        table = tables.setdefault(line.currency, rates_of(line.currency))
        rate = table.on(line.day)
        if rate is None:
            raise InvalidInputError(
                "currency",
                f"no {line.currency} rate up to {line.day}",
                "Add one: `controlplane rates import`",
            )
        used.add(UsedRate(rate.currency, rate.day, rate.usd_per_unit, rate.source))
        per_unit = Decimal(rate.usd_per_unit)
        cost = _EXACT.multiply(line.cost_usd, per_unit)
        made.append(msgspec.structs.replace(line, cost_usd=cost, usd_per_unit=per_unit))
    return made, tuple(sorted(used))


def billed_in(lines: Iterable[BillLine]) -> dict[str, str]:
    """Return what was billed by currency, as the bill says it."""
    sums: dict[str, Decimal] = {}
    for line in lines:
        if line.cost_usd is not None:
            sums[line.currency] = _EXACT.add(sums.get(line.currency, Decimal(0)), line.cost_usd)
    return {code: format(sums[code], "f") for code in sorted(sums)}
