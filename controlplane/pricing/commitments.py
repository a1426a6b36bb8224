"""Committed spend, drawn down by the calls that a contract priced, in the order they were made.

A contract's `commitment_usd` is owed for each of its periods, used or not. Calls that the contract
priced (their price id names it) consume it by start, then id; the call in which it runs out is split,
so what is drawn is the amount to the nano-dollar. What comes after it is overage, at the contract's
rates; what is left when the period ends is the shortfall: a cost that belongs to no call.
"""

from calendar import monthrange
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from typing import Final

import msgspec
import polars as pl

from controlplane.core.calendar import Window
from controlplane.core.money import parse_usd
from controlplane.pricing.contracts import CommitmentPeriod, Contract

_MONTHS: Final = {
    CommitmentPeriod.MONTH: 1,
    CommitmentPeriod.QUARTER: 3,
    CommitmentPeriod.YEAR: 12,
}
_ALWAYS: Final = date(1970, 1, 1)
"""A contract without a first day has calendar months, quarters and years."""
_YEAR: Final = 12


class Boundary(msgspec.Struct, frozen=True):
    """The call in which a commitment ran out, and how much of its cost was still covered."""

    start: datetime
    call_id: str
    covered_nusd: int


class Drawdown(msgspec.Struct, frozen=True, kw_only=True):
    """One period of one commitment: what it is and what was used of it."""

    contract: Contract
    period: Window
    amount_nusd: int
    used_nusd: int
    """What calls of the period cost at the contract's rates, beyond the amount too."""
    calls: int
    boundary: Boundary | None = None

    @property
    def drawn_nusd(self) -> int:
        """Return how much of the amount calls consumed."""
        return min(self.used_nusd, self.amount_nusd)

    @property
    def left_nusd(self) -> int:
        """Return what of the amount is not used: remaining while the period runs, then shortfall."""
        return self.amount_nusd - self.drawn_nusd

    @property
    def overage_nusd(self) -> int:
        """Return what was used beyond the amount."""
        return self.used_nusd - self.drawn_nusd

    def is_closed(self, now: datetime) -> bool:
        """Whether the period is over."""
        return self.period.end <= now


def commitment_periods(contract: Contract, span: Window) -> Iterator[Window]:
    """Yield the periods of a contract's commitment that overlap `span`, counted from its first day.

    Days are UTC, as a contract's validity is. `valid_to` ends the last period early; its amount is
    owed whole.
    """
    anchor = contract.valid_from or _ALWAYS
    months = _MONTHS[contract.commitment_period]
    end = _instant(contract.valid_to) if contract.valid_to else None
    first = (span.start.year - anchor.year) * _YEAR + span.start.month - anchor.month
    number = max(0, first // months - 1)
    while True:
        start, until = (_later(anchor, months * n) for n in (number, number + 1))
        period = Window(_instant(start), _instant(until))
        if end is not None:
            period = Window(period.start, min(period.end, end))
        if period.start >= span.end or period.start >= period.end:
            return
        if period.end > span.start:
            yield period
        number += 1


def committed_nusd(contract: Contract) -> int:
    """Return the amount of a period; 0 where nothing is committed."""
    return parse_usd(contract.commitment_usd) if contract.commitment_usd is not None else 0


def is_priced_by(price_id: str, contract_id: str) -> bool:
    """Whether a call's price is a list price as a contract changes it, in any of its editions."""
    _, star, edition = price_id.rpartition("*")
    return bool(star) and edition.rpartition("@")[0] == contract_id


def mark(calls: pl.DataFrame, drawdowns: Iterable[Drawdown]) -> pl.DataFrame:
    """Add `commitment` (the contract that a call consumed) and `covered_nusd` to calls.

    `covered_nusd` is only said of a call in which a commitment ran out. Needed columns: start_time,
    call_id and price_id.
    """
    drawn: pl.Expr = pl.lit(None, pl.String)
    covered: pl.Expr = pl.lit(None, pl.Int64)
    named = pl.col("price_id").fill_null("").str.extract(r"\*([^*]*)@[^@*]*$", 1)
    for one in drawdowns:
        at = pl.col("start_time")
        inside = (
            (named == one.contract.id).fill_null(value=False)
            & (at >= one.period.start)
            & (at < one.period.end)
        )
        if one.boundary is not None:
            start, call_id = one.boundary.start, one.boundary.call_id
            last = inside & (at == start) & (pl.col("call_id") == call_id)
            covered = pl.when(last).then(pl.lit(one.boundary.covered_nusd)).otherwise(covered)
            inside &= (at < start) | ((at == start) & (pl.col("call_id") <= call_id))
        drawn = pl.when(inside).then(pl.lit(one.contract.id)).otherwise(drawn)
    return calls.with_columns(commitment=drawn, covered_nusd=covered)


def boundary_in(
    calls: Iterable[tuple[datetime, str, int]], *, before_nusd: int, amount_nusd: int
) -> Boundary | None:
    """Find the call that passes the amount; `calls` are (start, id, cost) in order."""
    used = before_nusd
    for start, call_id, cost in calls:
        if used + cost > amount_nusd:
            return Boundary(start, call_id, amount_nusd - used)
        used += cost
    return None


def split_quantity(quantity: int, *, covered_nusd: int, numerator: int, denominator: int) -> int:
    """Return how many whole units a covered amount pays for at a rate; the rest is beyond it."""
    return min(quantity, covered_nusd * denominator // numerator) if numerator > 0 else 0


def _later(day: date, months: int) -> date:
    years, month = divmod(day.month - 1 + months, _YEAR)
    year = day.year + years
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def _instant(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
