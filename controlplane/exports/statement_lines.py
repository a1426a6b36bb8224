"""What stands on a statement: a line a model and meter, a pool's idle time, or a part of what is shared."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import groupby
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import polars as pl

from controlplane.core.fiscal import FiscalCalendar, month_name
from controlplane.exports.charges import corrected_amounts
from controlplane.exports.statement_currency import Cell
from controlplane.exports.vendors import METERS, SELF_HOSTED, vendor
from controlplane.pricing.currency import RateTable
from controlplane.pricing.itemize import WHOLE_CALL
from controlplane.pricing.providers import price_provider

IDLE_METER: Final = "Idle GPU time, quarters of an hour"
_SUMMED: Final = ("quantity", "calls", "cost_nusd")


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """One meter of one model, a pool's idle time, or a part of what is shared (`is_shared`)."""

    provider: str
    model: str
    meter: str
    quantity: int
    calls: int
    cost_nusd: int
    is_shared: bool = False


class Drawn(msgspec.Struct, frozen=True):
    """A line, and its days where it is converted."""

    line: StatementLine
    cells: tuple[Cell, ...] = ()

    @property
    def amount_nano(self) -> int:
        """Return what it came to in the currency that its days were converted to."""
        return sum(cell.amount_nano for cell in self.cells)


class IdleCost(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool's slice cost while nobody used it, by day, and what its users' calls cost."""

    pool: str
    slice: str
    cells: tuple[Cell, ...]
    users: Mapping[str, int] = msgspec.field(default_factory=dict)
    """What each owner's calls cost on the pool: what `proportional` divides by."""

    @property
    def cost_nusd(self) -> int:
        """Return what it cost in all."""
        return sum(cell.cost_nusd for cell in self.cells)

    def drawn(self) -> Drawn:
        """Return the line of who bears it."""
        line = StatementLine(
            provider=vendor(SELF_HOSTED),
            model="/".join(filter(None, (self.pool, self.slice))),
            meter=IDLE_METER,
            quantity=sum(cell.quantity for cell in self.cells),
            calls=0,
            cost_nusd=self.cost_nusd,
        )
        return Drawn(line, self.cells)


def part_of(what: str, cost_nusd: int) -> StatementLine:
    """Return an owner's part of what is shared, or its way out of the ownerless."""
    return StatementLine(
        provider="-",
        model=what,
        meter="share",
        quantity=0,
        calls=0,
        cost_nusd=cost_nusd,
        is_shared=True,
    )


def charged(
    charges: pl.DataFrame, keys: Sequence[str], days: Sequence[date]
) -> Iterator[tuple[str | None, Drawn]]:
    """Yield a line an owner, model and meter, with its part of each period where those are `days`."""
    told = (*_SUMMED, "amount_nano") if days else _SUMMED
    summed = charges.group_by([*keys, "period"]).agg(pl.col(told).sum())
    rows = summed.sort([*keys, "period"], nulls_last=True).iter_rows(named=True)
    for key, some in groupby(rows, key=lambda row: tuple(row[name] for name in keys)):
        parts = list(some)
        whole = {name: sum(part[name] for part in parts) for name in _SUMMED}
        cells = tuple(
            Cell(days[part["period"]], *(int(part[name]) for name in told))
            for part in parts
            if days
        )
        yield key[0], Drawn(_line({**parts[0], **whole}), cells)


def _line(row: Mapping[str, Any]) -> StatementLine:
    provider = price_provider(row["provider"]) if row["provider"] else None
    return StatementLine(
        provider=vendor(provider),
        model=row["billing_model"] or "unknown model",
        meter=METERS[row["bucket"]],
        quantity=int(row["quantity"]),
        calls=int(row["calls"]),
        cost_nusd=int(row["cost_nusd"]),
    )


def corrected(
    corrections: Iterable[Mapping[str, Any]],
    *,
    by: str,
    zone: str,
    calendar: FiscalCalendar,
    rates: RateTable,
) -> Iterator[tuple[str | None, Drawn]]:
    """Yield a line an owner, model, closed month and meter whose cost was booked now."""
    tz = ZoneInfo(zone)
    booked_rows = list(corrections)
    sums: dict[tuple[str | None, ...], dict[date, tuple[int, int, int]]] = {}
    amounts = corrected_amounts(booked_rows, zone, rates)
    for row, amount in zip(booked_rows, amounts, strict=True):
        month = month_name(row["day"].date(), calendar)
        what = (row[by], row["provider"], row["billing_model"], month, row["bucket"])
        booked = sums.setdefault(what, {})
        day = row["applied_at"].astimezone(tz).date()
        quantity, nusd, nano = booked.get(day, (0, 0, 0))
        booked[day] = (
            quantity + int(row["quantity"]),
            nusd + int(row["cost_nusd"]),
            nano + (amount or 0),
        )
    for key, booked in sorted(
        sums.items(), key=lambda item: [(k is None, k or "") for k in item[0]]
    ):
        owner, provider, model, closed, bucket = key
        quantity, nusd, _ = (sum(part) for part in zip(*booked.values(), strict=True))
        if quantity or nusd:
            line = StatementLine(
                provider=vendor(price_provider(provider) if provider else None),
                model=model or "unknown model",
                meter=f"{METERS[bucket or WHOLE_CALL]}, correction of {closed}",
                quantity=quantity,
                calls=0,
                cost_nusd=nusd,
            )
            cells = (
                Cell(day, booked[day][0], 0, cost_nusd=booked[day][1], amount_nano=booked[day][2])
                for day in sorted(booked)
            )
            yield owner, Drawn(line, tuple(cells))
