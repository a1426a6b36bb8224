"""A window of calls → what a request, a token, a user, a customer and an hour of GPU cost."""

from collections.abc import Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.core.fiscal import Dates
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CostQuery, Granularity
from controlplane.usage.dimensions import CALLS_ONLY, MAX_SCAN_DAYS
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


def unit_costs(reader: SpanReader, metrics: BusinessMetrics, query: CostQuery) -> UnitCosts:
    """Work out the figures of the query's window and filters.

    Raises:
        InvalidInputError: as `SpanReader.costs`.
    """
    asked = msgspec.structs.replace(
        query, granularity=Granularity.TOTAL, group_by=(), buckets=("gpu_seconds",)
    )
    sums = _sums(reader.costs(asked))
    cost = sums["cost_nusd"]
    tokens = sums["input_tokens"] + sums["output_tokens"]
    succeeded = sums["calls"] - sums["errors"]
    figures = [
        figure("request", cost, sums["calls"]),
        figure("million_tokens", cost, Fraction(tokens, TOKENS_PER_FIGURE)),
        figure("successful_outcome", cost, succeeded),
        figure("gpu_hour", *_gpu(reader, asked)),
        *(_counted(reader, asked, name=name, dimension=dimension) for name, dimension in COUNTED),
    ]
    return UnitCosts(
        figures=tuple(figures),
        business=tuple(_business(reader, metrics, asked)),
        unpriced_calls=sums["unpriced_calls"],
        unpriced_tokens=sums["unpriced_tokens"],
    )


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


def _counted(reader: SpanReader, query: CostQuery, *, name: str, dimension: str) -> Figure:
    """Divide the cost of calls that name a value of the dimension by how many values there are."""
    if dimension == "user" and _width(query) > timedelta(days=MAX_SCAN_DAYS):
        return figure(name, 0, None, reason=f"users are counted over at most {MAX_SCAN_DAYS} days")
    groups = reader.costs(msgspec.structs.replace(query, group_by=(dimension,), buckets=()))
    named = [row for row in groups.to_pylist() if row[dimension] is not None]
    present = sum(1 for row in named if row["calls"])  # a correction alone makes nobody active
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
        own = msgspec.structs.replace(query, tenants=(tenant,), buckets=())
        cost = _sums(reader.costs(own))["cost_nusd"]
        found.append(BusinessFigure(tenant=tenant, figure=figure(name, cost, total), days=days))
    return found


def local_days(window: Window, zone: str) -> Dates:
    """Return the local days that a window touches."""
    tz = ZoneInfo(zone)
    last = (window.end - timedelta(microseconds=1)).astimezone(tz).date()
    return Dates(window.start.astimezone(tz).date(), last + timedelta(days=1))


def group_costs(reader: SpanReader, query: CostQuery, dimension: str) -> Sequence[tuple[str, int]]:
    """Return what the calls of each value of a dimension cost, the dearest first.

    The unattributed is left out, and corrections of closed periods are: they may be below zero.

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
    return [(row[dimension], row["cost_nusd"]) for row in rows if row[dimension] is not None]
