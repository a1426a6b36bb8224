"""Budgets, where their money is, and the ledger that says why."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from litestar import Controller, delete, get, patch, post
from litestar.params import FromPath, JSONBody

from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.services import Services
from controlplane.auth.roles import Scope
from controlplane.budgets.budget import Budget, Unpriced
from controlplane.budgets.ledger import Balance, Entry, WindowKey, standing
from controlplane.core.calendar import Period
from controlplane.core.errors import ForbiddenError, NotFoundError
from controlplane.core.money import divide_half_even, format_usd, parse_usd
from controlplane.policy.document import Mode
from controlplane.policy.wire import Standing

MAX_ENTRIES: Final = 500
RATIO_DIGITS: Final = 10_000


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


class BudgetController(Controller):
    """`/api/v1/budgets`."""

    path = "/api/v1/budgets"
    tags: Sequence[str] | None = ("budgets",)

    @get(
        "/",
        **needs(Scope.BUDGETS_READ),
        sync_to_thread=True,
        operation_class=documented((p.TENANT,)),
    )
    def budgets(self, request: ApiRequest, services: Injected) -> BudgetList:
        """List the budgets of the caller's tenants with where their money is now."""
        given = p.read(request.query_params.multi_items(), params=(p.TENANT,))
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        # An operator also sees budgets of tenants that have sent nothing yet.
        whole = request.user.all_tenants and "tenant" not in given
        now = services.clock.now()
        found = services.budgets.active(tenants=None if whole else tenants)
        views = _views(found, services, now=now)
        return BudgetList(views, BudgetMeta(tenants, now))

    @post("/", **needs(Scope.BUDGETS_WRITE, 409, 422), sync_to_thread=True)
    def create(
        self, request: ApiRequest, data: JSONBody[BudgetIn], services: Injected
    ) -> BudgetView:
        """Make a budget and publish it to the agents; it counts calls from now on."""
        if not request.user.may_see(data.tenant):
            raise ForbiddenError(f"access to the tenant {data.tenant!r}")
        now = services.clock.now()
        budget = Budget(
            id=services.ids.new("budget"),
            name=data.name,
            owner=data.owner,
            tenant=data.tenant,
            limit_nusd=parse_usd(data.limit_usd, field="limit_usd"),
            period=data.period,
            counts_from=now,
            zone=data.zone or services.zone,
            match=data.match,
            mode=data.mode,
            unpriced=data.unpriced,
            thresholds=data.thresholds,
        )
        made = services.budgets.create(budget)
        _tell_agents(request, services, now=now)
        return _views([made], services, now=now)[0]

    @get("/{budget_id:str}", **needs(Scope.BUDGETS_READ, 404), sync_to_thread=True)
    def budget(
        self, request: ApiRequest, budget_id: FromPath[str], services: Injected
    ) -> BudgetView:
        """Answer one budget."""
        found = _visible(request, services, budget_id)
        return _views([found], services, now=services.clock.now())[0]

    @patch("/{budget_id:str}", **needs(Scope.BUDGETS_WRITE, 404, 409, 422), sync_to_thread=True)
    def change(
        self,
        request: ApiRequest,
        *,
        budget_id: FromPath[str],
        data: JSONBody[BudgetChange],
        services: Injected,
    ) -> BudgetView:
        """Change a budget's limit, mode or words; agents are told at once."""
        before = _visible(request, services, budget_id)
        said = {
            name: value
            for name in ("name", "owner", "mode", "unpriced", "thresholds")
            if (value := getattr(data, name)) is not None
        }
        if data.limit_usd is not None:
            said["limit_nusd"] = parse_usd(data.limit_usd, field="limit_usd")
        after = services.budgets.update(msgspec.structs.replace(before, **said))
        now = services.clock.now()
        _tell_agents(request, services, now=now)
        return _views([after], services, now=now)[0]

    @delete("/{budget_id:str}", **needs(Scope.BUDGETS_WRITE, 404), sync_to_thread=True)
    def archive(self, request: ApiRequest, budget_id: FromPath[str], services: Injected) -> None:
        """Stop a budget; its ledger stays."""
        budget = _visible(request, services, budget_id)
        now = services.clock.now()
        services.budgets.archive(budget.id, now=now)
        _tell_agents(request, services, now=now)

    @get(
        "/{budget_id:str}/ledger",
        **needs(Scope.BUDGETS_READ, 404),
        sync_to_thread=True,
        operation_class=documented((p.LIMIT,)),
    )
    def ledger(
        self, request: ApiRequest, budget_id: FromPath[str], services: Injected
    ) -> EntryList:
        """Answer the newest ledger entries of the current window, at most 500."""
        given = p.read(request.query_params.multi_items(), params=(p.LIMIT,))
        budget = _visible(request, services, budget_id)
        window = budget.window(services.clock.now())
        entries = services.budgets.entries(
            WindowKey(budget.id, window.start),
            limit=p.whole(given, "limit", default=100, most=MAX_ENTRIES),
        )
        return EntryList(tuple(_entry(entry) for entry in entries), window.start, window.end)


def _visible(request: ApiRequest, services: Services, budget_id: str) -> Budget:
    """Return the budget, if its tenant is the caller's; else it does not exist."""
    budget = services.budgets.get(budget_id)
    if not request.user.may_see(budget.tenant) or budget.archived_at is not None:
        raise NotFoundError("budget", budget_id)
    return budget


def _tell_agents(request: ApiRequest, services: Services, *, now: datetime) -> None:
    services.publisher.republish(by=request.user.id, now=now)
    request.app.state.policy_watch.published()


def _views(
    budgets: Sequence[Budget], services: Services, *, now: datetime
) -> tuple[BudgetView, ...]:
    amounts = services.budgets.balances(budgets, at=now)
    return tuple(
        _to_wire(
            budget,
            standing(budget.id, budget.window(now), Balance(budget.limit_nusd, amounts[budget.id])),
        )
        for budget in budgets
    )


def _to_wire(budget: Budget, now: Standing) -> BudgetView:
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


PARTS: Final = (
    "limit",
    "debt",
    "settled_enforced",
    "settled_unproven",
    "observed_unenforced",
    "leased",
    "free",
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


def _entry(entry: Entry) -> EntryView:
    return EntryView(
        key=entry.key,
        kind=entry.kind.value,
        at=entry.at,
        settled_enforced_usd=format_usd(entry.change.enforced_nusd),
        settled_unproven_usd=format_usd(entry.change.unproven_nusd),
        observed_unenforced_usd=format_usd(entry.change.unenforced_nusd),
        leased_usd=format_usd(entry.change.leased_nusd),
    )
