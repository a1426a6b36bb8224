"""Calls and the spans of one trace."""

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import pyarrow as pa
from litestar import Controller, Response, get
from litestar.params import FromPath

from controlplane.api import params as p
from controlplane.api.content_views import content_meta, content_rows
from controlplane.api.describe import TABLE, documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.services import Services
from controlplane.api.tables import respond, rfc3339
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError, NotFoundError
from controlplane.core.money import format_usd
from controlplane.pipelines.price_basis import basis_in
from controlplane.signals.hex_ids import parse_trace_hex
from controlplane.signals.queries import MAX_PAGE_ROWS, CallQuery, TraceQuery
from controlplane.usage.dimensions import BY_NAME

DEFAULT_PAGE_ROWS: Final = 100
PARAMS: Final = (*p.WINDOW, p.LIMIT, p.CURSOR)


class CallController(Controller):
    """`/api/v1/calls` and `/api/v1/traces`."""

    path = "/api/v1"
    tags: Sequence[str] | None = ("calls",)

    @get(
        "/calls",
        **needs(Scope.CALLS_READ),
        sync_to_thread=True,
        operation_class=documented(PARAMS, filtered=True, answer=TABLE),
    )
    def calls(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """List calls of a window, newest first; `meta.next_cursor` is null on the last page."""
        given = p.read(request.query_params.multi_items(), params=PARAMS, dimensions=tuple(BY_NAME))
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        limit = p.whole(given, "limit", default=DEFAULT_PAGE_ROWS, most=MAX_PAGE_ROWS)
        zone = p.zone(given, services.zone)
        window = p.window(given, now=services.clock.now(), in_zone=zone)
        table = services.reader.calls(
            CallQuery(
                tenants=tenants,
                window=window,
                filters=p.filters(given),
                before=read_cursor(p.one(given, "cursor")),
                limit=limit,
            )
        )
        meta = {
            "start": rfc3339(window.start),
            "end": rfc3339(window.end),
            "zone": zone,
            "tenants": list(tenants),
            "limit": limit,
            "next_cursor": _next_cursor(table) if table.num_rows == limit else None,
        }
        return respond(request, table, meta=meta)

    @get(
        "/traces/{trace_id:str}",
        **needs(Scope.CALLS_READ, 404),
        sync_to_thread=True,
        operation_class=documented(answer=TABLE),
    )
    def trace(
        self, request: ApiRequest, services: Injected, trace_id: FromPath[str]
    ) -> Response[bytes]:
        """Answer every span of a trace in start order, with what it cost or why it does not bill.

        `meta.cost_usd` sums the billing reports only.
        """
        table = services.reader.trace(_trace_query(request, services, trace_id))
        if not table.num_rows:
            raise NotFoundError("trace", trace_id)
        return respond(request, table, meta=_trace_meta(trace_id, table))

    @get(
        "/traces/{trace_id:str}/content",
        **needs(Scope.CONTENT_READ),
        sync_to_thread=True,
        operation_class=documented(answer=TABLE),
    )
    def content(
        self, request: ApiRequest, services: Injected, trace_id: FromPath[str]
    ) -> Response[bytes]:
        """Answer what was recorded of a trace's calls, redacted; empty where nothing is recorded.

        `redactions` names what was taken out of a text, `meta.capture` whether anything is recorded.
        """
        asked = _trace_query(request, services, trace_id)
        told = services.recording
        rows = content_rows(services.contents.content(asked), told, now=services.clock.now())
        return respond(request, rows, meta=content_meta(trace_id, rows, told))


def _trace_query(request: ApiRequest, services: Services, trace_id: str) -> TraceQuery:
    """Read which trace is asked for, of the tenants that the asker may see."""
    p.read(request.query_params.multi_items(), params=())
    try:
        high, low = parse_trace_hex(trace_id)
    except ValueError:
        raise InvalidInputError(
            "trace_id", f"{trace_id[:64]!r} is no trace id", "Write 32 hex digits"
        ) from None
    return TraceQuery(tenants=tenants_of(request, services), trace_hi=high, trace_lo=low)


def _trace_meta(trace_id: str, table: pa.Table) -> dict[str, Any]:
    billed = 0
    unpriced = 0
    prices: list[str | None] = []
    rows = zip(
        table["report_kind"].to_pylist(),
        table["suppressed_reason"].to_pylist(),
        table["cost_nusd"].to_pylist(),
        table["price_id"].to_pylist(),
        strict=True,
    )
    for kind, suppressed, nusd, price_id in rows:
        if kind == "call" and suppressed is None:
            billed += nusd or 0
            prices.append(price_id)
            unpriced += nusd is None
    return {
        "trace_id": trace_id,
        "spans": table.num_rows,
        "cost_usd": format_usd(billed),
        "cost_nusd": str(billed),
        "unpriced_calls": unpriced,
        "currency": "USD",
        "basis": basis_in(prices),
    }


class _Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    start_time: datetime
    call_id: str


def _next_cursor(table: pa.Table) -> str:
    last = table.num_rows - 1
    cursor = _Cursor(table["start_time"][last].as_py(), table["call_id"][last].as_py())
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def read_cursor(text: str | None) -> tuple[datetime, str] | None:
    """Read a page's cursor.

    Raises:
        InvalidInputError: not one of ours.
    """
    if text is None:
        return None
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        cursor = msgspec.json.decode(base64.b64decode(padded, b"-_", validate=True), type=_Cursor)
    except (binascii.Error, UnicodeError, msgspec.MsgspecError):
        raise InvalidInputError(
            "cursor", "not a cursor of ours", "Pass `meta.next_cursor` unchanged"
        ) from None
    if cursor.start_time.tzinfo is None:
        raise InvalidInputError("cursor", "not a cursor of ours")
    return cursor.start_time, cursor.call_id
