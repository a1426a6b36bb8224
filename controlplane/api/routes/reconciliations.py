"""Bills against the ledger: compared on request, kept when asked."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from litestar import Controller, get, post
from litestar.params import FromPath

from controlplane.api import params as p
from controlplane.api.describe import BINARY, documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.services import BillUpload, Services
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError, NotFoundError
from controlplane.pipelines.reconcile_report import ReconciliationReport
from controlplane.usage.ports import KeptReconciliation

MAX_LISTED: Final = 100
SOURCES: Final = ("openai", "anthropic", "litellm", "opencost", "aws", "focus", "plain")
PARAMS: Final = (
    p.Param("provider", "Whose bill it is: gen_ai.provider.name, or an alias", "openai"),
    p.Param("format", "What the file is; told by its columns otherwise", choices=SOURCES),
    p.Param("map", "Columns of a plain table", "day=Date,cost=Amount", repeats=True),
    p.Param(
        "name",
        "The file's name; its ending says how it is read; `.zip`: files of one bill",
        "costs.csv",
    ),
    p.Param("zone", "IANA zone of the bill's days; default UTC", "UTC"),
    p.Param("tolerance_percent", "Of the bill that may stay unexplained; default 0.5", "0.5"),
    p.Param("tolerance_usd", "Or this much, if it is more; default 1", "1"),
    p.Param("record", "Keep the report", choices=("yes", "no")),
    p.TENANT,
)


class KeptView(msgspec.Struct, frozen=True, kw_only=True):
    """A kept report in a list."""

    id: str
    provider: str
    tenants: tuple[str, ...]
    start: datetime
    end: datetime
    recorded_at: datetime
    billed_usd: str
    ledger_usd: str
    difference_usd: str
    classes: dict[str, str]
    unexplained_ratio: float
    within_tolerance: bool


class KeptList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/reconciliations`."""

    rows: tuple[KeptView, ...]


class ReconciliationController(Controller):
    """`/api/v1/reconciliations`."""

    path = "/api/v1/reconciliations"
    tags: Sequence[str] | None = ("reconciliation",)

    @post(
        "/",
        **needs(Scope.EXPORTS, 413),
        status_code=200,
        operation_class=documented(PARAMS, body=BINARY),
    )
    async def reconcile(self, request: ApiRequest, services: Injected) -> ReconciliationReport:
        """Explain the difference between the bill in the body and the ledger; changes nothing.

        With `record=yes` the report is kept. A bill above 4 MiB, or 32 MiB unpacked, goes
        through the command line.
        """
        given = p.read(request.query_params.multi_items(), params=PARAMS)
        provider = p.one(given, "provider")
        if not provider:
            raise InvalidInputError("provider", "missing", "Say whose bill it is")
        body = await request.body()
        return await asyncio.to_thread(_run, request, services, given=given, body=body)

    @get("/", **needs(Scope.COSTS_READ), sync_to_thread=True)
    def kept(self, request: ApiRequest, services: Injected) -> KeptList:
        """List the newest kept reports of the caller's tenants."""
        found = services.reconciliations.kept(limit=MAX_LISTED)
        return KeptList(tuple(_listed(one) for one in found if _may_see(request, one)))

    @get("/{report_id:str}", **needs(Scope.COSTS_READ, 404), sync_to_thread=True)
    def report(
        self, request: ApiRequest, report_id: FromPath[str], services: Injected
    ) -> ReconciliationReport:
        """Answer a kept report whole."""
        for one in services.reconciliations.kept(limit=MAX_LISTED):
            if one.id == report_id and _may_see(request, one):
                return msgspec.json.decode(one.body, type=ReconciliationReport)
        raise NotFoundError("reconciliation", report_id)


def _run(
    request: ApiRequest, services: Services, *, given: p.Given, body: bytes
) -> ReconciliationReport:
    tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
    upload = BillUpload(
        body=body,
        name=p.one(given, "name", "bill.json") or "bill.json",
        provider=p.one(given, "provider") or "",
        source=p.one(given, "format"),
        mapping=",".join(given["map"]) if "map" in given else None,
        zone=p.zone(given, "UTC"),
        tenants=tenants,
        tolerance_percent=p.one(given, "tolerance_percent", "0.5") or "",
        tolerance_usd=p.one(given, "tolerance_usd", "1") or "",
    )
    report = services.reconcile_bill(upload)
    if p.one(given, "record") == "yes":
        services.reconciliations.keep(
            KeptReconciliation(
                id=services.ids.new("rec"),
                tenants=tenants,
                provider=report.provider,
                start=report.start,
                end=report.end,
                recorded_at=services.clock.now(),
                body=msgspec.json.encode(report).decode(),
            )
        )
    return report


def _may_see(request: ApiRequest, one: KeptReconciliation) -> bool:
    return all(request.user.may_see(tenant) for tenant in one.tenants)


def _listed(one: KeptReconciliation) -> KeptView:
    told: dict[str, Any] = msgspec.json.decode(one.body)
    return KeptView(
        id=one.id,
        provider=one.provider,
        tenants=one.tenants,
        start=one.start,
        end=one.end,
        recorded_at=one.recorded_at,
        **{
            name: told[name]
            for name in (
                "billed_usd",
                "ledger_usd",
                "difference_usd",
                "classes",
                "unexplained_ratio",
                "within_tolerance",
            )
        },
    )
