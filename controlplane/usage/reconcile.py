"""A provider's bill against our ledger: what of the difference is explained, and by what.

Classes of a residual (billed minus ours), each a sum of money with a sign:

    uncaptured       usage that the provider billed and we never saw
    overcounted      usage that we have and the provider did not bill
    cache_semantics  the same input, counted differently as fresh, cache read or cache write
    time_boundary    the same usage on another day, or within minutes of the bill's ends
    price            the same usage at another price, steadily; or at one that we do not know
    rounding         no more than the bill's own decimals and ours can make
    tax_fees         lines of the bill that are taxes, fees or credits
    booked_later     what corrections of these days came to, which a later period was charged with
    unexplained      the rest; nothing is ever put into a class to make this one small

A bill is compared with our calls as they are known now, corrections included; the ledger of the days
is as they were closed, and `booked_later` is what lies between.

With quantities in the bill, usage is compared first, meter by meter, valued at our own price of that
day; only what the same usage costs differently is a matter of price. Without quantities only money
can be compared: a steady ratio is a price, a model that we never saw is uncaptured, and what is left
stays unexplained. Everything is exact; a cell's classes sum to its difference to the nano-dollar.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from statistics import median
from typing import Final

import msgspec

from controlplane.core.money import NUSD_PER_USD
from controlplane.signals.billing import BillKind, BillLine
from controlplane.usage.reconcile_usage import (
    ONE_DAY,
    Edge,
    LedgerLine,
    Meter,
    RateOf,
    UsageComparison,
)

CLASSES: Final = (
    "uncaptured", "overcounted", "cache_semantics", "time_boundary", "price", "rounding",
    "tax_fees", "booked_later", "unexplained",
)  # fmt: skip
STEADY: Final = Fraction(1, 200)
"""A ratio within half a percent of the median is the same ratio."""
MIN_STEADY_DAYS: Final = 3
"""Without quantities a ratio must hold on so many days to be a price."""
_ZERO: Final = Fraction(0)
_HALF: Final = Fraction(1, 2)

CellKey = tuple[date, str | None, str | None, str | None]
"""Day, model, key and meter; None where the bill does not say."""


class Tolerance(msgspec.Struct, frozen=True):
    """What may stay unexplained: the larger of a share of the bill and an amount."""

    ratio: Fraction = Fraction(1, 200)
    nusd: int = NUSD_PER_USD

    def allows(self, unexplained_nusd: int, billed_nusd: int) -> bool:
        """Whether this much may stay unexplained."""
        allowed = max(Fraction(self.nusd), abs(billed_nusd) * self.ratio)
        return abs(unexplained_nusd) <= allowed


class ReconciledCell(msgspec.Struct, frozen=True, kw_only=True):
    """One day, model, key and meter at the bill's own grain; `classes` sum to billed minus ours."""

    day: date
    model: str | None
    key: str | None
    meter: str | None
    billed_nusd: int
    ledger_nusd: int
    billed_quantity: int | None
    ledger_quantity: int | None
    classes: Mapping[str, int]


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """The whole comparison."""

    billed_nusd: int
    ledger_nusd: int
    classes: Mapping[str, int]
    cells: tuple[ReconciledCell, ...]
    has_quantities: bool
    has_costs: bool

    @property
    def difference_nusd(self) -> int:
        """Return billed minus ours."""
        return self.billed_nusd - self.ledger_nusd


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared; `rate_of` prices usage that we never saw."""

    bill: Sequence[BillLine]
    ledger: Sequence[LedgerLine]
    edges: Sequence[Edge] = ()
    rate_of: RateOf | None = None


class _Grain(msgspec.Struct, frozen=True):
    """Which dimensions the bill's costs can be told by."""

    model: bool
    key: bool
    meter: bool

    def of(self, day: date, meter: Meter) -> CellKey:
        model, key, name = meter
        return (
            day,
            model if self.model else None,
            key if self.key else None,
            name if self.meter else None,
        )


class _Cell(msgspec.Struct):
    """A cell under construction; amounts in exact nano-USD."""

    billed: Fraction = _ZERO
    ledger: int = 0
    lines: int = 0
    slack: Fraction = _ZERO
    """How much rounding alone can make."""
    expected: Fraction = _ZERO
    """The billed usage at our prices."""
    unpriced: int = 0
    """Our usage whose cost we do not know: what it is billed at is a price that we lack."""
    billed_quantity: int | None = None
    ledger_quantity: int | None = None
    classes: dict[str, Fraction] = {}

    @property
    def is_seen(self) -> bool:
        """Whether we have any of it, in time or late."""
        return bool(self.ledger or self.unpriced or self.classes.get("booked_later"))

    def put(self, name: str, amount: Fraction) -> None:
        if amount:
            self.classes[name] = self.classes.get(name, _ZERO) + amount


def reconcile(compared: Compared) -> Reconciliation:
    """Explain the difference between a bill and our ledger over the bill's days."""
    usage = [line for line in compared.bill if line.kind is BillKind.USAGE]
    reported = [line for line in usage if line.quantity is not None and line.cost_usd is None]
    priced = [line for line in usage if line.cost_usd is not None]
    # A usage report beside a cost report: quantities of the second would count everything twice.
    counted = [line for line in reported or usage if line.quantity is not None and line.meter]
    grain = _grain_of(priced or counted)
    cells: dict[CellKey, _Cell] = {}
    _add_ledger(cells, compared.ledger, grain)
    if counted:
        _put_usage(cells, counted, compared, grain=grain)
    _add_bill(cells, priced, grain)
    for cell in cells.values():
        if not priced:  # a usage report alone: what it would cost at our prices is the bill
            cell.billed = cell.expected
    if priced:
        _compare_money(cells, with_quantities=bool(counted))
    for line in compared.bill:
        if line.kind is not BillKind.USAGE and line.cost_usd is not None:
            cell = cells.setdefault((line.day, None, None, line.kind.value), _Cell())
            cell.billed += nusd_of(line.cost_usd)
            cell.put("tax_fees", nusd_of(line.cost_usd))
    done = tuple(_finish(key, cells[key]) for key in sorted(cells, key=_order))
    return Reconciliation(
        billed_nusd=sum(cell.billed_nusd for cell in done),
        ledger_nusd=sum(cell.ledger_nusd for cell in done),
        classes={name: sum(cell.classes.get(name, 0) for cell in done) for name in CLASSES},
        cells=done,
        has_quantities=bool(counted),
        has_costs=bool(priced),
    )


def nusd_of(usd: Decimal) -> Fraction:
    """Return an amount in exact nano-USD; bills may have more than nine decimals."""
    return Fraction(usd) * NUSD_PER_USD


def _order(key: CellKey) -> tuple[str, ...]:
    return tuple("" if part is None else f"/{part}" for part in key)


def _grain_of(lines: Sequence[BillLine]) -> _Grain:
    """A dimension counts where every line has it."""
    return _Grain(
        model=all(line.model for line in lines),
        key=all(line.key for line in lines),
        meter=all(line.meter for line in lines),
    )


def _add_ledger(cells: dict[CellKey, _Cell], ledger: Iterable[LedgerLine], grain: _Grain) -> None:
    for line in ledger:
        cell = cells.setdefault(grain.of(line.day, (line.model, line.key, line.meter)), _Cell())
        if line.is_later and line.cost_nusd is not None:
            cell.put("booked_later", Fraction(line.cost_nusd))
            cell.slack += line.calls * _HALF
            cell.expected += line.cost_nusd
            continue
        if grain.meter and not line.is_later:
            cell.ledger_quantity = (cell.ledger_quantity or 0) + line.quantity
        if line.cost_nusd is None:
            cell.unpriced += line.quantity
            continue
        cell.ledger += line.cost_nusd
        cell.slack += line.calls * _HALF
        cell.expected += line.cost_nusd


def _add_bill(cells: dict[CellKey, _Cell], priced: Iterable[BillLine], grain: _Grain) -> None:
    for line in priced:
        if line.cost_usd is None:
            continue
        cell = cells.setdefault(grain.of(line.day, (line.model, line.key, line.meter)), _Cell())
        cell.billed += nusd_of(line.cost_usd)
        cell.lines += 1
        unit = Fraction(line.usd_per_unit) / 10 ** (line.decimals or 0)
        cell.slack += _HALF * NUSD_PER_USD * unit


def _put_usage(
    cells: dict[CellKey, _Cell], counted: Sequence[BillLine], compared: Compared, *, grain: _Grain
) -> None:
    """Class every difference of quantity, valued at our price of the day."""
    keyed = all(line.key for line in counted) and grain.key
    usage = UsageComparison(counted, compared.ledger, compared.rate_of, keyed=keyed)
    for (day, meter), quantity in usage.billed.items():
        cell = cells.setdefault(grain.of(day, meter), _Cell())
        if grain.meter:
            cell.billed_quantity = (cell.billed_quantity or 0) + quantity
    for residual in usage.residuals(compared.edges):
        amount = residual.quantity * usage.price(residual.day, residual.meter)
        cell = cells.setdefault(grain.of(residual.day, residual.meter), _Cell())
        cell.put(residual.name, amount)
        cell.expected += amount


def _compare_money(cells: Mapping[CellKey, _Cell], *, with_quantities: bool) -> None:
    """Class what the billed usage costs more or less than at our prices."""
    series: dict[tuple[str | None, ...], dict[date, _Cell]] = {}
    for (day, *rest), cell in cells.items():
        series.setdefault(tuple(rest), {})[day] = cell
    for by_day in series.values():
        fewest = 1 if with_quantities else MIN_STEADY_DAYS
        ratio = _steady_ratio(list(by_day.values()), fewest=fewest)
        is_seen = any(cell.is_seen for cell in by_day.values())
        is_billed = any(cell.billed for cell in by_day.values())
        left: dict[date, Fraction] = {}
        for day, cell in by_day.items():
            if not is_seen and cell.billed:
                # Never seen by us: whatever it costs beyond our own valuation is uncaptured too.
                cell.put("uncaptured", cell.billed - cell.expected)
                continue
            if not is_billed and not with_quantities:
                cell.put("overcounted", -cell.expected)
                continue
            steady = cell.expected * (ratio - 1)
            cell.put("price", steady)
            left[day] = cell.billed - cell.expected - steady
        _class_rest(by_day, left, with_quantities=with_quantities)


def _class_rest(
    by_day: Mapping[date, _Cell], left: dict[date, Fraction], *, with_quantities: bool
) -> None:
    days = sorted(left)
    if not with_quantities:
        for day in days:
            following = day + ONE_DAY
            over = left.get(following, _ZERO)
            if left[day] * over >= 0 or min(abs(left[day]), abs(over)) <= by_day[day].slack:
                continue
            size = min(abs(left[day]), abs(over)) * (1 if left[day] > 0 else -1)
            for at, signed in ((day, size), (following, -size)):
                by_day[at].put("time_boundary", signed)
                left[at] -= signed
    for day in days:
        cell = by_day[day]
        if abs(left[day]) <= cell.slack:
            cell.put("rounding", left[day])
        elif cell.unpriced and left[day] > 0:
            cell.put("price", left[day])
        else:
            cell.put("unexplained", left[day])


def _steady_ratio(cells: Sequence[_Cell], *, fewest: int) -> Fraction:
    """Return billed over expected where it is the same on most days, else 1."""
    ratios = [cell.billed / cell.expected for cell in cells if cell.expected > 0 and cell.billed]
    if len(ratios) < fewest:
        return Fraction(1)
    middle = median(ratios)
    steady = sum(abs(ratio - middle) <= STEADY * middle for ratio in ratios)
    slack = sum((cell.slack for cell in cells), _ZERO)
    expected = sum((cell.expected for cell in cells if cell.billed), _ZERO)
    is_rounding = abs(middle - 1) * expected <= slack
    return middle if 2 * steady > len(ratios) and not is_rounding else Fraction(1)


def _finish(key: CellKey, cell: _Cell) -> ReconciledCell:
    """Round to nano-dollars; what that makes is rounding, so the classes still sum exactly."""
    billed = round(cell.billed)
    classes = {name: round(amount) for name, amount in cell.classes.items()}
    rest = billed - cell.ledger - sum(classes.values())
    if rest:
        name = "rounding" if abs(rest) <= len(classes) + 1 else "unexplained"
        classes[name] = classes.get(name, 0) + rest
    day, model, owner, meter = key
    return ReconciledCell(
        day=day,
        model=model,
        key=owner,
        meter=meter,
        billed_nusd=billed,
        ledger_nusd=cell.ledger,
        billed_quantity=cell.billed_quantity,
        ledger_quantity=cell.ledger_quantity,
        classes={name: amount for name, amount in classes.items() if amount},
    )
