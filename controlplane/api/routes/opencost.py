"""OpenCost's allocation API over our ledger: for programs that already read that one."""

from collections.abc import Sequence
from typing import Final

from litestar import Controller, Response, get
from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType

from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.opencost_window import check_duration, steps_of, window_of
from controlplane.api.services import Services
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError
from controlplane.exports.opencost import DEFAULT, property_of
from controlplane.pipelines.allocation import AllocationQuestion, allocate_costs

MAX_AGGREGATE: Final = 5
_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
_FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")
_FLAGS: Final = (
    p.Param("accumulate", "Sum all steps into one set", choices=(*_TRUE, *_FALSE)),
    p.Param("includeIdle", "Add `__idle__`, what no call carries", choices=(*_TRUE, *_FALSE)),
    p.Param(
        "shareIdle", "Spread idle time over what ran, by its GPU cost", choices=(*_TRUE, *_FALSE)
    ),
    p.Param("idleByNode", "Idle time of each pool by itself", choices=(*_TRUE, *_FALSE)),
)
PARAMS: Final = (
    p.Param(
        "window",
        "today, yesterday, week, month, lastweek, lastmonth; 30m, 24h, 7d; or two instants (RFC "
        "3339 or Unix seconds) with a comma between; on quarter hours",
        "7d",
    ),
    p.Param(
        "aggregate",
        f"At most {MAX_AGGREGATE} properties with commas: cluster (provider), node (GPU pool), "
        "namespace (tenant), controllerKind (operation), controller and container (model), pod "
        "(feature), service, team, environment, product (project), label:<dimension>",
        "namespace,label:team",
        repeats=True,
    ),
    p.Param("step", "Length of a set: 15m, 1h, 1d; default the window", "1d"),
    p.Param("resolution", "Has no effect: cost is kept by quarter hour", "1m"),
    *_FLAGS,
    p.ZONE,
    p.TENANT,
)
_ANSWER: Final = {
    "application/json": Schema(
        type=OpenAPIType.OBJECT,
        required=["code", "data"],
        properties={
            "code": Schema(type=OpenAPIType.INTEGER),
            "status": Schema(type=OpenAPIType.STRING),
            "data": Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.OBJECT)),
            "warning": Schema(type=OpenAPIType.STRING),
        },
    )
}
BASES: Final = ("/api/v1/opencost", "/")
"""For clients whose base URL may have a path, and for those that know a host and port only."""
PATHS: Final = tuple(
    base.rstrip("/") + path for base in BASES for path in ("/allocation", "/allocation/compute")
)


class OpenCostController(Controller):
    """`/api/v1/opencost`, a base URL for OpenCost's clients."""

    path = BASES[0]
    tags: Sequence[str] | None = ("costs",)

    @get(
        "/allocation",
        **needs(Scope.COSTS_READ, 413),
        sync_to_thread=True,
        operation_class=documented(PARAMS, answer=_ANSWER),
    )
    def allocation(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer cost as OpenCost's allocations: calls of providers are external, the rest is GPU.

        Amounts are JSON numbers with all nine decimals. A set's `totalCost` with `includeIdle` sums
        to `meta.idle.with_calls_usd` of `GET /costs` over the same window. Calls without a known
        price are in no cost; `warning` counts them.
        """
        return _answer(request, services)

    @get(
        "/allocation/compute",
        **needs(Scope.COSTS_READ, 413),
        sync_to_thread=True,
        operation_class=documented(PARAMS, answer=_ANSWER),
    )
    def compute(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer the same under the name that OpenCost's own clients use."""
        return _answer(request, services)


class OpenCostRootController(OpenCostController):
    """The same at the root."""

    path = BASES[1]


def _answer(request: ApiRequest, services: Services) -> Response[bytes]:
    given = p.read(request.query_params.multi_items(), params=PARAMS)
    text = p.one(given, "window")
    if not text:
        raise InvalidInputError("window", "missing", "As in window=7d")
    check_duration("resolution", p.one(given, "resolution"))
    zone = p.zone(given, services.zone)
    now = services.clock.now()
    window = window_of(text, now=now, zone=zone, calendar=services.calendar)
    asked = AllocationQuestion(
        tenants=tenants_of(request, services, wanted=given.get("tenant", ())),
        everyone=request.user.all_tenants and "tenant" not in given,
        windows=steps_of(window, p.one(given, "step"), zone=zone),
        aggregate=_aggregate(given.get("aggregate", ())),
        accumulate=_flag(given, "accumulate"),
        include_idle=_flag(given, "includeIdle"),
        share_idle=_flag(given, "shareIdle"),
        idle_by_node=_flag(given, "idleByNode"),
    )
    body = allocate_costs(services.reader, services.gpu, asked)
    return Response(body, media_type="application/json")


def _aggregate(names: Sequence[str]) -> tuple[str, ...]:
    keys = tuple(dict.fromkeys(property_of(name) for name in names))
    if len(keys) > MAX_AGGREGATE:
        raise InvalidInputError("aggregate", f"more than {MAX_AGGREGATE} properties")
    return keys or DEFAULT


def _flag(given: p.Given, name: str) -> bool:
    return p.one(given, name) in _TRUE
