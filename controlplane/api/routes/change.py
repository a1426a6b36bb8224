"""Why cost moved between two windows."""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
from litestar import Controller, Response, get

from controlplane.api import params as p
from controlplane.api.describe import TABLE, documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.ranges import COMPARED, compared
from controlplane.api.routes.costs import check_window, cost_query
from controlplane.api.tables import respond, rfc3339
from controlplane.auth.roles import Scope
from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError, LimitExceededError
from controlplane.core.money import format_usd
from controlplane.pipelines.explain_change import explain_change
from controlplane.signals.queries import MAX_CHART_ROWS
from controlplane.usage.change import TERMS, Change, total_of
from controlplane.usage.dimensions import BY_NAME

PARAMS: Final = (
    *p.WINDOW,
    p.Param("group_by", "At most 3 dimensions; without one all calls are one group", repeats=True),
    p.Param("compare", "Which window is before; default previous", choices=COMPARED),
    p.Param("before_start", "Instead of compare: first instant of the window before, RFC 3339"),
    p.Param("before_end", "Instead of compare: first instant after the window before"),
)


class ChangeController(Controller):
    """`/api/v1/costs/change`."""

    path = "/api/v1/costs/change"
    tags: Sequence[str] | None = ("costs",)

    @get(
        "/",
        **needs(Scope.COSTS_READ, 413),
        sync_to_thread=True,
        operation_class=documented(PARAMS, filtered=True, answer=TABLE),
    )
    def change(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Explain the change of cost against another window, per group.

        Rows have the group-by columns, `before`, `after`, `change`, calls of both windows (of them
        unpriced: their cost is in no amount), and the terms, which sum to the change to the nano-dollar; `meta.totals` sums all rows and
        `meta.steps` is the walk over its terms. Groups are in the order of their change. Duplicates are looked for in windows of at most 31 days.
        """
        given = p.read(request.query_params.multi_items(), params=PARAMS, dimensions=tuple(BY_NAME))
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        query = cost_query(given, tenants=tenants, now=services.clock.now(), services=services)
        before = _before(given, query.window, zone=query.zone)
        check_window(before, query.granularity, prefix="before_")
        explained = explain_change(services.reader, services.prices, query, before=before)
        if len(explained.changes) > MAX_CHART_ROWS:
            raise LimitExceededError("groups", MAX_CHART_ROWS, len(explained.changes))
        meta = {
            "start": rfc3339(query.window.start),
            "end": rfc3339(query.window.end),
            "before_start": rfc3339(before.start),
            "before_end": rfc3339(before.end),
            "zone": query.zone,
            "group_by": list(query.group_by),
            "tenants": list(tenants),
            "currency": "USD",
            "terms": list(TERMS),
            "duplicates_sought": explained.duplicates_sought,
            "totals": _spoken(total_of(explained.changes)),
            "steps": _steps(total_of(explained.changes)),
        }
        return respond(request, _table(explained.changes, query.group_by), meta=meta)


def _before(given: p.Given, window: Window, *, zone: str) -> Window:
    start, end = p.one(given, "before_start"), p.one(given, "before_end")
    if start is None and end is None:
        return compared(p.one(given, "compare", COMPARED[0]) or COMPARED[0], window, zone=zone)
    if "compare" in given:
        raise InvalidInputError("compare", "given together with before_start", "Use one form")
    if start is None or end is None:
        missing = "before_start" if start is None else "before_end"
        raise InvalidInputError(missing, "missing", "Give before_start and before_end, or compare")
    before = Window(p.instant("before_start", start), p.instant("before_end", end))
    if before.start >= before.end:
        raise InvalidInputError("before_end", "not after before_start", "Windows are [start, end)")
    return before


def _row(change: Change) -> dict[str, int]:
    return {
        "before_nusd": change.before_nusd,
        "after_nusd": change.after_nusd,
        "change_nusd": change.after_nusd - change.before_nusd,
        **{f"{term}_nusd": change.terms[term] for term in TERMS},
        "calls_before": change.calls_before,
        "calls_after": change.calls_after,
        "unpriced_before": change.unpriced_before,
        "unpriced_after": change.unpriced_after,
    }


def _table(changes: Sequence[Change], group_by: tuple[str, ...]) -> pa.Table:
    empty = Change(
        group=(), before_nusd=0, after_nusd=0, calls_before=0, calls_after=0,
        terms=dict.fromkeys(TERMS, 0),
    )  # fmt: skip
    columns: dict[str, Any] = {
        name: pa.array([change.group[at] for change in changes], pa.string())
        for at, name in enumerate(group_by)
    }
    for name in _row(empty):
        columns[name] = pa.array([_row(change)[name] for change in changes], pa.int64())
    return pa.table(columns)


def _steps(total: Change) -> list[dict[str, str]]:
    """Return where each term starts and ends on the way from before to after: a waterfall."""
    steps = []
    level = total.before_nusd
    for term in TERMS:
        reached = level + total.terms[term]
        steps.append(
            {"term": term, "start_usd": format_usd(level), "end_usd": format_usd(reached),
             "change_usd": format_usd(total.terms[term])}
        )  # fmt: skip
        level = reached
    return steps


def _spoken(total: Change) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name, value in _row(total).items():
        said[name] = str(value) if name.endswith("_nusd") else value
        if name.endswith("_nusd"):
            said[name.removesuffix("_nusd") + "_usd"] = format_usd(value)
    return said
