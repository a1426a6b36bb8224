"""Cost and usage over time and dimensions."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

import msgspec
import pyarrow as pa
from litestar import Controller, Response, get

from controlplane.api import params as p
from controlplane.api.describe import TABLE, documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.ranges import QUARTER_HOUR, align_up
from controlplane.api.services import Services
from controlplane.api.tables import respond, rfc3339
from controlplane.auth.roles import Scope
from controlplane.core.calendar import Period, Window, window_at
from controlplane.core.errors import InvalidInputError, LimitExceededError
from controlplane.core.fiscal import month_name
from controlplane.core.money import divide_half_even, format_usd
from controlplane.pipelines.gpu_idle import idle_lines
from controlplane.pipelines.price_basis import basis_of
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import MAX_CHART_ROWS, CostQuery, Granularity
from controlplane.usage.dimensions import BY_NAME, MEASURES, dimension

MAX_GROUP_BY: Final = 3
MAX_WIDTH: Final = {
    Granularity.QUARTER_HOUR: timedelta(days=32),
    Granularity.HOUR: timedelta(days=93),
    Granularity.DAY: timedelta(days=1_100),
    Granularity.WEEK: timedelta(days=1_100),
    Granularity.MONTH: timedelta(days=1_100),
    Granularity.QUARTER: timedelta(days=1_100),
    Granularity.YEAR: timedelta(days=1_100),
    Granularity.TOTAL: timedelta(days=1_100),
}
"""The widest window per granularity; above it the answer would be no chart (SE-24)."""
PARAMS: Final = (
    *p.WINDOW,
    p.Param(
        "granularity",
        "Width of a time bucket; weeks, months, quarters and years are the organisation's",
        "day",
        choices=tuple(granularity.value for granularity in Granularity),
    ),
    p.Param(
        "group_by",
        f"At most {MAX_GROUP_BY} dimensions, repeated or with commas",
        "team,model",
        repeats=True,
    ),
    p.Param("compare", "Also total the equally long window before", choices=("previous",)),
)


class CostController(Controller):
    """`/api/v1/costs`."""

    path = "/api/v1/costs"
    tags: Sequence[str] | None = ("costs",)

    @get(
        "/",
        **needs(Scope.COSTS_READ, 413),
        sync_to_thread=True,
        operation_class=documented(PARAMS, filtered=True, answer=TABLE),
    )
    def costs(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer cost and usage of a window, grouped and filtered by dimensions.

        Rows have `bucket_start` and `bucket_end` (unless granularity is total), the group-by columns
        (null is unattributed) and the measures; `meta.totals` sums them over the whole answer and
        `cost_usd` excludes `unpriced_calls`; of a row it is null where nothing is known. `meta.idle` is the idle time of GPU pools that no call
        carries, and both together; null where a filter is asked for. In USD;
        `meta.basis` is `list`, or `contracted` where a contract priced any of it.
        Cost that was booked in the window about a closed period is in all sums: rows grouped by
        `corrects` name its day, `meta.corrections` its month.
        """
        given = p.read(request.query_params.multi_items(), params=PARAMS, dimensions=tuple(BY_NAME))
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        query = cost_query(given, tenants=tenants, now=services.clock.now(), services=services)
        table = services.reader.costs(query)
        if table.num_rows > MAX_CHART_ROWS:
            raise LimitExceededError("rows of a cost answer", MAX_CHART_ROWS, table.num_rows)
        table = _with_ends(table, query)
        meta = _meta(query, table, services.reader.data_through(tenants))
        meta["basis"] = basis_of(services.reader, services.price_history, query)
        everyone = request.user.all_tenants and "tenant" not in given
        meta["idle"] = _idle(query, services, meta["totals"], everyone=everyone)
        meta["corrections"] = corrections_of(services.reader, query)
        if p.one(given, "compare"):
            meta["previous"] = _previous(query, services, now_nusd=totals(table)["cost_nusd"])
        return respond(request, _without_unknown(table), meta=meta)


def cost_query(
    given: p.Given, *, tenants: tuple[str, ...], now: datetime, services: Services
) -> CostQuery:
    """Read a cost question out of checked parameters.

    Raises:
        InvalidInputError: an unknown dimension, a window that is not aligned to quarter hours or
            too wide for its granularity.
    """
    zone = p.zone(given, services.zone)
    window = p.window(given, now=now, in_zone=zone, calendar=services.calendar)
    granularity = Granularity(p.one(given, "granularity", "total") or "total")
    check_window(window, granularity)
    return CostQuery(
        tenants=tenants,
        window=window,
        granularity=granularity,
        group_by=_group_by(given),
        filters=p.filters(given),
        zone=zone,
        calendar=services.calendar,
    )


def check_window(window: Window, granularity: Granularity, *, prefix: str = "") -> None:
    """Pass a window that cost answers can be given for; `prefix` is of its parameters' names.

    Raises:
        InvalidInputError: not aligned to quarter hours, or too wide for its granularity.
    """
    for name, at in (("start", window.start), ("end", window.end)):
        if align_up(at) != at:
            near = rfc3339(align_up(at) - QUARTER_HOUR)
            raise InvalidInputError(
                f"{prefix}{name}", "not on a quarter hour", f"Use {near} or the next"
            )
    if window.end - window.start > MAX_WIDTH[granularity]:
        most = MAX_WIDTH[granularity].days
        raise InvalidInputError(
            "granularity",
            f"{granularity.value} serves at most {most} days",
            "Use a coarser one or a shorter window",
        )


def _without_unknown(table: pa.Table) -> pa.Table:
    """Put null for a cost of which nothing is known: a sum of 0 beside unpriced calls."""
    rows = zip(table["cost_nusd"].to_pylist(), table["unpriced_calls"].to_pylist(), strict=True)
    known = [None if unpriced and not cost else cost for cost, unpriced in rows]
    at = table.column_names.index("cost_nusd")
    return table.set_column(at, "cost_nusd", pa.array(known, pa.int64()))


def _with_ends(table: pa.Table, query: CostQuery) -> pa.Table:
    """Say where each bucket ends, whole: only the organisation's calendar and zone can tell."""
    if query.granularity is Granularity.TOTAL:
        return table
    starts: list[Any] = table["bucket_start"].to_pylist()
    ends = {start: _bucket_end(start, query) for start in set(starts)}
    column = pa.array([ends[start] for start in starts], table["bucket_start"].type)
    return table.add_column(1, "bucket_end", column)


def _bucket_end(start: datetime, query: CostQuery) -> datetime:
    if query.granularity is Granularity.QUARTER_HOUR:
        return start + QUARTER_HOUR
    period = Period(query.granularity.value)
    return window_at(period, start, zone=query.zone, calendar=query.calendar).end


def corrections_of(reader: SpanReader, query: CostQuery) -> list[dict[str, str]]:
    """Say how much of a cost answer was booked in its window about which closed month."""
    if not reader.corrections(query.tenants, query.window).num_rows:
        return []
    total = msgspec.structs.replace(
        query, granularity=Granularity.TOTAL, group_by=("corrects",), buckets=()
    )
    months: dict[str, int] = {}
    for row in reader.costs(total).to_pylist():
        if row["corrects"] is not None:
            month = month_name(date.fromisoformat(row["corrects"]), query.calendar)
            months[month] = months.get(month, 0) + row["cost_nusd"]
    return [
        {"period": month, "cost_usd": format_usd(nusd), "cost_nusd": str(nusd)}
        for month, nusd in sorted(months.items())
        if nusd
    ]


def _group_by(given: p.Given) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(given.get("group_by", ())))
    for name in names:
        dimension(name)
    if len(names) > MAX_GROUP_BY:
        raise InvalidInputError("group_by", f"more than {MAX_GROUP_BY} dimensions")
    return names


def totals(table: pa.Table) -> dict[str, int]:
    """Sum the measures exactly, in Python integers beyond 64 bits."""
    return {name: _exact_sum(table[name]) for name in MEASURES if name in table.column_names}


def _exact_sum(column: "pa.ChunkedArray[Any]") -> int:
    return sum(value for value in column.to_pylist() if value is not None)


def _spoken(measures: dict[str, int]) -> dict[str, Any]:
    shown: dict[str, Any] = dict(measures)
    nusd = measures.get("cost_nusd", 0)
    shown["cost_usd"], shown["cost_nusd"] = format_usd(nusd), str(nusd)
    return shown


def _meta(query: CostQuery, table: pa.Table, data_through: datetime | None) -> dict[str, Any]:
    return {
        "start": rfc3339(query.window.start),
        "end": rfc3339(query.window.end),
        "zone": query.zone,
        "granularity": query.granularity.value,
        "group_by": list(query.group_by),
        "tenants": list(query.tenants),
        "currency": "USD",
        "data_through": None if data_through is None else rfc3339(data_through),
        "totals": _spoken(totals(table)),
    }


def _idle(
    query: CostQuery, services: Services, totals: dict[str, Any], *, everyone: bool
) -> dict[str, str] | None:
    """Say what idle GPU time the tenants bear; with it the calls' cost is the whole ledger."""
    if query.filters:
        return None
    lines = idle_lines(services.gpu, query.tenants, query.window, everyone=everyone)
    idle = sum(line.cost_nusd for line in lines)
    return {
        "cost_usd": format_usd(idle),
        "cost_nusd": str(idle),
        "with_calls_usd": format_usd(int(totals["cost_nusd"]) + idle),
    }


def _previous(query: CostQuery, services: Services, *, now_nusd: int) -> dict[str, Any]:
    """Total the window of equal length that ends where this one starts."""
    width = query.window.end - query.window.start
    before = Window(query.window.start - width, query.window.start)
    table = services.reader.costs(
        CostQuery(tenants=query.tenants, window=before, filters=query.filters, zone=query.zone)
    )
    was = totals(table)
    change = now_nusd - was.get("cost_nusd", 0)
    return {
        "start": rfc3339(before.start),
        "end": rfc3339(before.end),
        "totals": _spoken(was),
        "change_usd": format_usd(change),
        "change_ratio": _ratio(change, was.get("cost_nusd", 0)),
    }


def _ratio(part: int, whole: int) -> float | None:
    """Divide to four decimals for display; None where there is nothing to compare with."""
    return divide_half_even(part * 10_000, whole) / 10_000 if whole > 0 else None
