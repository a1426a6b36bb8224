"""One call in full, and what people and judges say about it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody

from controlplane.api import params as p
from controlplane.api.call_views import event_view, report_view
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.tables import for_people, rfc3339
from controlplane.auth.principal import Principal
from controlplane.auth.roles import Scope
from controlplane.core.errors import ForbiddenError, InvalidInputError, NotFoundError
from controlplane.pipelines.scores import Score, write_score
from controlplane.signals.attach import events_of_call
from controlplane.signals.queries import TraceQuery
from controlplane.signals.samples import EventKind

CREATED: Final = 201


class ScoreOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A score of one call, named by its trace (and span) or by the provider's response id.

    `id` is the caller's own: a score that is sent again with it is the same score.
    """

    name: str
    kind: Literal["evaluation", "feedback"] = "feedback"
    score: float | None = None
    label: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    response_id: str | None = None
    id: str | None = None
    at: datetime | None = None
    tenant: str | None = None


class ScoreView(msgspec.Struct, frozen=True):
    """What was kept; `is_new` is false for a score that was there."""

    id: str
    tenant: str
    is_new: bool


class ScoreController(Controller):
    """`/api/v1/scores` and `/api/v1/calls/{call_id}`."""

    path = "/api/v1"
    tags: Sequence[str] | None = ("calls",)

    @post("/scores", **needs(Scope.SCORES_WRITE), status_code=CREATED, sync_to_thread=True)
    def score(
        self, request: ApiRequest, services: Injected, data: JSONBody[ScoreOrder]
    ) -> ScoreView:
        """Keep a score durably; it attaches to its call whenever that arrives."""
        now = services.clock.now()
        if data.at is not None and data.at.tzinfo is None:
            raise InvalidInputError("at", "has no zone", 'End it with "Z"')
        score = Score(
            kind=EventKind(data.kind),
            name=data.name,
            score=data.score,
            label=data.label,
            trace_id=data.trace_id,
            span_id=data.span_id,
            response_id=data.response_id,
            id=data.id or services.ids.new("score"),
            time=data.at or now,
        )
        tenant = _tenant(request.user, data.tenant)
        is_new = write_score(score, services.signal_writer, tenant=tenant, author=request.user.id)
        return ScoreView(score.id, tenant, is_new)

    @get(
        "/calls/{call_id:str}",
        **needs(Scope.CALLS_READ, 404),
        sync_to_thread=True,
        operation_class=documented(),
    )
    def call(
        self, request: ApiRequest, services: Injected, call_id: FromPath[str]
    ) -> Response[bytes]:
        """Answer a call with the reports that do not bill it, and its scores and guardrails."""
        p.read(request.query_params.multi_items(), params=())
        tenants = tenants_of(request, services)
        found = services.reader.call(tenants, call_id)
        if not found.num_rows:
            raise NotFoundError("call", call_id)
        (call,) = found.to_pylist()
        reports = services.reader.suppressed([call_id]).to_pylist()
        trace = (call["trace_hi"], call["trace_lo"])
        traces = sorted({trace, *((r["trace_hi"], r["trace_lo"]) for r in reports)})
        names = [call["response_id"]] if call["response_id"] else []
        events = services.signals.trace_events(tenants, traces, names).to_pylist()
        others = services.reader.trace(
            TraceQuery(tenants=tenants, trace_hi=trace[0], trace_lo=trace[1])
        )
        is_alone = set(others.column("call_id").to_pylist()) <= {None, call_id}
        chosen = events_of_call(call, reports, events, is_alone_in_trace=is_alone)
        body: dict[str, Any] = {
            "call": _plain(for_people(found).to_pylist()[0]),
            "suppressed": [report_view(report) for report in reports],
            "events": [event_view(event) for event in chosen],
            "gpu": [
                _plain(row)
                for row in for_people(services.gpu.store.call_cost(tenants, call_id)).to_pylist()
            ],
        }
        return Response(msgspec.json.encode(body), media_type="application/json")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (
            str(value)
            if name.endswith("_nusd") and value is not None
            else rfc3339(value)
            if isinstance(value, datetime)
            else value
        )
        for name, value in row.items()
    }


def _tenant(who: Principal, wanted: str | None) -> str:
    """Choose whose score it is: the one named, else the key's only one."""
    if wanted is not None:
        if not who.may_see(wanted):
            raise ForbiddenError(f"access to the tenant {wanted!r}")
        return wanted
    if len(who.tenants) == 1:
        return who.tenants[0]
    raise InvalidInputError("tenant", "missing", "Name one: this key has several")
