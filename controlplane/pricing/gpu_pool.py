"""Node pools and what an hour of one costs: rented, spot, committed, or owned.

A price is exact: nano-USD an hour as a fraction, never rounded before it is multiplied by time.
"""

from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Final

import msgspec

from controlplane.core.errors import InvalidInputError
from controlplane.core.money import NUSD_PER_USD, divide_half_even

HOURS_PER_YEAR: Final = 8_760
MINUTES_PER_HOUR: Final = 60
_MINUTES_PER_DAY: Final = 1_440
_MAX_USD: Final = Decimal(10) ** 9
_EPOCH_ORDINAL: Final = datetime(1970, 1, 1).toordinal()  # noqa: DTZ001 - a date, not an instant


class IdlePolicy(StrEnum):
    """Who bears what nobody used."""

    OWN_LINE = "own_line"
    """Nobody: it is a line of its own."""
    PRO_RATA = "pro_rata"
    """Those who used the pool, as they used it; a line of its own where nobody did."""
    OWNER = "owner"
    """The pool's owner."""
    PLATFORM = "platform"
    """The tenant that runs the platform."""


class PriceKind(StrEnum):
    """How the hardware is paid for."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"
    COMMITTED = "committed"
    ON_PREM = "on_prem"


class NodePrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The price of one node; amounts are USD as decimal texts.

    on_demand, spot: `hourly_usd`. committed: `upfront_usd` over `term_hours`, and `hourly_usd`.
    on_prem: `capex_usd` over `life_years`, `power_kw` at `usd_per_kwh` times `pue`, `hourly_usd`
    for the rest (space, hands).
    """

    kind: PriceKind
    hourly_usd: str = "0"
    upfront_usd: str = "0"
    term_hours: Annotated[int, msgspec.Meta(ge=1)] = HOURS_PER_YEAR
    capex_usd: str = "0"
    life_years: Annotated[int, msgspec.Meta(ge=1, le=50)] = 4
    power_kw: str = "0"
    usd_per_kwh: str = "0"
    pue: str = "1"

    def hourly_nusd(self) -> Fraction:
        """Answer nano-USD an hour, exactly.

        Raises:
            InvalidInputError: an amount is no decimal, or below zero.
        """
        hourly = self._amount("hourly_usd")
        if self.kind is PriceKind.COMMITTED:
            hourly += self._amount("upfront_usd") / self.term_hours
        if self.kind is PriceKind.ON_PREM:
            hourly += self._amount("capex_usd") / (self.life_years * HOURS_PER_YEAR)
            hourly += self._amount("power_kw") * self._amount("usd_per_kwh") * self._amount("pue")
        return hourly * NUSD_PER_USD

    def _amount(self, field: str) -> Fraction:
        text = getattr(self, field)
        try:
            value = Decimal(text)
        except InvalidOperation:
            raise InvalidInputError(f"price.{field}", f"{text!r} is no decimal") from None
        if not (value.is_finite() and 0 <= value <= _MAX_USD):
            raise InvalidInputError(f"price.{field}", f"{text!r} is below zero or beyond reason")
        return Fraction(value)


class DatedPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a pool costs from the first instant of a UTC day, until the next change."""

    effective_from: date
    price: NodePrice
    nodes: Annotated[int, msgspec.Meta(ge=0, le=100_000)] | None = None
    """None: as many as before."""


class Slice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of every node: a MIG profile, or a share of time; `share` is a fraction like 3/7."""

    name: str
    share: str
    models: tuple[str, ...] = ()

    def part(self) -> Fraction:
        """Answer the share.

        Raises:
            InvalidInputError: no fraction between 0 and 1.
        """
        try:
            part = Fraction(self.share)
        except (ValueError, ZeroDivisionError):
            raise InvalidInputError("slices.share", f"{self.share!r} is no fraction") from None
        if not 0 < part <= 1:
            raise InvalidInputError("slices.share", f"{self.share!r} is not between 0 and 1")
        return part


class Weights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Work, in thousandths of one prefilled token.

    Prefill is bound by arithmetic. A decode step is bound by reading the weights once for its whole
    batch; it takes as long as prefilling `decode_step` tokens, whatever the size of the model: that
    is the ratio of a GPU's arithmetic to its memory bandwidth (ADR 017). A cached token is looked up.
    """

    prefill: Annotated[int, msgspec.Meta(ge=0, le=10**6)] = 1_000
    decode_step: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 150_000
    cached: Annotated[int, msgspec.Meta(ge=0, le=10**6)] = 20


class GpuPool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nodes of one price that serve some models."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9._-]{0,62}$")]
    price: NodePrice
    nodes: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 1
    changes: tuple[DatedPrice, ...] = ()
    """Later prices, by their day; `price` and `nodes` hold before the first."""
    models: tuple[str, ...] = ()
    """Served by the whole node; empty without `slices`: every self-hosted model of no other pool."""
    slices: tuple[Slice, ...] = ()
    idle: IdlePolicy = IdlePolicy.OWN_LINE
    owner: str | None = None
    platform: str = "platform"
    weights: Weights = Weights()

    def hourly_nusd(self, at: datetime) -> Fraction:
        """Answer nano-USD an hour of the whole pool at an instant."""
        found = self.price.hourly_nusd() * self.nodes
        for minute, hourly in self.steps():
            if minute <= _minutes(at):
                found = hourly
        return found

    def nodes_at(self, at: datetime) -> int:
        """Answer how many nodes the pool has at an instant."""
        nodes = self.nodes
        for change in self.changes:
            if change.nodes is not None and change.effective_from.toordinal() <= at.toordinal():
                nodes = change.nodes
        return nodes

    def steps(self) -> list[tuple[int, Fraction]]:
        """Answer from which minute (since 1970) each change holds, and the pool's hour then."""
        nodes, made = self.nodes, []
        for change in self.changes:
            nodes = nodes if change.nodes is None else change.nodes
            start = (change.effective_from.toordinal() - _EPOCH_ORDINAL) * _MINUTES_PER_DAY
            made.append((start, change.price.hourly_nusd() * nodes))
        return made

    def parts(self) -> tuple[Slice, ...]:
        """Answer the slices; the whole node where there are none."""
        return self.slices or (Slice(name="", share="1", models=self.models),)


def check_pools(pools: tuple[GpuPool, ...]) -> None:
    """Refuse pools that can not be billed.

    Raises:
        InvalidInputError: names the pool and what is wrong.
    """
    names = [pool.name for pool in pools]
    if len(set(names)) < len(names):
        raise InvalidInputError("name", "two pools have one name", "Rename one")
    models: list[str] = []
    for pool in pools:
        pool.price.hourly_nusd()
        days = [change.effective_from for change in pool.changes]
        if sorted(set(days)) != days:
            raise InvalidInputError("changes", f"those of {pool.name} are not in order of days")
        pool.steps()
        if sum((part.part() for part in pool.parts()), Fraction()) > 1:
            raise InvalidInputError("slices", f"those of {pool.name} are more than a node")
        if pool.idle is IdlePolicy.OWNER and not pool.owner:
            raise InvalidInputError("owner", f"{pool.name} has none to bear its idle time")
        models += [model.lower() for part in pool.parts() for model in part.models]
    if len(set(models)) < len(models):
        raise InvalidInputError("models", "two pools serve one model", "Give each its own name")


def bill_nusd(pool: GpuPool, start: datetime, end: datetime) -> int:
    """Answer what the pool costs from one whole minute to another.

    Cumulative: the bill of an hour is the sum of its minutes', whatever is rounded (I9).
    """
    return _cumulative(pool, _minutes(end)) - _cumulative(pool, _minutes(start))


def _cumulative(pool: GpuPool, minutes: int) -> int:
    """Answer the bill from 1970 on, each minute at the price of its day; rounded once."""
    total, since = Fraction(), 0
    hourly = pool.price.hourly_nusd() * pool.nodes
    for start, later in pool.steps():
        until = min(max(start, 0), minutes)
        total += hourly * (until - since)
        hourly, since = later, until
    total = (total + hourly * (minutes - since)) / MINUTES_PER_HOUR
    return divide_half_even(total.numerator, total.denominator)


def _minutes(at: datetime) -> int:
    days = at.toordinal() - _EPOCH_ORDINAL
    return (days * 24 + at.hour) * MINUTES_PER_HOUR + at.minute
