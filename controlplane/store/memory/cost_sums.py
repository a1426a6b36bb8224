"""Cost answers by adding calls up one by one."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from controlplane.core.calendar import Period, Window, window_at
from controlplane.core.instants import EPOCH, align_down
from controlplane.signals.queries import LONGEST_CALL, CostQuery, Granularity
from controlplane.signals.schema import TIMESTAMP
from controlplane.usage.cost_plan import plan_costs
from controlplane.usage.dimensions import BUCKET_MINUTES, MEASURES, dimension


def sum_costs(calls: Iterable[dict[str, Any]], query: CostQuery) -> pa.Table:
    """Answer `SpanReader.costs` over these calls.

    Raises:
        InvalidInputError: as `usage.cost_plan.plan_costs`.
    """
    plan = plan_costs(query)
    sums: defaultdict[tuple[Any, ...], dict[str, int]] = defaultdict(
        lambda: dict.fromkeys((*MEASURES, *query.buckets), 0)
    )
    for call in calls:
        if call["tenant"] not in query.tenants or not query.window.contains(call["start_time"]):
            continue
        if any(dimension.value_of(call) not in values for dimension, values in plan.filters):
            continue
        group = tuple(dimension.value_of(call) for dimension in plan.groups)
        used = {name: call[name] or 0 for name in query.buckets}
        for measure, amount in {**_measures(call), **used}.items():
            sums[_bucket(call["start_time"], query), *group][measure] += amount
    is_total = query.granularity is Granularity.TOTAL
    names = [*([] if is_total else ["bucket_start"]), *(group.name for group in plan.groups)]
    rows = [
        {**dict(zip(names, key[1:] if is_total else key, strict=True)), **measures}
        for key, measures in sums.items()
    ]
    rows.sort(key=lambda row: _order(row, names))
    return pa.Table.from_pylist(rows, schema=_schema(names, query.buckets))


def sum_ended(
    calls: Iterable[dict[str, Any]], window: Window, group_by: tuple[str, ...]
) -> pa.Table:
    """Answer `SpanReader.ended_costs` over these calls."""
    groups = [dimension(name) for name in group_by]
    sums: defaultdict[tuple[str | None, ...], int] = defaultdict(int)
    for call in calls:
        took = timedelta(microseconds=call["duration_us"])
        if took <= LONGEST_CALL and window.contains(call["start_time"] + took):
            sums[tuple(one.value_of(call) for one in groups)] += call["cost_nusd"] or 0
    order = sorted(sums.items(), key=lambda one: (-one[1], *((n is None, n or "") for n in one[0])))
    rows = [
        {**dict(zip(group_by, group, strict=True)), "cost_nusd": cost}
        for group, cost in order
        if cost > 0
    ]
    schema: list[tuple[str, pa.DataType]] = [(name, pa.string()) for name in group_by]
    return pa.Table.from_pylist(rows, schema=pa.schema([*schema, ("cost_nusd", pa.int64())]))


def _bucket(start: datetime, query: CostQuery) -> datetime | None:
    if query.granularity is Granularity.TOTAL:
        return None
    if query.granularity is Granularity.QUARTER_HOUR:
        return align_down(start, timedelta(minutes=BUCKET_MINUTES))
    period = Period(query.granularity.value)
    return window_at(period, start, zone=query.zone, calendar=query.calendar).start


def _measures(call: dict[str, Any]) -> dict[str, int]:
    is_unpriced = call["cost_state"] == "unpriced"
    tokens = (call["input_tokens"] or 0) + (call["output_tokens"] or 0)
    return {
        "calls": 1,
        "errors": int(call["status"] == "error"),
        "unpriced_calls": int(is_unpriced),
        "unpriced_tokens": tokens if is_unpriced else 0,
        "input_tokens": call["input_tokens"] or 0,
        "cached_input_tokens": call["cached_input_tokens"] or 0,
        "output_tokens": call["output_tokens"] or 0,
        "cost_nusd": call["cost_nusd"] or 0,
    }


def _order(row: dict[str, Any], names: list[str]) -> tuple[Any, ...]:
    """By bucket, then cost descending, then group with unattributed last."""
    groups = [(row[n] is None, row[n] or "") for n in names if n != "bucket_start"]
    return (row.get("bucket_start") or EPOCH, -row["cost_nusd"], *groups)


def _schema(names: list[str], buckets: tuple[str, ...]) -> pa.Schema:
    columns: list[tuple[str, pa.DataType]] = [
        (name, TIMESTAMP if name == "bucket_start" else pa.string()) for name in names
    ]
    columns += [(measure, pa.int64()) for measure in (*MEASURES, *buckets)]
    return pa.schema(columns)
