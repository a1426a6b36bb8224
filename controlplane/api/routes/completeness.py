"""Is everything that was sent and served also here?"""

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Controller, Response, get

from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.tables import rfc3339
from controlplane.auth.roles import Scope
from controlplane.core.money import format_usd
from controlplane.pipelines.completeness import measure_completeness


class CompletenessController(Controller):
    """`/api/v1/quality`."""

    path = "/api/v1/quality"
    tags: Sequence[str] | None = ("data quality",)

    @get(
        "/completeness",
        **needs(Scope.QUALITY_READ),
        sync_to_thread=True,
        operation_class=documented(p.WINDOW),
    )
    def completeness(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer the completeness meter over a window.

        Per emitter and signal `received = stored + duplicates + rejected`; `late` and `ahead` are
        parts of stored. Counted tokens are a lower bound of what was served.
        """
        given = p.read(request.query_params.multi_items(), params=p.WINDOW)
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        now = services.clock.now()
        zone = p.zone(given, services.zone)
        window = p.window(given, now=now, in_zone=zone, calendar=services.calendar)
        meter = measure_completeness(services.signals, tenants, window, now=now)
        body = {
            "accounts": [_view(account) for account in meter.accounts],
            "counters": [_view(check) for check in meter.counters],
            "findings": [_view(found) for found in meter.findings],
            "meta": {
                "tenants": list(tenants),
                "start": rfc3339(window.start),
                "end": rfc3339(window.end),
                "zone": zone,
                "server_time": rfc3339(now),
            },
        }
        return Response(msgspec.json.encode(body), media_type="application/json")


def _view(row: msgspec.Struct) -> dict[str, Any]:
    said: dict[str, Any] = msgspec.to_builtins(row)
    if "missing_nusd" in said:
        nusd = said.pop("missing_nusd")
        said["missing_usd"] = None if nusd is None else format_usd(nusd)
        said["missing_nusd"] = None if nusd is None else str(nusd)
    return said
