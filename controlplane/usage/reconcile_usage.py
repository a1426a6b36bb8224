"""A bill's usage against ours: quantities of the same meter, moved, swapped, missing or too many."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from fractions import Fraction
from functools import partial
from typing import Final, TypeVar

import msgspec

from controlplane.core.tokens import INPUT_BUCKETS
from controlplane.signals.billing import BillLine

EDGE_MINUTES: Final = 15
"""Usage this close to either end of the bill may have been billed on the other side of it."""
ONE_DAY: Final = timedelta(days=1)
_ZERO: Final = Fraction(0)

_Key = TypeVar("_Key")
Meter = tuple[str | None, str | None, str | None]
"""Model, key and meter."""
RateOf = Callable[[str | None, str | None, date], Fraction | None]
"""What a unit of a meter costs, in nano-USD, from the price book; for usage that we never saw."""


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True):
    """Our own usage and cost of one day; `key` in the dimension that the bill's keys are of.

    A cost that is not known is None: its usage was seen, at a price that was not.
    """

    day: date
    model: str | None
    meter: str
    key: str | None
    quantity: int
    cost_nusd: int | None
    calls: int
    is_later: bool = False
    """A correction of a closed period: usage and cost more, or less, booked in a later one."""


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """Our usage within minutes of an end of the bill: inside it, or just outside."""

    model: str | None
    meter: str
    key: str | None
    is_start: bool
    is_inside: bool
    quantity: int


class Residual(msgspec.Struct, frozen=True):
    """A part of a difference of quantity (billed minus ours) and its class."""

    name: str
    day: date
    meter: Meter
    quantity: Fraction


class UsageComparison:
    """The quantities of both sides by day and meter, and what a unit of ours costs.

    Only meters that the bill speaks of are compared; where it speaks of any input, all of input is,
    because the same input may be called by another name.
    """

    def __init__(
        self,
        counted: Iterable[BillLine],
        ledger: Iterable[LedgerLine],
        rate_of: RateOf | None,
        *,
        keyed: bool,
    ) -> None:
        self._keyed = keyed
        self._rate_of = rate_of
        self.billed: dict[tuple[date, Meter], int] = {}
        for line in counted:
            at = (line.day, (line.model, line.key if keyed else None, line.meter))
            self.billed[at] = self.billed.get(at, 0) + (line.quantity or 0)
        named = {meter[2] for _, meter in self.billed}
        compared = named | (set(INPUT_BUCKETS) if named & set(INPUT_BUCKETS) else set())
        self._ours: dict[tuple[date, Meter], int] = {}
        self._priced: dict[tuple[date, Meter], tuple[int, int]] = {}
        self._whole: dict[tuple[str | None, str | None], tuple[int, int]] = {}
        for ours in ledger:
            if ours.meter not in compared:
                continue
            where = (ours.day, (ours.model, ours.key if keyed else None, ours.meter))
            self._ours[where] = self._ours.get(where, 0) + ours.quantity
            if ours.cost_nusd is not None:
                _add(self._priced, where, (ours.quantity, ours.cost_nusd))
                _add(self._whole, (ours.model, ours.meter), (ours.quantity, ours.cost_nusd))
        self._days = sorted({day for day, _ in (*self.billed, *self._ours)})

    def price(self, day: date, meter: Meter) -> Fraction:
        """Return nano-USD a unit: of that day, else of all days, else the price book's, else 0."""
        model, _, name = meter
        for quantity, cost in (
            self._priced.get((day, meter), (0, 0)),
            self._whole.get((model, name), (0, 0)),
        ):
            if quantity:
                return Fraction(cost, quantity)
        return (self._rate_of(model, name, day) if self._rate_of else None) or _ZERO

    def residuals(self, edges: Sequence[Edge]) -> Iterator[Residual]:
        """Yield every difference in parts.

        What moved between days, over an end of the bill and between meters of input; then the rest.
        """
        gaps = self._gaps()
        for meter, by_day in gaps.items():
            for move in (_between_days, partial(self._over_edges, meter=meter, edges=edges)):
                for day, quantity in move(by_day).items():
                    by_day[day] -= quantity
                    yield Residual("time_boundary", day, meter, Fraction(quantity))
        for day in self._days:
            swapped = _swapped(gaps, day)
            for meter, by_day in gaps.items():
                yield Residual("cache_semantics", day, meter, swapped.get(meter, _ZERO))
                left = by_day[day] - swapped.get(meter, _ZERO)
                yield Residual("uncaptured" if left > 0 else "overcounted", day, meter, left)

    def _gaps(self) -> dict[Meter, dict[date, int]]:
        meters = {meter for _, meter in (*self.billed, *self._ours)}
        return {
            meter: {
                day: self.billed.get((day, meter), 0) - self._ours.get((day, meter), 0)
                for day in self._days
            }
            for meter in meters
        }

    def _over_edges(
        self, by_day: Mapping[date, int], *, meter: Meter, edges: Iterable[Edge]
    ) -> dict[date, int]:
        """Return what may have been billed on the other side of the bill's first or last instant."""
        moved: dict[date, int] = {}
        for is_start, day in ((True, self._days[0]), (False, self._days[-1])):
            left = by_day[day]
            near = sum(
                edge.quantity
                for edge in edges
                if (edge.model, edge.key if self._keyed else None, edge.meter) == meter
                and (edge.is_start, edge.is_inside) == (is_start, left < 0)
            )
            size = min(abs(left), near)
            if size:
                moved[day] = moved.get(day, 0) + (size if left > 0 else -size)
        return moved


def _add(sums: dict[_Key, tuple[int, int]], key: _Key, more: tuple[int, int]) -> None:
    quantity, cost = sums.get(key, (0, 0))
    sums[key] = (quantity + more[0], cost + more[1])


def _between_days(by_day: Mapping[date, int]) -> dict[date, int]:
    """Return what is one day's too much and the next day's too little, or the other way round."""
    rest, moved = dict(by_day), dict.fromkeys(by_day, 0)
    for day in by_day:
        following = day + ONE_DAY
        if following not in rest or rest[day] * rest[following] >= 0:
            continue
        size = min(abs(rest[day]), abs(rest[following]))
        sign = 1 if rest[day] > 0 else -1
        for at, signed in ((day, sign * size), (following, -sign * size)):
            rest[at] -= signed
            moved[at] += signed
    return {day: quantity for day, quantity in moved.items() if quantity}


def _swapped(differences: Mapping[Meter, Mapping[date, int]], day: date) -> dict[Meter, Fraction]:
    """Return, per input meter, what other input meters of the same model have instead.

    The swapped quantities of a model sum to 0; what is left over all of its input is in proportion
    to the differences of that sign.
    """
    models: dict[tuple[str | None, str | None], list[Meter]] = {}
    for meter in differences:
        if meter[2] in INPUT_BUCKETS:
            models.setdefault((meter[0], meter[1]), []).append(meter)
    swapped: dict[Meter, Fraction] = {}
    for meters in models.values():
        gaps = {meter: differences[meter][day] for meter in meters}
        over = sum(gap for gap in gaps.values() if gap > 0)
        under = -sum(gap for gap in gaps.values() if gap < 0)
        kept = min(over, under)
        for meter, gap in gaps.items():
            side = over if gap > 0 else under
            swapped[meter] = Fraction(gap * kept, side) if side else _ZERO
    return swapped
