"""Budgets, where their money is, and the ledger that says why."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from litestar import Controller, delete, get, patch, post
from litestar.params import FromPath, JSONBody

from controlplane.api import params as p
from controlplane.api.budget_bodies import (
    BudgetChange,
    BudgetIn,
    Defaults,
    budget_of,
    escrow_of,
    increases_of,
    limit_of,
)
from controlplane.api.budget_course_views import (
    CourseView,
    EditList,
    course_to_wire,
    edit_to_wire,
)
from controlplane.api.budget_views import (
    BudgetList,
    BudgetMeta,
    BudgetView,
    EntryList,
    entry_to_wire,
    to_wire,
)
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.publishing import check_compiles, publish_everywhere
from controlplane.api.services import Services
from controlplane.auth.roles import Scope
from controlplane.budgets.budget import Budget, check_budget, check_change
from controlplane.budgets.edit import Editor
from controlplane.budgets.standing import standing
from controlplane.core.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
)
from controlplane.pipelines.budget_course import course
from controlplane.policy.document import Mode
from controlplane.policy.units import say_amount

MAX_ENTRIES: Final = 500
CHANGED_AS_SAID: Final = (
    *("name", "owner", "mode", "unpriced", "unattributed", "stale"),
    *("thresholds", "forecast_thresholds"),
)


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
        until = services.budgets.recovering_until(now)
        return BudgetList(views, BudgetMeta(tenants, now, recovering_until=until))

    @post("/", **needs(Scope.BUDGETS_WRITE, 404, 409, 422), sync_to_thread=True)
    def create(
        self, request: ApiRequest, data: JSONBody[BudgetIn], services: Injected
    ) -> BudgetView:
        """Make a budget and publish it to the agents; it counts calls from now on."""
        if not request.user.may_see(data.tenant):
            raise ForbiddenError(f"access to the tenant {data.tenant!r}")
        if data.parent is not None:
            _visible(request, services, data.parent)
        now = services.clock.now()
        budget = budget_of(
            data,
            budget_id=services.ids.new("budget"),
            now=now,
            defaults=Defaults(services.zone, services.calendar),
        )
        check_budget(budget)
        check_compiles(
            [*services.budgets.active(), budget],
            tools=services.publishing,
            now=now,
            changed=budget.id,
        )
        made = services.budgets.create(budget, by=_editor(request, now))
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
            name: value for name in CHANGED_AS_SAID if (value := getattr(data, name)) is not None
        }
        limit = limit_of(data)
        if limit is not None:
            said["unit"], said["limit_nusd"] = limit  # another unit is refused below
        escrow = escrow_of(data, before.unit)
        if escrow is not None:
            said["escrow_nusd"] = escrow
        if data.increases is not None:
            said["increases"] = increases_of(data.increases, before.unit)
        wanted = msgspec.structs.replace(before, **said)
        check_change(before, wanted)
        now = services.clock.now()
        if not data.accept_promised:
            _refuse_below_promised(before, wanted, services, now=now)
        others = [each for each in services.budgets.active() if each.id != before.id]
        is_other = wanted.limit_at(now) != before.limit_at(now)
        check_compiles(
            [*others, wanted],
            tools=services.publishing,
            now=now,
            changed=wanted.id if is_other else None,
        )
        after = services.budgets.update(wanted, by=_editor(request, now))
        _tell_agents(request, services, now=now, recall=after.id)
        return _views([after], services, now=now)[0]

    @delete("/{budget_id:str}", **needs(Scope.BUDGETS_WRITE, 404, 422), sync_to_thread=True)
    def archive(self, request: ApiRequest, budget_id: FromPath[str], services: Injected) -> None:
        """Stop a budget; its ledger stays. 422 while another budget or a rule names it."""
        budget = _visible(request, services, budget_id)
        now = services.clock.now()
        left = [each for each in services.budgets.active() if each.id != budget.id]
        check_compiles(left, tools=services.publishing, now=now)
        services.budgets.archive(budget.id, now=now, by=_editor(request, now))
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
        window = budget.counted_window(services.clock.now())
        entries = services.budgets.entries(
            budget.id,
            window,
            limit=p.whole(given, "limit", default=100, most=MAX_ENTRIES),
        )
        rows = tuple(entry_to_wire(entry, budget.unit) for entry in entries)
        return EntryList(rows, window.start, window.end)

    @get("/{budget_id:str}/course", **needs(Scope.BUDGETS_READ, 404), sync_to_thread=True)
    def course(
        self, request: ApiRequest, budget_id: FromPath[str], services: Injected
    ) -> CourseView:
        """Answer what the window has come to, and where it is likely to end."""
        p.read(request.query_params.multi_items(), params=())
        budget, now = _visible(request, services, budget_id), services.clock.now()
        amounts = services.budgets.balances([budget], at=now)[budget.id]
        found = course(budget, amounts, now, budgets=services.budgets)
        return course_to_wire(budget, found, now)

    @get(
        "/{budget_id:str}/edits",
        **needs(Scope.BUDGETS_READ, 404),
        sync_to_thread=True,
        operation_class=documented((p.LIMIT,)),
    )
    def edits(self, request: ApiRequest, budget_id: FromPath[str], services: Injected) -> EditList:
        """Answer who made and changed the budget, when and what of it, newest first."""
        given = p.read(request.query_params.multi_items(), params=(p.LIMIT,))
        budget = _visible(request, services, budget_id)
        limit = p.whole(given, "limit", default=100, most=MAX_ENTRIES)
        found = services.budgets.edits(budget.id, limit=limit)
        return EditList(tuple(edit_to_wire(one) for one in found))


def _editor(request: ApiRequest, now: datetime) -> Editor:
    return Editor(at=now, name=request.user.name, id=request.user.id)


def _visible(request: ApiRequest, services: Services, budget_id: str) -> Budget:
    """Return the budget, if its tenant is the caller's; else it does not exist."""
    budget = services.budgets.get(budget_id)
    if not request.user.may_see(budget.tenant) or budget.archived_at is not None:
        raise NotFoundError("budget", budget_id)
    return budget


def _refuse_below_promised(
    before: Budget, wanted: Budget, services: Services, *, now: datetime
) -> None:
    """Show what is spent and promised before a limit falls below it (L13)."""
    limit = wanted.limit_at(now)
    if limit >= before.limit_at(now) or wanted.mode is not Mode.HARD:
        return
    amounts = services.budgets.balances([before], at=now)[before.id]
    if amounts.total_nusd > limit:
        spent = amounts.total_nusd - amounts.leased_nusd
        raise ConflictError(
            f"{say_amount(before.unit, spent)} is spent and "
            f"{say_amount(before.unit, amounts.leased_nusd)} is promised to "
            f"proxies, more than {say_amount(before.unit, limit)}. Leases are recalled at once, but what is held "
            "may still be spent. Send accept_promised: true to go on"
        )


def _tell_agents(
    request: ApiRequest, services: Services, *, now: datetime, recall: str | None = None
) -> None:
    publish_everywhere(now, tools=services.publishing)
    request.app.state.policy_watch.published()
    if recall is not None:  # it may be lower than what is leased (L13)
        request.app.state.policy_watch.recall(recall)


def _views(
    budgets: Sequence[Budget], services: Services, *, now: datetime
) -> tuple[BudgetView, ...]:
    amounts = services.budgets.balances(budgets, at=now)
    version = services.prices.version
    return tuple(
        to_wire(budget, standing(budget, amounts[budget.id], now), version) for budget in budgets
    )
