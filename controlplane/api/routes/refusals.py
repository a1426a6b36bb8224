"""What budgets and rules refused, as agents tell it."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from litestar import Controller, get

from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.auth.roles import Scope


class RefusalView(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that were refused for one reason."""

    tenant: str
    budget_id: str | None
    rule: str | None
    code: str
    calls: int
    last_at: datetime


class RefusalMeta(msgspec.Struct, frozen=True):
    """What the rows are of."""

    tenants: tuple[str, ...]
    start: datetime
    end: datetime
    calls: int


class RefusalList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/refusals`, most calls first."""

    rows: tuple[RefusalView, ...]
    meta: RefusalMeta


class RefusalController(Controller):
    """`/api/v1/refusals`."""

    path = "/api/v1/refusals"
    tags: Sequence[str] | None = ("budgets",)

    @get(
        **needs(Scope.BUDGETS_READ),
        sync_to_thread=True,
        operation_class=documented(p.WINDOW),
    )
    def refusals(self, request: ApiRequest, services: Injected) -> RefusalList:
        """Answer the calls that agents refused in the hours that begin within a window.

        By the budget that had no room, or the rule that said no. Agents tell with each sync, and
        each count once, however often it is told.
        """
        given = p.read(request.query_params.multi_items(), params=p.WINDOW)
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        zone = p.zone(given, services.zone)
        now = services.clock.now()
        window = p.window(given, now=now, in_zone=zone, calendar=services.calendar)
        rows = tuple(
            RefusalView(
                tenant=one.tenant,
                budget_id=one.budget_id or None,
                rule=one.rule or None,
                code=one.code,
                calls=one.calls,
                last_at=one.last_at,
            )
            for one in services.budgets.refusals(tenants, window)
        )
        meta = RefusalMeta(tuple(tenants), window.start, window.end, sum(row.calls for row in rows))
        return RefusalList(rows, meta)
