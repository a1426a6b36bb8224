"""How complete and how fresh the data is."""

from collections.abc import Sequence
from typing import Any

from litestar import Controller, Response, get

from controlplane.api import params as p
from controlplane.api.describe import TABLE, documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.tables import respond, rfc3339
from controlplane.auth.roles import Scope


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
