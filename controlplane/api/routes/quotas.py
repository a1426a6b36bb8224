"""Quotas that began by themselves: who is held back, and how to end it by hand."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from litestar import Controller, delete, get
from litestar.params import FromPath

from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs
from controlplane.api.policy_watch import PolicyWatch
from controlplane.api.routes.policy import SCOPE, scope_of
from controlplane.auth.principal import Principal
from controlplane.auth.roles import Scope
from controlplane.core.money import format_usd
from controlplane.pipelines.velocity import lift
from controlplane.policy.history import Change
from controlplane.policy.velocity import Quota


class QuotaView(msgspec.Struct, frozen=True, kw_only=True):
    """One quota in force; `value` is null for who may not see calls."""

    id: str
    scope: str
    limit: str
    per: str
    tenant: str
    name: str
    value: str | None
    spent_usd: str
    limit_usd: str
    window_seconds: int
    since: datetime
    until: datetime

    @classmethod
    def of(cls, quota: Quota, caller: Principal) -> "QuotaView":
        """Cross to the wire."""
        return cls(
            id=quota.id,
            scope=quota.scope,
            limit=quota.limit_id,
            per=quota.per,
            tenant=quota.tenant,
            name=quota.name,
            value=quota.value if Scope.CALLS_READ in caller.scopes else None,
            spent_usd=format_usd(quota.spent_nusd),
            limit_usd=format_usd(quota.limit_nusd),
            window_seconds=quota.window_seconds,
            since=quota.since,
            until=quota.until,
        )


class QuotaList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/policy/quotas`, the dearest first."""

    rows: tuple[QuotaView, ...]


class QuotaController(Controller):
    """`/api/v1/policy/quotas`."""

    path = "/api/v1/policy/quotas"
    tags: Sequence[str] | None = ("policy",)

    @get(
        **needs(Scope.POLICY_READ),
        sync_to_thread=True,
        operation_class=documented((SCOPE,)),
    )
    def quotas(self, request: ApiRequest, services: Injected) -> QuotaList:
        """List the keys and users of the caller's tenants that spent too fast and are held back."""
        scope = scope_of(p.read(request.query_params.multi_items(), params=(SCOPE,)))
        now = services.clock.now()
        found = [
            quota
            for quota in services.publishing.quotas.quotas(scope)
            if quota.is_active(now) and request.user.may_see(quota.tenant)
        ]
        found.sort(key=lambda quota: (-quota.spent_nusd, quota.id))
        return QuotaList(tuple(QuotaView.of(quota, request.user) for quota in found))

    @delete(
        "/{quota_id:str}",
        **needs(Scope.POLICY_WRITE, 404, 409, operator=True),
        sync_to_thread=True,
        operation_class=documented((SCOPE,)),
    )
    def lift(self, request: ApiRequest, quota_id: FromPath[str], services: Injected) -> None:
        """End a quota now; for the length of its window its key or user gets no other."""
        scope = scope_of(p.read(request.query_params.multi_items(), params=(SCOPE,)))
        who = request.user
        lift(
            scope,
            quota_id,
            services.clock.now(),
            tools=services.publishing,
            change=Change(author=who.name, author_id=who.id),
        )
        watch: PolicyWatch = request.app.state.policy_watch
        watch.published()
