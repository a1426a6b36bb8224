"""Unit economics: what one of something costs, and how concentrated cost is."""

import csv
import io
from collections.abc import Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Final

import msgspec
import pyarrow as pa
from litestar import Controller, Response, get, put
from litestar.params import JSONBody

from controlplane.api import params as p
from controlplane.api.describe import TABLE, documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.routes.costs import cost_query
from controlplane.api.tables import respond, rfc3339
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError
from controlplane.core.money import format_usd
from controlplane.pipelines.price_basis import basis_of
from controlplane.pipelines.unit_costs import (
    BusinessFigure,
    group_costs,
    local_days,
    unit_costs,
)
from controlplane.signals.queries import MAX_CHART_ROWS, CostQuery
from controlplane.usage.dimensions import BY_NAME
from controlplane.usage.unit_cost import Figure, concentration, metric_days

DIMENSIONS: Final = ("customer", "user", "api_key", "team", "feature", "project", "model")
OF: Final = p.Param("dimension", "Whose cost is compared; default customer", choices=DIMENSIONS)
NAME: Final = p.Param("name", "Name of the metric", "orders")
MAX_POINTS: Final = 10_000
MAX_NAME: Final = 100
MAX_VALUE: Final = Decimal(10) ** 15


class MetricPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value of one day; `value` is a decimal, as text or a number."""

    day: date
    value: str | int


class MetricOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Values of a business metric: `points`, or `csv` with a `day,value` line each."""

    tenant: str
    name: str
    points: tuple[MetricPoint, ...] = ()
    csv: str | None = None


class MetricView(msgspec.Struct, frozen=True):
    """What was kept."""

    tenant: str
    name: str
    days: int


class UnitCostController(Controller):
    """`/api/v1/unit-costs`, `/concentration` and `/business-metrics`."""

    path = "/api/v1"
    tags: Sequence[str] | None = ("costs",)

    @get(
        "/unit-costs",
        **needs(Scope.COSTS_READ, 413),
        sync_to_thread=True,
        operation_class=documented(p.WINDOW, filtered=True, answer=TABLE),
    )
    def unit_costs(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer cost per request, million tokens, active user, customer, feature, outcome, GPU hour.

        And per unit of every uploaded business metric. Each row has its numerator (`cost`), its
        `denominator` (a decimal as text) and `unit_cost`, null where the denominator is 0 or not
        known (`reason`). Both are of calls whose cost is known. `gpu_hour` is of the nodes of pools
        where all of them are asked about, else of calls that are priced by GPU time. A metric's
        `gap_days` are days without a value, which are in neither side; nothing is interpolated.
        """
        given = _given(request, p.WINDOW)
        query = _asked(request, services, given)
        whole = request.user.all_tenants and "tenant" not in given and not query.filters
        found = unit_costs(
            services.reader, services.metrics, query, pools=services.gpu if whole else None
        )
        rows = [_row(one) for one in found.figures]
        rows += [_business_row(one) for one in found.business]
        meta = {
            **_window(query),
            "currency": "USD",
            "basis": basis_of(services.reader, services.price_history, query),
            "unpriced_calls": found.unpriced_calls,
            "unpriced_tokens": found.unpriced_tokens,
        }
        return respond(request, pa.Table.from_pylist(rows, schema=_SCHEMA), meta=meta)

    @get(
        "/concentration",
        **needs(Scope.COSTS_READ, 413),
        sync_to_thread=True,
        operation_class=documented((*p.WINDOW, OF), filtered=True, answer=TABLE),
    )
    def concentration(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer how cost is spread over the values of a dimension, the dearest first.

        `meta` has `groups`, `gini`, and how many groups make 50 and 80 percent of the cost
        (`half_groups`, `most_groups`); `curve` is (groups, cost) pairs. At most 5,000 rows are
        listed; `meta` is of all of them.
        """
        given = _given(request, (*p.WINDOW, OF))
        query = _asked(request, services, given)
        name = p.one(given, "dimension", "customer") or "customer"
        groups = group_costs(services.reader, query, name)
        measured = concentration([max(0, cost) for _, cost in groups])
        shown = groups[:MAX_CHART_ROWS]
        table = pa.table(
            {
                "rank": pa.array(range(1, len(shown) + 1), pa.int64()),
                name: pa.array([value for value, _ in shown], pa.string()),
                "cost_nusd": pa.array([cost for _, cost in shown], pa.int64()),
            }
        )
        meta = {
            **_window(query),
            "currency": "USD",
            "dimension": name,
            "groups": measured.groups,
            "cost_usd": format_usd(measured.cost_nusd),
            "gini": None if measured.gini is None else round(measured.gini, 6),
            "half_groups": measured.half,
            "most_groups": measured.most,
            "curve": [
                {"groups": count, "cost_usd": format_usd(cost)} for count, cost in measured.curve
            ],
        }
        return respond(request, table, meta=meta)

    @put("/business-metrics", **needs(Scope.BUSINESS_WRITE), sync_to_thread=True)
    def put_metric(
        self, request: ApiRequest, data: JSONBody[MetricOrder], services: Injected
    ) -> MetricView:
        """Keep values of a business metric by day, in place of those that the days had."""
        (tenant,) = tenants_of(request, services, wanted=(data.tenant,))
        if not 0 < len(data.name) <= MAX_NAME:
            raise InvalidInputError("name", f"has {len(data.name)} characters", "Give 1 to 100")
        values = {point.day: _value(str(point.value)) for point in _points(data)}
        services.metrics.put_metric(tenant, data.name, values, now=services.clock.now())
        return MetricView(tenant, data.name, len(values))

    @get(
        "/business-metrics",
        **needs(Scope.COSTS_READ),
        sync_to_thread=True,
        operation_class=documented((*p.WINDOW, NAME), answer=TABLE),
    )
    def metrics(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer the uploaded metrics by day; a day without a value is null, a gap."""
        given = p.read(request.query_params.multi_items(), params=(*p.WINDOW, NAME))
        query = _asked(request, services, given)
        touched = local_days(query.window, query.zone)
        wanted = p.one(given, "name")
        rows = [
            {"tenant": tenant, "name": name, "day": one.day.isoformat(), "value": _text(one.value)}
            for tenant, name in services.metrics.metric_names(query.tenants)
            if wanted in {None, name}
            for one in metric_days(services.metrics.metric(tenant, name, days=touched), touched)
        ]
        names = ("tenant", "name", "day", "value")
        fields: list[tuple[str, pa.DataType]] = [(column, pa.string()) for column in names]
        schema = pa.schema(fields)
        return respond(request, pa.Table.from_pylist(rows, schema=schema), meta=_window(query))


_FIELDS: Final[list[tuple[str, pa.DataType]]] = [
    ("figure", pa.string()),
    ("tenant", pa.string()),
    ("is_business", pa.bool_()),
    ("cost_nusd", pa.int64()),
    ("denominator", pa.string()),
    ("unit_cost_nusd", pa.int64()),
    ("gap_days", pa.int64()),
    ("reason", pa.string()),
]
_SCHEMA: Final = pa.schema(_FIELDS)


def _given(request: ApiRequest, params: Sequence[p.Param]) -> p.Given:
    return p.read(request.query_params.multi_items(), params=params, dimensions=tuple(BY_NAME))


def _asked(request: ApiRequest, services: Injected, given: p.Given) -> CostQuery:
    tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
    return cost_query(given, tenants=tenants, now=services.clock.now(), services=services)


def _window(query: CostQuery) -> dict[str, Any]:
    return {
        "start": rfc3339(query.window.start),
        "end": rfc3339(query.window.end),
        "zone": query.zone,
        "tenants": list(query.tenants),
    }


def _row(one: Figure) -> dict[str, Any]:
    return {
        "figure": one.name,
        "is_business": False,
        "cost_nusd": one.cost_nusd,
        "denominator": _fraction(one.denominator),
        "unit_cost_nusd": one.unit_cost_nusd,
        "reason": one.reason,
    }


def _business_row(one: BusinessFigure) -> dict[str, Any]:
    gaps = sum(day.value is None for day in one.days)
    return {**_row(one.figure), "is_business": True, "tenant": one.tenant, "gap_days": gaps}


def _fraction(value: Fraction | None) -> str | None:
    """Write a denominator with at most six decimals, for display."""
    if value is None:
        return None
    text = f"{Decimal(value.numerator) / Decimal(value.denominator):.6f}"
    return text.rstrip("0").rstrip(".")


def _text(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")


def _points(order: MetricOrder) -> list[MetricPoint]:
    if order.csv is not None and order.points:
        raise InvalidInputError("csv", "given together with points", "Use one form")
    points = list(order.points) if order.csv is None else _from_csv(order.csv)
    if not 0 < len(points) <= MAX_POINTS:
        raise InvalidInputError("points", f"{len(points)} of them", f"Give 1 to {MAX_POINTS}")
    return points


def _from_csv(text: str) -> list[MetricPoint]:
    points = []
    for number, row in enumerate(csv.reader(io.StringIO(text.strip())), start=1):
        if number == 1 and [cell.strip().lower() for cell in row] == ["day", "value"]:
            continue
        try:
            day, value = row
            points.append(MetricPoint(date.fromisoformat(day.strip()), value.strip()))
        except ValueError:
            raise InvalidInputError(
                "csv", f"line {number} is no day,value", 'Write "2026-11-25,1200"'
            ) from None
    return points


def _value(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise InvalidInputError("points", f"{text!r} is no decimal", 'Write "1200"') from None
    if not value.is_finite() or not 0 <= value <= MAX_VALUE:
        raise InvalidInputError("points", f"{text!r} is out of range", "Give 0 or more")
    return value
