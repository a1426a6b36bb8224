"""Budgets as the API takes them."""

from datetime import datetime
from typing import Final

import msgspec

from controlplane.budgets.budget import Budget, Increase, Stale, Unattributed, Unpriced
from controlplane.budgets.windows import WindowKind
from controlplane.core.calendar import Period
from controlplane.core.errors import InvalidInputError
from controlplane.core.fiscal import FiscalCalendar
from controlplane.core.money import parse_usd
from controlplane.policy.document import Mode
from controlplane.policy.units import BudgetUnit

FORECAST_PERCENT: Final = (100,)
_ONE_LIMIT: Final = "Give one of limit_usd, limit_tokens and limit_requests"


class Defaults(msgspec.Struct, frozen=True):
    """The organisation's own, for a budget that does not say."""

    zone: str
    calendar: FiscalCalendar


class IncreaseIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """More until a moment: `amount_usd` of a budget in USD, else `amount` in its unit."""

    amount_usd: str | None = None
    amount: int | None = None
    until: datetime
    reason: str = ""


class BudgetIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new budget; one of the limits says its unit: a decimal string of USD, or whole numbers."""

    name: str
    owner: str
    tenant: str
    limit_usd: str | None = None
    limit_tokens: int | None = None
    """Input and output together."""
    limit_requests: int | None = None
    window: WindowKind = WindowKind.CALENDAR
    period: Period | None = None
    """Of a calendar window."""
    every: str | None = None
    """Length of a fixed or rolling window: hours or days, `6h`, `30d`."""
    anchor: datetime | None = None
    """Where the fixed windows start; default `counts_from`."""
    zone: str | None = None
    match: dict[str, tuple[str, ...]] = {}
    mode: Mode = Mode.HARD
    unpriced: Unpriced = Unpriced.BLOCK
    unattributed: Unattributed = Unattributed.ALLOW
    stale: Stale = Stale.POLICY
    escrow_usd: str | None = None
    escrow: int | None = None
    """What each agent holds beside, to spend while it can not reach the server; in the unit."""
    parent: str | None = None
    """Id of the budget above it."""
    increases: tuple[IncreaseIn, ...] = ()
    thresholds: tuple[int, ...] = (50, 80, 100)
    forecast_thresholds: tuple[int, ...] | None = None
    """Default 100; a rolling budget has none."""
    counts_from: datetime | None = None
    """First instant whose calls count; default now."""


class BudgetChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change of a budget; what it counts may not, and what is left out stays."""

    name: str | None = None
    owner: str | None = None
    limit_usd: str | None = None
    limit_tokens: int | None = None
    limit_requests: int | None = None
    """The limit of the budget's own unit."""
    mode: Mode | None = None
    unpriced: Unpriced | None = None
    unattributed: Unattributed | None = None
    stale: Stale | None = None
    escrow_usd: str | None = None
    escrow: int | None = None
    increases: tuple[IncreaseIn, ...] | None = None
    thresholds: tuple[int, ...] | None = None
    forecast_thresholds: tuple[int, ...] | None = None
    accept_promised: bool = False
    """Go on although more than the new limit is spent or promised already."""


def budget_of(said: BudgetIn, *, budget_id: str, now: datetime, defaults: Defaults) -> Budget:
    """Read a budget as it was sent.

    Raises:
        InvalidInputError: no limit, several, or an amount that is none.
    """
    if said.counts_from is not None and said.counts_from.tzinfo is None:
        raise InvalidInputError("counts_from", "has no offset", "Write RFC 3339 with one")
    found = limit_of(said)
    if found is None:
        raise InvalidInputError("limit_usd", "and every other limit is missing", _ONE_LIMIT)
    unit, limit = found
    return Budget(
        id=budget_id,
        name=said.name,
        owner=said.owner,
        tenant=said.tenant,
        unit=unit,
        limit_nusd=limit,
        window_kind=said.window,
        period=said.period,
        every=said.every,
        anchor=said.anchor,
        counts_from=said.counts_from or now,
        zone=said.zone or defaults.zone,
        calendar=defaults.calendar,
        match=said.match,
        mode=said.mode,
        unpriced=said.unpriced,
        unattributed=said.unattributed,
        stale=said.stale,
        escrow_nusd=escrow_of(said, unit) or 0,
        parent=said.parent,
        increases=increases_of(said.increases, unit),
        thresholds=said.thresholds,
        forecast_thresholds=_forecast_of(said),
    )


def _forecast_of(said: BudgetIn) -> tuple[int, ...]:
    if said.forecast_thresholds is not None:
        return said.forecast_thresholds
    return () if said.window is WindowKind.ROLLING else FORECAST_PERCENT


def limit_of(said: BudgetIn | BudgetChange) -> tuple[BudgetUnit, int] | None:
    """Return the unit and the limit that were sent; None: no limit was.

    Raises:
        InvalidInputError: several, or an amount that is none.
    """
    given = [
        (unit, value)
        for unit in BudgetUnit
        if (value := getattr(said, f"limit_{unit.value}")) is not None
    ]
    if not given:
        return None
    if len(given) > 1:
        raise InvalidInputError("limit_usd", "is not the only limit", _ONE_LIMIT)
    unit, value = given[0]
    return unit, parse_usd(value, field="limit_usd") if unit is BudgetUnit.USD else value


def increases_of(said: tuple[IncreaseIn, ...], unit: BudgetUnit) -> tuple[Increase, ...]:
    """Read increases as they were sent.

    Raises:
        InvalidInputError: an amount that is none, or of another unit.
    """
    return tuple(
        Increase(amount_nusd=_increase(one, unit), until=one.until, reason=one.reason)
        for one in said
    )


def escrow_of(said: BudgetIn | BudgetChange, unit: BudgetUnit) -> int | None:
    """Return the escrow that was sent; None: none was.

    Raises:
        InvalidInputError: an amount that is none, or of another unit.
    """
    if said.escrow_usd is None and said.escrow is None:
        return None
    return _amount_in(unit, said.escrow_usd, said.escrow, field="escrow")


def _increase(said: IncreaseIn, unit: BudgetUnit) -> int:
    return _amount_in(unit, said.amount_usd, said.amount, field="increases.amount")


def _amount_in(unit: BudgetUnit, usd: str | None, amount: int | None, *, field: str) -> int:
    if unit is BudgetUnit.USD and usd is not None and amount is None:
        return parse_usd(usd, field=f"{field}_usd")
    if unit is not BudgetUnit.USD and amount is not None and usd is None:
        return amount
    raise InvalidInputError(
        field.partition(".")[0],
        f"one is not in {unit.value}",
        f"Give {field}_usd for a budget in USD, else {field}",
    )
