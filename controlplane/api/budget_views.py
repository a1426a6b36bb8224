"""Budgets, their standings and their ledger as the API takes and shows them."""

from datetime import datetime
from typing import Final

import msgspec

from controlplane.budgets.budget import Budget, Increase, Stale, Unattributed, Unpriced
from controlplane.budgets.ledger import Entry
from controlplane.core.calendar import Period
from controlplane.core.money import divide_half_even, format_usd, parse_usd
from controlplane.policy.document import Mode
from controlplane.policy.wire import Standing

RATIO_DIGITS: Final = 10_000
PARTS: Final = (
    "limit",
    "debt",
    "settled_enforced",
    "settled_unproven",
    "observed_unenforced",
    "leased",
    "free",
)


class IncreaseIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """More money until a moment."""

    amount_usd: str
    until: datetime
    reason: str = ""


class BudgetIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new budget; the limit is a decimal string of USD."""

    name: str
    owner: str
    tenant: str
    limit_usd: str
    period: Period
    zone: str | None = None
    match: dict[str, tuple[str, ...]] = {}
    mode: Mode = Mode.HARD
    unpriced: Unpriced = Unpriced.BLOCK
    unattributed: Unattributed = Unattributed.ALLOW
    stale: Stale = Stale.POLICY
    parent: str | None = None
    """Id of the budget above it."""
    increases: tuple[IncreaseIn, ...] = ()
    thresholds: tuple[int, ...] = (50, 80, 100)
    forecast_thresholds: tuple[int, ...] = (100,)
    counts_from: datetime | None = None
    """First instant whose calls count; default now."""


class BudgetChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change of a budget; what it counts may not, and what is left out stays."""

    name: str | None = None
    owner: str | None = None
    limit_usd: str | None = None
    mode: Mode | None = None
    unpriced: Unpriced | None = None
    unattributed: Unattributed | None = None
    stale: Stale | None = None
    increases: tuple[IncreaseIn, ...] | None = None
    thresholds: tuple[int, ...] | None = None
    forecast_thresholds: tuple[int, ...] | None = None
    accept_promised: bool = False
    """Go on although more than the new limit is spent or promised already."""


class StandingView(msgspec.Struct, frozen=True, kw_only=True):
    """Where the money of the current window is.

    limit + debt = settled_enforced + settled_unproven + observed_unenforced + leased + free, to
    the nano-dollar; `*_nusd` are strings of integers.
    """

    window_start: datetime
    window_end: datetime
    limit_usd: str
    debt_usd: str
    settled_enforced_usd: str
    settled_unproven_usd: str
    observed_unenforced_usd: str
    leased_usd: str
    free_usd: str
    limit_nusd: str
    debt_nusd: str
    settled_enforced_nusd: str
    settled_unproven_nusd: str
    observed_unenforced_nusd: str
    leased_nusd: str
    free_nusd: str
    used_ratio: float | None
    """Settled and observed over the limit, to four decimals; null for a limit of zero."""
    enforced_ratio: float | None
    """Of what was spent, the part that was held before; null while nothing was spent."""


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """A budget and its standing now."""

    id: str
    name: str
    owner: str
    tenant: str
    match: dict[str, tuple[str, ...]]
    limit_usd: str
    limit_nusd: str
    period: Period
    zone: str
    mode: Mode
    unpriced: Unpriced
    unattributed: Unattributed
    stale: Stale
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


class BudgetList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/budgets`."""

    rows: tuple[BudgetView, ...]
    meta: BudgetMeta


class EntryView(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable movement; amounts are changes, decimal strings of USD."""

    key: str
    kind: str
    at: datetime
    settled_enforced_usd: str
    settled_unproven_usd: str
    observed_unenforced_usd: str
    leased_usd: str


class EntryList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/budgets/{id}/ledger`."""

    rows: tuple[EntryView, ...]
    window_start: datetime
    window_end: datetime


def increases_of(said: tuple[IncreaseIn, ...]) -> tuple[Increase, ...]:
    """Read increases as they were sent.

    Raises:
        InvalidInputError: an amount that is no money.
    """
    return tuple(
        Increase(
            amount_nusd=parse_usd(one.amount_usd, field="increases.amount_usd"),
            until=one.until,
            reason=one.reason,
        )
        for one in said
    )


def bound_of(budget: Budget, now: Standing, price_book_version: str) -> str:
    """Say what the budget promises, in the words of algorithms L5."""
    spent = _spent(now)
    bypassed = f"${format_usd(now.observed_unenforced_nusd)}"
    if spent:
        bypassed += f" ({100 * now.observed_unenforced_nusd / spent:.1f} %)"
    if budget.mode is not Mode.HARD:
        return f"{budget.mode.value}: nothing is refused; ${format_usd(spent)} was spent."
    return (
        f"Calls admitted through enforcement can not exceed ${format_usd(now.limit_nusd)} at prices "
        f"known when admitted (price book {price_book_version}). {bypassed} bypassed enforcement "
        "and is subtracted as soon as it is seen."
    )


def _spent(now: Standing) -> int:
    return now.settled_enforced_nusd + now.settled_unproven_nusd + now.observed_unenforced_nusd


def to_wire(budget: Budget, now: Standing, price_book_version: str) -> BudgetView:
    """Cross to the wire."""
    return BudgetView(
        id=budget.id,
        name=budget.name,
        owner=budget.owner,
        tenant=budget.tenant,
        match=budget.match,
        limit_usd=format_usd(budget.limit_nusd),
        limit_nusd=str(budget.limit_nusd),
        period=budget.period,
        zone=budget.zone,
        mode=budget.mode,
        unpriced=budget.unpriced,
        unattributed=budget.unattributed,
        stale=budget.stale,
        parent=budget.parent,
        increases=tuple(
            IncreaseIn(amount_usd=format_usd(one.amount_nusd), until=one.until, reason=one.reason)
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
    held = used - now.observed_unenforced_nusd
    return StandingView(
        window_start=now.window_start,
        window_end=now.window_end,
        used_ratio=divide_half_even(used * RATIO_DIGITS, limit) / RATIO_DIGITS if limit else None,
        enforced_ratio=divide_half_even(held * RATIO_DIGITS, used) / RATIO_DIGITS if used else None,
        **{f"{part}_usd": format_usd(nusd) for part, nusd in amounts.items()},
        **{f"{part}_nusd": str(nusd) for part, nusd in amounts.items()},
    )


def entry_to_wire(entry: Entry) -> EntryView:
    """Cross to the wire."""
    return EntryView(
        key=entry.key,
        kind=entry.kind.value,
        at=entry.at,
        settled_enforced_usd=format_usd(entry.change.enforced_nusd),
        settled_unproven_usd=format_usd(entry.change.unproven_nusd),
        observed_unenforced_usd=format_usd(entry.change.unenforced_nusd),
        leased_usd=format_usd(entry.change.leased_nusd),
    )
