"""Budgets, their standings and their ledger as the API takes and shows them."""

from datetime import datetime
from typing import Final

import msgspec

from controlplane.budgets.budget import Budget, Unpriced
from controlplane.budgets.ledger import Entry
from controlplane.core.calendar import Period
from controlplane.core.money import divide_half_even, format_usd
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
    thresholds: tuple[int, ...] = (50, 80, 100)
    counts_from: datetime | None = None
    """First instant whose calls count; default now."""


class BudgetChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change of a budget; what it counts may not, and what is left out stays."""

    name: str | None = None
    owner: str | None = None
    limit_usd: str | None = None
    mode: Mode | None = None
    unpriced: Unpriced | None = None
    thresholds: tuple[int, ...] | None = None


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
    thresholds: tuple[int, ...]
    counts_from: datetime
    standing: StandingView


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


def to_wire(budget: Budget, now: Standing) -> BudgetView:
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
        thresholds=budget.thresholds,
        counts_from=budget.counts_from,
        standing=_standing(now),
    )


def _standing(now: Standing) -> StandingView:
    amounts: dict[str, int] = {part: getattr(now, f"{part}_nusd") for part in PARTS}
    used = (
        amounts["settled_enforced"] + amounts["settled_unproven"] + amounts["observed_unenforced"]
    )
    limit = amounts["limit"]
    return StandingView(
        window_start=now.window_start,
        window_end=now.window_end,
        used_ratio=divide_half_even(used * RATIO_DIGITS, limit) / RATIO_DIGITS if limit else None,
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
