"""Budgets, their standings and their ledger as the API shows them."""

from datetime import datetime
from typing import Any, Final

import msgspec

from controlplane.api.budget_bodies import IncreaseIn
from controlplane.budgets.budget import Budget, Stale, Unattributed, Unpriced
from controlplane.budgets.ledger import Entry
from controlplane.budgets.windows import WindowKind
from controlplane.core.calendar import Period
from controlplane.core.money import divide_half_even, format_usd
from controlplane.policy.document import Mode
from controlplane.policy.units import BudgetUnit, say_amount, write_amount
from controlplane.policy.wire import Standing

RATIO_DIGITS: Final = 10_000
PARTS: Final = (
    "limit",
    "debt",
    "settled_enforced",
    "settled_unproven",
    "observed_unenforced",
    "restated",
    "leased",
    "free",
)


class StandingView(msgspec.Struct, frozen=True, kw_only=True):
    """Where the limit of the current window is.

    limit + debt = settled_enforced + settled_unproven + observed_unenforced + restated + leased +
    free, exactly. The bare names are in the budget's unit: a decimal of USD, or a whole number.
    `*_usd` and `*_nusd` (strings of integers) are null for a budget in another unit.
    """

    window_start: datetime
    window_end: datetime
    unit: BudgetUnit
    limit: str
    debt: str
    settled_enforced: str
    settled_unproven: str
    observed_unenforced: str
    restated: str
    """What re-rates and invoices moved after the fact; below zero where they lowered it."""
    leased: str
    free: str
    limit_usd: str | None
    debt_usd: str | None
    settled_enforced_usd: str | None
    settled_unproven_usd: str | None
    observed_unenforced_usd: str | None
    restated_usd: str | None
    leased_usd: str | None
    free_usd: str | None
    limit_nusd: str | None
    debt_nusd: str | None
    settled_enforced_nusd: str | None
    settled_unproven_nusd: str | None
    observed_unenforced_nusd: str | None
    restated_nusd: str | None
    leased_nusd: str | None
    free_nusd: str | None
    used_ratio: float | None
    """Settled, observed and restated over the limit, to four decimals; null for a limit of zero."""
    enforced_ratio: float | None
    """Of what was spent, the part that was held before; null while nothing was spent."""


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """A budget and its standing now."""

    id: str
    name: str
    owner: str
    tenant: str
    match: dict[str, tuple[str, ...]]
    unit: BudgetUnit
    limit: str
    """In the unit: a decimal of USD, or a whole number."""
    limit_usd: str | None
    limit_nusd: str | None
    window: WindowKind
    period: Period | None
    every: str | None
    anchor: datetime | None
    zone: str
    mode: Mode
    unpriced: Unpriced
    unattributed: Unattributed
    stale: Stale
    escrow: str
    """In the unit; leased to each agent for times when it can not reach the server."""
    escrow_usd: str | None
    parent: str | None
    increases: tuple[IncreaseIn, ...]
    thresholds: tuple[int, ...]
    forecast_thresholds: tuple[int, ...]
    counts_from: datetime
    standing: StandingView
    price_book_version: str
    bound: str
    """What is promised, and what is not: a sentence."""


class BudgetMeta(msgspec.Struct, frozen=True):
    """About the whole list."""

    tenants: tuple[str, ...]
    as_of: datetime
    currency: str = "USD"
    recovering_until: datetime | None = None
    """The ledger was put back: hard budgets grant nothing until then; null: it is in order."""


class BudgetList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/budgets`."""

    rows: tuple[BudgetView, ...]
    meta: BudgetMeta


class EntryView(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable movement; amounts are changes in the unit, `*_usd` null where that is not USD."""

    key: str
    kind: str
    at: datetime
    settled_enforced: str
    settled_unproven: str
    observed_unenforced: str
    restated: str
    leased: str
    settled_enforced_usd: str | None
    settled_unproven_usd: str | None
    observed_unenforced_usd: str | None
    restated_usd: str | None
    leased_usd: str | None


class EntryList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/budgets/{id}/ledger`."""

    rows: tuple[EntryView, ...]
    window_start: datetime
    window_end: datetime


def bound_of(budget: Budget, now: Standing, price_book_version: str) -> str:
    """Say what the budget promises, in the words of algorithms L5."""
    spent, unit = _spent(now) - now.restated_nusd, budget.unit
    bypassed = say_amount(unit, now.observed_unenforced_nusd)
    if spent:
        bypassed += f" ({100 * now.observed_unenforced_nusd / spent:.1f} %)"
    if budget.mode is not Mode.HARD:
        return f"{budget.mode.value}: nothing is refused; {say_amount(unit, spent)} was spent."
    prices = (
        f" at prices known when admitted (price book {price_book_version})"
        if unit is BudgetUnit.USD
        else ""
    )
    restated = (
        f" Re-rates moved {say_amount(unit, now.restated_nusd)} after the fact, outside this bound."
        if now.restated_nusd
        else ""
    )
    length = f" in any {budget.every}" if budget.is_rolling else ""
    isolated = (
        f" Of it, {say_amount(unit, budget.escrow_nusd)} may be leased to each agent ahead, to be "
        "spent only while it can not reach the hub."
        if budget.escrow_nusd
        else ""
    )
    return (
        f"Calls admitted through enforcement can not exceed {say_amount(unit, now.limit_nusd)}"
        f"{length}{prices}. {bypassed} bypassed enforcement and is subtracted as soon as it is "
        f"seen.{restated}{isolated}"
    )


def _spent(now: Standing) -> int:
    return (
        now.settled_enforced_nusd
        + now.settled_unproven_nusd
        + now.observed_unenforced_nusd
        + now.restated_nusd
    )


def to_wire(budget: Budget, now: Standing, price_book_version: str) -> BudgetView:
    """Cross to the wire."""
    return BudgetView(
        id=budget.id,
        name=budget.name,
        owner=budget.owner,
        tenant=budget.tenant,
        match=budget.match,
        unit=budget.unit,
        limit=write_amount(budget.unit, budget.limit_nusd),
        limit_usd=_usd(budget.unit, budget.limit_nusd),
        limit_nusd=str(budget.limit_nusd) if budget.unit is BudgetUnit.USD else None,
        window=budget.window_kind,
        period=budget.period,
        every=budget.every,
        anchor=budget.anchor,
        zone=budget.zone,
        mode=budget.mode,
        unpriced=budget.unpriced,
        unattributed=budget.unattributed,
        stale=budget.stale,
        escrow=write_amount(budget.unit, budget.escrow_nusd),
        escrow_usd=_usd(budget.unit, budget.escrow_nusd),
        parent=budget.parent,
        increases=tuple(
            IncreaseIn(
                amount_usd=_usd(budget.unit, one.amount_nusd),
                amount=None if budget.unit is BudgetUnit.USD else one.amount_nusd,
                until=one.until,
                reason=one.reason,
            )
            for one in budget.increases
        ),
        thresholds=budget.thresholds,
        forecast_thresholds=budget.forecast_thresholds,
        counts_from=budget.counts_from,
        standing=_standing(now),
        price_book_version=price_book_version,
        bound=bound_of(budget, now, price_book_version),
    )


def _standing(now: Standing) -> StandingView:
    amounts: dict[str, int] = {part: getattr(now, f"{part}_nusd") for part in PARTS}
    used, limit = _spent(now), amounts["limit"]
    held = now.settled_enforced_nusd + now.settled_unproven_nusd
    seen = held + now.observed_unenforced_nusd
    is_money = now.unit is BudgetUnit.USD
    told: dict[str, Any] = {
        **{part: write_amount(now.unit, amount) for part, amount in amounts.items()},
        **{f"{part}_usd": _usd(now.unit, amount) for part, amount in amounts.items()},
        **{f"{part}_nusd": str(nusd) if is_money else None for part, nusd in amounts.items()},
    }
    return StandingView(
        window_start=now.window_start,
        window_end=now.window_end,
        unit=now.unit,
        used_ratio=divide_half_even(used * RATIO_DIGITS, limit) / RATIO_DIGITS if limit else None,
        enforced_ratio=divide_half_even(held * RATIO_DIGITS, seen) / RATIO_DIGITS if seen else None,
        **told,
    )


def _usd(unit: BudgetUnit, amount: int) -> str | None:
    return format_usd(amount) if unit is BudgetUnit.USD else None


def entry_to_wire(entry: Entry, unit: BudgetUnit) -> EntryView:
    """Cross to the wire."""
    change = {
        "settled_enforced": entry.change.enforced_nusd,
        "settled_unproven": entry.change.unproven_nusd,
        "observed_unenforced": entry.change.unenforced_nusd,
        "restated": entry.change.restated_nusd,
        "leased": entry.change.leased_nusd,
    }
    told: dict[str, Any] = {
        **{part: write_amount(unit, amount) for part, amount in change.items()},
        **{f"{part}_usd": _usd(unit, amount) for part, amount in change.items()},
    }
    return EntryView(
        key=entry.key,
        kind=entry.kind.value,
        at=entry.at,
        **told,
    )
