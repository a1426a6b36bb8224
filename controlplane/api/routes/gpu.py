"""What GPUs cost, to the request, and the pools that say so."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec
from litestar import Controller, Response, delete, get, post, put
from litestar.params import FromPath, JSONBody

from controlplane.api import params as p
from controlplane.api.describe import TABLE, documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.services import Services
from controlplane.api.tables import respond, rfc3339
from controlplane.auth.roles import Scope
from controlplane.core.calendar import Window
from controlplane.core.errors import ConflictError, InvalidInputError, NotFoundError
from controlplane.core.money import format_usd
from controlplane.pipelines.gpu_cost import rebuild
from controlplane.pipelines.gpu_idle import with_bearers
from controlplane.pricing.gpu_pool import GpuPool, check_pools

GRANULARITY = p.Param("granularity", "Sums, or a row each", choices=("total", "quarter_hour"))
MAX_REBUILD: Final = timedelta(days=31)


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    """A pool, what an hour of it costs, and whether the API may change it."""

    pool: GpuPool
    hourly_usd: str
    is_fixed: bool
    """It stands in the settings' file."""


class PoolList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/gpu/pools`."""

    rows: tuple[PoolView, ...]


class RebuildOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A window whose buckets are worked out again."""

    start: str
    end: str


class Rebuilt(msgspec.Struct, frozen=True):
    """How many buckets of a pool came out differently."""

    changed_buckets: int


class GpuController(Controller):
    """`/api/v1/gpu`."""

    path = "/api/v1/gpu"
    tags: Sequence[str] | None = ("gpu",)

    @get(
        "/",
        **needs(Scope.COSTS_READ),
        sync_to_thread=True,
        operation_class=documented((*p.WINDOW, GRANULARITY), answer=TABLE),
    )
    def costs(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer what pools cost by slice, tenant, team and model, in whole quarters of an hour.

        An idle row without a tenant is borne by nobody; only who sees all tenants sees it, and
        `meta.bills`, whose sums are those of the rows.
        """
        params = (*p.WINDOW, GRANULARITY)
        given = p.read(request.query_params.multi_items(), params=params)
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        now, zone = services.clock.now(), p.zone(given, services.zone)
        window = p.window(given, now=now, in_zone=zone, calendar=services.calendar)
        whole = request.user.all_tenants and "tenant" not in given
        table = services.gpu.store.shares(
            with_bearers(services.gpu, tenants, window) if whole else tenants,
            window,
            with_idle=whole,
            by_bucket=p.one(given, "granularity") == "quarter_hour",
        )
        nusd = sum(value for value in table.column("cost_nusd").to_pylist() if value)
        meta: dict[str, Any] = {
            "start": rfc3339(window.start),
            "end": rfc3339(window.end),
            "zone": zone,
            "tenants": list(tenants),
            "currency": "USD",
            "basis": "gpu",
            "totals": {"cost_usd": format_usd(nusd), "cost_nusd": str(nusd)},
            "bills": _bills(services, window) if whole else [],
        }
        return respond(request, table, meta=meta)

    @get("/pools", **needs(Scope.PRICES_READ, operator=True), sync_to_thread=True)
    def pools(self, services: Injected) -> PoolList:
        """List the pools that are billed."""
        fixed = {pool.name for pool in services.fixed_pools}
        return PoolList(
            tuple(
                PoolView(
                    pool=pool,
                    hourly_usd=format_usd(round(pool.hourly_nusd(services.clock.now()))),
                    is_fixed=pool.name in fixed,
                )
                for pool in services.gpu.pools()
            )
        )

    @put(
        "/pools/{name:str}",
        **needs(Scope.BUDGETS_WRITE, 409, operator=True),
        sync_to_thread=True,
    )
    def put_pool(
        self,
        request: ApiRequest,
        services: Injected,
        *,
        name: FromPath[str],
        data: JSONBody[GpuPool],
    ) -> GpuPool:
        """Make or replace a pool; buckets that are still watched are worked out again."""
        if data.name != name:
            raise InvalidInputError("name", "is not the name in the path", f"Write {name!r}")
        _refuse_fixed(services, name)
        others = tuple(pool for pool in services.gpu.pools() if pool.name != name)
        check_pools((*others, data))
        services.gpu_pools.put(data, by=request.user.id, now=services.clock.now())
        return data

    @delete(
        "/pools/{name:str}",
        **needs(Scope.BUDGETS_WRITE, 404, 409, operator=True),
        sync_to_thread=True,
    )
    def remove_pool(self, services: Injected, name: FromPath[str]) -> None:
        """Stop billing a pool; what was worked out stays."""
        _refuse_fixed(services, name)
        if not services.gpu_pools.remove(name):
            raise NotFoundError("gpu pool", name)

    @post(
        "/rebuild",
        **needs(Scope.BUDGETS_WRITE, operator=True),
        status_code=200,
        sync_to_thread=True,
    )
    def rebuild(self, services: Injected, data: JSONBody[RebuildOrder]) -> Rebuilt:
        """Work out the closed buckets of a window again, from calls and samples as they are now."""
        window = Window(p.instant("start", data.start), p.instant("end", data.end))
        if not timedelta() < window.end - window.start <= MAX_REBUILD:
            raise InvalidInputError("end", f"is not within {MAX_REBUILD.days} days of start")
        now = services.clock.now()
        closed = Window(window.start, min(window.end, now))
        return Rebuilt(rebuild(services.gpu, closed, now=now))


def _bills(services: Services, window: Window) -> list[dict[str, Any]]:
    return [
        {
            **row,
            "bill_usd": format_usd(row["bill_nusd"]),
            "bill_nusd": str(row["bill_nusd"]),
        }
        for row in services.gpu.store.bills(window).to_pylist()
    ]


def _refuse_fixed(services: Services, name: str) -> None:
    if any(pool.name == name for pool in services.fixed_pools):
        raise ConflictError(f"{name!r} stands in the file that `gpu_pools` names. Change it there")
