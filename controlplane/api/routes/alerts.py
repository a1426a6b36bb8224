"""What needs somebody's attention now."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from litestar import Controller, get

from controlplane.alerts.alert import Alert, AlertState
from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.auth.roles import Scope

STATE = p.Param("state", "Only this state", choices=tuple(state.value for state in AlertState))
TENANT_LABEL: Final = "tenant"


class AlertView(msgspec.Struct, frozen=True):
    """One alert in Alertmanager's words; labels are its identity, annotations explain it."""

    fingerprint: str
    state: AlertState
    labels: dict[str, str]
    annotations: dict[str, str]
    since: datetime
    starts_at: datetime | None
    ends_at: datetime | None


class AlertMeta(msgspec.Struct, frozen=True):
    """About the whole list."""

    tenants: tuple[str, ...]


class AlertList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/alerts`."""

    rows: tuple[AlertView, ...]
    meta: AlertMeta


class AlertController(Controller):
    """`/api/v1/alerts`."""

    path = "/api/v1/alerts"
    tags: Sequence[str] | None = ("alerts",)

    @get(
        "/",
        **needs(Scope.ALERTS_READ),
        sync_to_thread=True,
        operation_class=documented((STATE, p.TENANT)),
    )
    def alerts(self, request: ApiRequest, services: Injected) -> AlertList:
        """List alerts of the caller's tenants, newest first.

        An alert about the installation itself carries no tenant: operators see it.
        """
        given = p.read(request.query_params.multi_items(), params=(STATE, p.TENANT))
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        state = p.one(given, "state")
        whole = request.user.all_tenants and "tenant" not in given
        shown = [
            alert
            for alert in services.alerts.alerts()
            if (state is None or alert.state == state) and _belongs(alert, tenants, whole=whole)
        ]
        shown.sort(key=lambda alert: (alert.since, alert.fingerprint), reverse=True)
        return AlertList(tuple(_to_wire(alert) for alert in shown), AlertMeta(tenants))


def _belongs(alert: Alert, tenants: tuple[str, ...], *, whole: bool) -> bool:
    tenant = alert.labels.get(TENANT_LABEL)
    return whole if tenant is None else whole or tenant in tenants


def _to_wire(alert: Alert) -> AlertView:
    return AlertView(
        alert.fingerprint,
        alert.state,
        alert.labels,
        alert.annotations,
        alert.since,
        alert.starts_at,
        alert.ends_at,
    )
