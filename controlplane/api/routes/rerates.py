"""Re-rates: asked for here, run between two settlements, shown before they are applied."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Controller, get, post
from litestar.params import FromPath, JSONBody

from controlplane.api.guards import ApiRequest, Injected, needs
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError
from controlplane.pricing.rerate import RerateRun, RunState

MAX_LISTED = 100


class RerateIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A window of call starts to price anew; without `apply` it is only previewed."""

    start: datetime
    end: datetime
    price_version: int | None = None
    tenants: tuple[str, ...] = ()
    apply: bool = False


class RerateView(msgspec.Struct, frozen=True, kw_only=True):
    """A re-rate and, once it ran, what it changed or would change."""

    id: str
    state: RunState
    start: datetime
    end: datetime
    tenants: tuple[str, ...]
    price_version: int
    asked_by: str
    asked_at: datetime
    done_at: datetime | None
    report: dict[str, Any] | None
    problem: str | None


class RerateList(msgspec.Struct, frozen=True):
    """Re-rates, newest first."""

    rerates: list[RerateView]


class RerateController(Controller):
    """`/api/v1/rerates`."""

    path = "/api/v1/rerates"
    tags: Sequence[str] | None = ("prices",)

    @get("/", **needs(Scope.PRICES_READ, operator=True), sync_to_thread=True)
    def rerates(self, services: Injected) -> RerateList:
        """List re-rates, newest first."""
        return RerateList([to_wire(run) for run in services.rerates.runs(limit=MAX_LISTED)])

    @post("/", **needs(Scope.PRICES_WRITE, 409, operator=True), sync_to_thread=True)
    def ask(self, request: ApiRequest, data: JSONBody[RerateIn], services: Injected) -> RerateView:
        """Ask for a re-rate; it runs within seconds, and its report is at its own address."""
        for name in ("start", "end"):
            if getattr(data, name).tzinfo is None:
                raise InvalidInputError(name, "has no offset", "Write RFC 3339 with one")
        if data.start >= data.end:
            raise InvalidInputError("end", "not after start", "Windows are [start, end)")
        newest = services.price_history.latest()
        version = newest if data.price_version is None else data.price_version
        if not 0 < version <= newest:
            raise InvalidInputError("price_version", f"{version} is none", f"Use 1 to {newest}")
        run = RerateRun(
            id=services.ids.new("rerate"),
            state=RunState.TO_APPLY if data.apply else RunState.TO_PREVIEW,
            window_start=data.start.astimezone(UTC),
            window_end=data.end.astimezone(UTC),
            tenants=data.tenants,
            price_version=version,
            asked_by=request.user.id,
            asked_at=services.clock.now(),
        )
        services.rerates.add(run)
        return to_wire(run)

    @get("/{run_id:str}", **needs(Scope.PRICES_READ, 404, operator=True), sync_to_thread=True)
    def rerate(self, run_id: FromPath[str], services: Injected) -> RerateView:
        """Answer one re-rate."""
        return to_wire(services.rerates.get(run_id))


def to_wire(run: RerateRun) -> RerateView:
    """Cross to what callers are told."""
    failed = run.state is RunState.FAILED
    return RerateView(
        id=run.id,
        state=run.state,
        start=run.window_start,
        end=run.window_end,
        tenants=run.tenants,
        price_version=run.price_version,
        asked_by=run.asked_by,
        asked_at=run.asked_at,
        done_at=run.done_at,
        report=None if failed or run.report is None else msgspec.json.decode(run.report),
        problem=run.report if failed else None,
    )
