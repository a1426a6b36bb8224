"""Showback: what each owner cost, with its part of what nobody owns and of idle GPU time."""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
from litestar import Controller, Response, get

from controlplane.api import params as p
from controlplane.api.describe import TABLE, documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.routes.costs import check_window
from controlplane.api.tables import respond, rfc3339
from controlplane.auth.roles import Scope
from controlplane.core.errors import LimitExceededError
from controlplane.core.money import format_usd
from controlplane.exports.sharing import SharedRule, read_shares
from controlplane.exports.statement import BY
from controlplane.pipelines.price_basis import basis_of
from controlplane.pipelines.showback import ShowbackQuestion, ShowbackRow, showback
from controlplane.signals.queries import MAX_CHART_ROWS, CostQuery, Granularity

_RULES: Final = tuple(rule.value for rule in SharedRule)
PARAMS: Final = (
    *p.WINDOW,
    p.Param("by", "Whose cost; default team", choices=BY),
    p.Param("shared", "How cost without an owner is divided; default none", choices=_RULES),
    p.Param("share", "With `shared=fixed`: an owner and its weight", "search=3", repeats=True),
    p.Param("idle", "How idle GPU time is divided; default none", choices=_RULES),
    p.Param("idle_share", "With `idle=fixed`: an owner and its weight", "search=3", repeats=True),
)
_COLUMNS: Final = (
    ("kind", pa.string()), ("name", pa.string()), ("own_nusd", pa.int64()),
    ("shared_nusd", pa.int64()), ("idle_nusd", pa.int64()), ("total_nusd", pa.int64()),
    ("unpriced_calls", pa.int64()),
)  # fmt: skip


class ShowbackController(Controller):
    """`/api/v1/showback`."""

    path = "/api/v1/showback"
    tags: Sequence[str] | None = ("costs",)

    @get(
        "/",
        **needs(Scope.COSTS_READ, 413),
        sync_to_thread=True,
        operation_class=documented(PARAMS, answer=TABLE),
    )
    def rows(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer a row an owner, one of what has none, and one a pool of idle time.

        `own` is what a row cost, `shared` and `idle` its part of the rest or, negative, its way
        out; totals sum to what own costs sum to, whatever the rules: `GET /costs` and its idle time.
        """
        given = p.read(request.query_params.multi_items(), params=PARAMS)
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        now, zone = services.clock.now(), p.zone(given, services.zone)
        window = p.window(given, now=now, in_zone=zone, calendar=services.calendar)
        check_window(window, Granularity.TOTAL)
        asked = ShowbackQuestion(
            tenants=tenants,
            everyone=request.user.all_tenants and "tenant" not in given,
            window=window,
            by=p.one(given, "by", "team") or "team",
            shared_rule=_rule(given, "shared"),
            shares=read_shares(given.get("share", ())),
            idle_rule=_rule(given, "idle"),
            idle_shares=read_shares(given.get("idle_share", ())),
        )
        found = showback(services.reader, services.gpu, asked)
        if len(found) > MAX_CHART_ROWS:
            raise LimitExceededError("owners of a showback", MAX_CHART_ROWS, len(found))
        query = CostQuery(tenants=tenants, window=window, zone=zone, calendar=services.calendar)
        total = sum(row.total_nusd for row in found)
        meta: dict[str, Any] = {
            "start": rfc3339(window.start),
            "end": rfc3339(window.end),
            "zone": zone,
            "tenants": list(tenants),
            "currency": "USD",
            "basis": basis_of(services.reader, services.price_history, query),
            "by": asked.by,
            "shared": asked.shared_rule.value,
            "idle": asked.idle_rule.value,
            "totals": {"cost_usd": format_usd(total), "cost_nusd": str(total)},
        }
        return respond(request, _table(found), meta=meta)


def _rule(given: p.Given, name: str) -> SharedRule:
    return SharedRule(p.one(given, name) or SharedRule.NONE)


def _table(rows: Sequence[ShowbackRow]) -> pa.Table:
    told = [{name: getattr(row, name) for name, _ in _COLUMNS} for row in rows]
    fields: list[tuple[str, pa.DataType]] = list(_COLUMNS)
    return pa.Table.from_pylist(told, schema=pa.schema(fields))
