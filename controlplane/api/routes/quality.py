"""How complete and how fresh the data is."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from litestar import Controller, Response, get

from controlplane.api import params as p
from controlplane.api.describe import TABLE, documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.tables import respond, rfc3339
from controlplane.auth.roles import Scope
from controlplane.core.money import format_usd
from controlplane.pipelines.completeness import measure_completeness
from controlplane.signals.queries import CostQuery
from controlplane.usage.data_quality import Shares, measure_shares
from controlplane.usage.dimensions import CALLS_ONLY

_SUMMED: Final = ("reports", "input_tokens", "output_tokens", "cost_nusd")


class SharesView(msgspec.Struct, frozen=True, kw_only=True):
    """What is doubtful of a window, how far the data reaches and how old the price list is."""

    start: datetime
    end: datetime
    zone: str
    server_time: datetime
    data_through: datetime | None
    price_list_recorded_at: datetime | None
    price_book_version: str
    shares: Shares


class QualityController(Controller):
    """`/api/v1/data-quality`."""

    path = "/api/v1/data-quality"
    tags: Sequence[str] | None = ("data quality",)

    @get(
        "/",
        **needs(Scope.QUALITY_READ),
        sync_to_thread=True,
        operation_class=documented((p.TENANT,), answer=TABLE),
    )
    def accounting(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer per emitter what was stored, counted and suppressed, and how new it is."""
        given = p.read(request.query_params.multi_items(), params=(p.TENANT,))
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        through = services.reader.data_through(tenants)
        meta: dict[str, Any] = {
            "tenants": list(tenants),
            "data_through": None if through is None else rfc3339(through),
            "server_time": rfc3339(services.clock.now()),
        }
        return respond(request, services.reader.accounting(tenants), meta=meta)

    @get(
        "/shares",
        **needs(Scope.QUALITY_READ),
        sync_to_thread=True,
        operation_class=documented(p.WINDOW),
    )
    def shares(self, request: ApiRequest, services: Injected) -> SharesView:
        """Answer which parts of a window's numbers are unknown, repeated, late or refused.

        Parts are between 0 and 1, null where there is nothing to be a part of.
        """
        given = p.read(request.query_params.multi_items(), params=p.WINDOW)
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        now = services.clock.now()
        zone = p.zone(given, services.zone)
        window = p.window(given, now=now, in_zone=zone, calendar=services.calendar)
        teams = CostQuery(tenants=tenants, window=window, group_by=("team",), filters=CALLS_ONLY)
        twice = services.reader.duplicates(tenants, window).column("reports").to_numpy()
        meter = measure_completeness(services.signals, tenants, window, now=now)
        return SharesView(
            start=window.start,
            end=window.end,
            zone=zone,
            server_time=now,
            data_through=services.reader.data_through(tenants),
            price_list_recorded_at=services.price_history.list_recorded_at(),
            price_book_version=services.prices.version,
            shares=measure_shares(
                services.reader.costs(teams).to_pylist(),
                duplicates=sum(int(reports) for reports in twice),
                accounts=meter.accounts,
            ),
        )

    @get(
        "/duplicates",
        **needs(Scope.QUALITY_READ),
        sync_to_thread=True,
        operation_class=documented(p.WINDOW, answer=TABLE),
    )
    def duplicates(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer the reports that do not bill, by who made them, who bills instead, and why.

        `reports`, tokens and cost are what a sum over all reports would have counted twice;
        `meta.totals` adds them up. A null biller is another tenant's.
        """
        given = p.read(request.query_params.multi_items(), params=p.WINDOW)
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        zone = p.zone(given, services.zone)
        window = p.window(given, now=services.clock.now(), in_zone=zone, calendar=services.calendar)
        table = services.reader.duplicates(tenants, window)
        sums = {name: sum(int(v) for v in table.column(name).to_numpy()) for name in _SUMMED}
        meta: dict[str, Any] = {
            "tenants": list(tenants),
            "start": rfc3339(window.start),
            "end": rfc3339(window.end),
            "zone": zone,
            "totals": {
                **{name: sums[name] for name in _SUMMED[:3]},
                "cost_usd": format_usd(sums["cost_nusd"]),
                "cost_nusd": str(sums["cost_nusd"]),
            },
        }
        return respond(request, table, meta=meta)
