"""A window of calls → what a request, a token, a user, a customer and an hour of GPU cost."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.core.fiscal import Dates
from controlplane.pipelines.gpu_cost import GpuTools
from controlplane.pricing.gpu_pool import GpuPool
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CostQuery, Granularity
from controlplane.signals.vocabulary import Status
from controlplane.usage.dimensions import BUCKET_MINUTES, CALLS_ONLY, MAX_SCAN_DAYS
from controlplane.usage.ports import BusinessMetrics
from controlplane.usage.unit_cost import (
    SECONDS_PER_HOUR,
    TOKENS_PER_FIGURE,
    Figure,
    MetricDay,
    figure,
    metric_days,
    metric_total,
)

BUCKET_HOURS: Final = Fraction(BUCKET_MINUTES, 60)
COUNTED: Final = (("active_user", "user"), ("customer", "customer"), ("feature", "feature"))
"""Figures whose denominator is how many values a dimension has; their cost is that of those."""


class BusinessFigure(msgspec.Struct, frozen=True, kw_only=True):
    """Cost per unit of an uploaded metric, with its days; gaps are days without a value."""

    tenant: str
    figure: Figure
    days: tuple[MetricDay, ...]


class UnitCosts(msgspec.Struct, frozen=True, kw_only=True):
    """Every figure of one window."""

    figures: tuple[Figure, ...]
    business: tuple[BusinessFigure, ...]
    unpriced_calls: int
    unpriced_tokens: int


def unit_costs(
    reader: SpanReader, metrics: BusinessMetrics, query: CostQuery, *, pools: GpuTools | None = None
) -> UnitCosts:
    """Work out the figures of the query's window and filters.

    Cost is what is known, so what it is divided by is of calls whose cost is known (I7). `pools`
    is given where all that they are billed for is asked about.

    Raises:
        InvalidInputError: as `SpanReader.costs`.
    """
    asked = msgspec.structs.replace(
        query, granularity=Granularity.TOTAL, group_by=("status",), buckets=("gpu_seconds",)
    )
    by_status = reader.costs(asked)
    asked = msgspec.structs.replace(asked, group_by=())
    sums = _sums(by_status)
    cost = sums["cost_nusd"]
    tokens = sums["input_tokens"] + sums["output_tokens"] - sums["unpriced_tokens"]
    succeeded = sum(_known(row) for row in by_status.to_pylist() if row["status"] != Status.ERROR)
    figures = [
        figure("request", cost, _known(sums)),
        figure("million_tokens", cost, Fraction(tokens, TOKENS_PER_FIGURE)),
        figure("successful_outcome", cost, succeeded),
        _of_pools(pools, query.window) or figure("gpu_hour", *_gpu(reader, asked)),
        *(_counted(reader, asked, name=name, dimension=dimension) for name, dimension in COUNTED),
    ]
    return UnitCosts(
        figures=tuple(figures),
        business=tuple(_business(reader, metrics, asked)),
        unpriced_calls=sums["unpriced_calls"],
        unpriced_tokens=sums["unpriced_tokens"],
    )


def _known(row: Mapping[str, int]) -> int:
    """Return how many calls have a cost."""
    return row["calls"] - row["unpriced_calls"]


def is_known(row: Mapping[str, int]) -> bool:
    """Whether anything is known of what a group cost: 0 beside unpriced calls is not."""
    return bool(row["cost_nusd"]) or not row["unpriced_calls"]


def _sums(table: pa.Table) -> dict[str, int]:
    rows = table.to_pylist()
    return {
        name: sum(row[name] for row in rows)
        for name in table.column_names
        if pa.types.is_integer(table.schema.field(name).type)
    }


def _gpu(reader: SpanReader, query: CostQuery) -> tuple[int, Fraction]:
    """Return the cost of models that are billed by GPU time, and the hours."""
    groups = reader.costs(msgspec.structs.replace(query, group_by=("provider", "model")))
    serving = [row for row in groups.to_pylist() if row["gpu_seconds"]]
    seconds = sum(row["gpu_seconds"] for row in serving)
    return sum(row["cost_nusd"] for row in serving), Fraction(seconds, SECONDS_PER_HOUR)


def _of_pools(tools: GpuTools | None, window: Window) -> Figure | None:
    """Divide what pools are billed, idle time and all, by their nodes' hours; None without a bill."""
    if tools is None:
        return None
    pools = {pool.name: pool for pool in tools.pools()}
    cost, hours = 0, Fraction(0)
    for part in _by_nodes(pools.values(), window):
        for row in tools.store.bills(part).to_pylist():
            if row["pool"] in pools:
                cost += row["bill_nusd"]
                hours += row["buckets"] * BUCKET_HOURS * pools[row["pool"]].nodes_at(part.start)
    return figure("gpu_hour", cost, hours) if hours else None


def _by_nodes(pools: Iterable[GpuPool], window: Window) -> list[Window]:
    """Cut a window where the number of nodes of any pool may change."""
    days = {change.effective_from for pool in pools for change in pool.changes}
    cuts = {datetime.combine(day, time(), UTC) for day in days}
    inside = sorted(cut for cut in cuts if window.start < cut < window.end)
    return [Window(*both) for both in pairwise([window.start, *inside, window.end])]


def _counted(reader: SpanReader, query: CostQuery, *, name: str, dimension: str) -> Figure:
    """Divide the cost of calls that name a value of the dimension by how many values there are."""
    if dimension == "user" and _width(query) > timedelta(days=MAX_SCAN_DAYS):
        return figure(name, 0, None, reason=f"users are counted over at most {MAX_SCAN_DAYS} days")
    groups = reader.costs(msgspec.structs.replace(query, group_by=(dimension,), buckets=()))
    named = [row for row in groups.to_pylist() if row[dimension] is not None]
    present = sum(1 for row in named if _known(row) > 0)  # a correction makes nobody active
    return figure(name, sum(row["cost_nusd"] for row in named), present)


def _width(query: CostQuery) -> timedelta:
    return query.window.end - query.window.start


def _business(
    reader: SpanReader, metrics: BusinessMetrics, query: CostQuery
) -> list[BusinessFigure]:
    touched = local_days(query.window, query.zone)
    found = []
    for tenant, name in metrics.metric_names(query.tenants):
        days = metric_days(metrics.metric(tenant, name, days=touched), touched)
        total = metric_total(days)
        if total is None:
            continue
        own = msgspec.structs.replace(query, tenants=(tenant,))
        cost = _cost_of_days(reader, own, {one.day for one in days if one.value is not None})
        if query.window.start.astimezone(ZoneInfo(query.zone)).time() != time():
            made = figure(name, cost, None, reason="a value is of a whole day; start at midnight")
        else:
            made = figure(name, cost, total)
        found.append(BusinessFigure(tenant=tenant, figure=made, days=days))
    return found


def _cost_of_days(reader: SpanReader, query: CostQuery, known: set[date]) -> int:
    """Return what the days that have a value cost; a gap is in neither side of a figure."""
    daily = msgspec.structs.replace(query, granularity=Granularity.DAY, buckets=())
    zone = ZoneInfo(query.zone)
    return sum(
        row["cost_nusd"]
        for row in reader.costs(daily).to_pylist()
        if row["bucket_start"].astimezone(zone).date() in known
    )


def local_days(window: Window, zone: str) -> Dates:
    """Return the local days that a window touches."""
    tz = ZoneInfo(zone)
    last = (window.end - timedelta(microseconds=1)).astimezone(tz).date()
    return Dates(window.start.astimezone(tz).date(), last + timedelta(days=1))


def group_costs(reader: SpanReader, query: CostQuery, dimension: str) -> Sequence[tuple[str, int]]:
    """Return what the calls of each value of a dimension cost, the dearest first.

    The unattributed is left out, and so are groups of whose cost nothing is known. Corrections of
    closed periods are, too: they may be below zero.

    Raises:
        InvalidInputError: as `SpanReader.costs`.
    """
    asked = msgspec.structs.replace(
        query,
        granularity=Granularity.TOTAL,
        group_by=(dimension,),
        filters={**query.filters, **CALLS_ONLY},
        buckets=(),
    )
    rows = reader.costs(asked).to_pylist()
    named = (row for row in rows if row[dimension] is not None and is_known(row))
    return [(row[dimension], row["cost_nusd"]) for row in named]
