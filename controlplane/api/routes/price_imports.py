"""Price lists over HTTP: compared, shown with the calls they move, and recorded when accepted."""

import asyncio
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final

import msgspec
from litestar import Controller, get, post

from controlplane.api import params as p
from controlplane.api.describe import BINARY, documented
from controlplane.api.guards import ApiRequest, Injected, needs
from controlplane.api.services import Services
from controlplane.auth.roles import Scope
from controlplane.core.calendar import Window
from controlplane.core.errors import ConflictError, InvalidInputError
from controlplane.pipelines.import_prices import (
    CANDIDATE,
    ImportAnswer,
    OfferedPrices,
    PlannedImport,
    PriceFormat,
    candidate_book,
    import_answer,
    plan_import,
    preview_calls,
)
from controlplane.pipelines.rerate_answer import RerateAnswer, to_answer
from controlplane.pricing.history import PriceEntry, append_next, version_name
from controlplane.pricing.rerate import RerateOrder
from controlplane.signals.queries import CallQuery

DEFAULT_WINDOW: Final = timedelta(days=30)
MAX_WINDOW: Final = timedelta(days=93)
MAX_LISTED: Final = 200
FORMAT: Final = p.Param(
    "format", "What the file is", choices=tuple(one.value for one in PriceFormat)
)
EFFECTIVE: Final = p.Param(
    "effective", "First UTC day of prices without a date; default today", "2026-12-01"
)
ACCEPT: Final = p.Param(
    "accept", "`review` of the answer that was reviewed: records exactly that, or nothing"
)
PARAMS: Final = (FORMAT, EFFECTIVE, ACCEPT, p.START, p.END)


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """A version of the price book: who appended what when."""

    version: str
    recorded_at: datetime
    source: str
    note: str
    recorded_by: str


class VersionList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/prices/versions`, newest first."""

    rows: tuple[VersionView, ...]


class PriceImportController(Controller):
    """`/api/v1/prices/imports` and `/versions`."""

    path = "/api/v1/prices"
    tags: Sequence[str] | None = ("prices",)

    @get("/versions", **needs(Scope.PRICES_READ, operator=True), sync_to_thread=True)
    def versions(self, services: Injected) -> VersionList:
        """List the versions of the price book, newest first."""
        return VersionList(
            tuple(
                VersionView(
                    version=version_name(one.version),
                    recorded_at=one.recorded_at,
                    source=one.source,
                    note=one.note,
                    recorded_by=one.recorded_by,
                )
                for one in services.price_history.versions(limit=MAX_LISTED)
            )
        )

    @post(
        "/imports",
        **needs(Scope.PRICES_WRITE, 409, 413, operator=True),
        status_code=200,
        operation_class=documented(PARAMS, body=BINARY),
    )
    async def import_prices(self, request: ApiRequest, services: Injected) -> ImportAnswer:
        """Compare the price file in the body with the book; with `accept` record what was reviewed.

        The answer lists every rate that changes and what the stored calls of the window (default
        the last 30 days) would cost. An empty body with `genai-prices` is the data set that came
        with the program. 409 where the book or the file is another than the one reviewed.
        """
        given = p.read(request.query_params.multi_items(), params=PARAMS)
        body = await request.body()
        return await asyncio.to_thread(_run, request, services, given=given, body=body)


def _run(request: ApiRequest, services: Services, *, given: p.Given, body: bytes) -> ImportAnswer:
    now = services.clock.now()
    base = services.price_history.latest()
    known = services.price_history.entries(base)
    offered = OfferedPrices(
        format=_format(given), body=body or None, effective=_effective(given, now)
    )
    planned = plan_import(offered, known, base_version=base)
    accepted = p.one(given, "accept")
    if accepted is None:
        calls = _moved(services, planned, known=known, window=_window(given, now))
        return import_answer(planned, version=None, calls=calls, calls_note=None)
    if accepted != planned.review:
        raise ConflictError(
            f"{accepted} is not what this file changes of {version_name(base)}. Review it again"
        )
    version = None
    if planned.entries:
        version = append_next(
            services.price_history,
            planned.entries,
            source=planned.source,
            note=f"import, review {planned.review}",
            by=request.user.id,
            now=now,
        )
    return import_answer(planned, version=version, calls=None, calls_note="shown when reviewed")


def _moved(
    services: Services, planned: PlannedImport, *, known: list[PriceEntry], window: Window
) -> RerateAnswer:
    order = RerateOrder(run_id=CANDIDATE, window=window, price_version=CANDIDATE)
    query = CallQuery(tenants=services.reader.tenants(), window=window)
    book = candidate_book(planned, known)
    return to_answer(preview_calls(services.reader.call_batches(query), order, book))


def _format(given: p.Given) -> PriceFormat:
    said = p.one(given, "format")
    if said is None:
        raise InvalidInputError("format", "missing", "As in format=litellm")
    return PriceFormat(said)


def _effective(given: p.Given, now: datetime) -> date:
    said = p.one(given, "effective")
    try:
        return date.fromisoformat(said) if said else now.date()
    except ValueError:
        raise InvalidInputError("effective", f"{said!r}", "A day like 2026-12-01") from None


def _window(given: p.Given, now: datetime) -> Window:
    start, end = (p.one(given, name) for name in ("start", "end"))
    until = p.instant("end", end) if end else now
    since = p.instant("start", start) if start else until - DEFAULT_WINDOW
    if not timedelta() < until - since <= MAX_WINDOW:
        raise InvalidInputError("end", f"is not within {MAX_WINDOW.days} days after start")
    return Window(since, until)
