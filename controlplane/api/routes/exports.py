"""Signed exports: ask, watch, download."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody

from controlplane.api import params as p
from controlplane.api.describe import BINARY, documented
from controlplane.api.exports import ID_PREFIX, Job, JobState
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.services import Services
from controlplane.auth.roles import Scope
from controlplane.core.calendar import Period
from controlplane.core.errors import NotFoundError
from controlplane.exports.sharing import SharedRule
from controlplane.pipelines.export_request import ExportRequest, check_request
from controlplane.pricing.currency import USD

ACCEPTED: Final = 202


class ExportOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to export over a window: `traces` or `calls` (one row each), `focus` or `statement`.

    `charge_period` (hour or day) and `currency` are of a FOCUS export; `by`, `owner` and `shared`
    are of statements, and `shares` (owner: weight) of those whose `shared` is `fixed`. `idle` and
    `idle_shares` are the same of the idle GPU time that the tenant bears.
    """

    tenant: str
    kind: str = "traces"
    format: str = "parquet"
    charge_period: Period = Period.DAY
    currency: str = USD
    by: str = "team"
    owner: str | None = None
    shared: SharedRule = SharedRule.NONE
    shares: dict[str, int] = {}
    idle: SharedRule = SharedRule.NONE
    idle_shares: dict[str, int] = {}
    start: str | None = None
    end: str | None = None
    range: str | None = None
    zone: str | None = None


class ExportView(msgspec.Struct, frozen=True):
    """An export as its asker sees it; `files` are there once it is done."""

    id: str
    tenant: str
    state: JobState
    created_at: datetime
    rows: int | None
    error: str | None
    files: tuple[str, ...]


class ExportController(Controller):
    """`/api/v1/exports`."""

    path = "/api/v1/exports"
    tags: Sequence[str] | None = ("exports",)

    @post("/", **needs(Scope.EXPORTS, 413), status_code=ACCEPTED, sync_to_thread=True)
    def start(
        self, request: ApiRequest, data: JSONBody[ExportOrder], services: Injected
    ) -> ExportView:
        """Start an export of one tenant's calls or charges with a signed manifest."""
        (tenant,) = tenants_of(request, services, wanted=(data.tenant,))
        given = {
            name: (value,)
            for name in ("start", "end", "range", "zone")
            if (value := getattr(data, name)) is not None
        }
        now = services.clock.now()
        zone = p.zone(given, services.zone)
        window = p.window(given, now=now, in_zone=zone, calendar=services.calendar)
        wanted = ExportRequest(
            tenant=tenant,
            window=window,
            kind=data.kind,
            file_format=data.format,
            charge_period=data.charge_period,
            currency=data.currency.upper(),
            by=data.by,
            owner=data.owner,
            shared_rule=data.shared,
            shares=data.shares,
            idle_rule=data.idle,
            idle_shares=data.idle_shares,
            zone=zone,
            calendar=services.calendar,
        )
        check_request(wanted)
        job = services.exports.start(
            wanted,
            job_id=services.ids.new(ID_PREFIX),
            asked_by=request.user.id,
            now=now,
        )
        return _to_wire(job)

    @get("/{export_id:str}", **needs(Scope.EXPORTS, 404), sync_to_thread=True)
    def export(
        self, request: ApiRequest, export_id: FromPath[str], services: Injected
    ) -> ExportView:
        """Answer how far an export is."""
        return _to_wire(_visible(request, services, export_id))

    @get(
        "/{export_id:str}/files/{name:str}",
        **needs(Scope.EXPORTS, 404),
        sync_to_thread=True,
        operation_class=documented(answer=BINARY),
    )
    def download(
        self,
        request: ApiRequest,
        *,
        export_id: FromPath[str],
        name: FromPath[str],
        services: Injected,
    ) -> Response[bytes]:
        """Answer one file of a finished export."""
        job = _visible(request, services, export_id)
        body = services.exports.read(job, name)
        return Response(
            body,
            media_type="application/octet-stream",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )


def _visible(request: ApiRequest, services: Services, export_id: str) -> Job:
    """Return the job, if its tenant is the caller's; else it does not exist."""
    job = services.exports.job(export_id)
    if not request.user.may_see(job.tenant):
        raise NotFoundError("export", export_id)
    return job


def _to_wire(job: Job) -> ExportView:
    rows = None if job.manifest is None else sum(entry.rows for entry in job.manifest.files)
    return ExportView(
        id=job.id,
        tenant=job.tenant,
        state=job.state,
        created_at=job.created_at,
        rows=rows,
        error=job.error,
        files=job.files(),
    )
