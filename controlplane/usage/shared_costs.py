"""Sums by team, with the pools that teams share divided among them.

A pool is divided in each row of the money cube (a quarter hour, all of its dimensions), never in a
sum: so hours, days and months of a team add up to the last nano-dollar, whatever they are
grouped by. Questions that only calls can answer show the pools as they are.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.attribution.share import divide, weights_of
from controlplane.signals.queries import CostQuery, Granularity
from controlplane.usage.cost_plan import CostPlan, plan_costs
from controlplane.usage.dimensions import CUBE_DIMENSIONS

TEAM: Final = "team"
_CUBE: Final = tuple(dimension.name for dimension in CUBE_DIMENSIONS)
_Key = tuple[Any, ...]


def share_costs(
    read: Callable[[CostQuery], pa.Table], query: CostQuery, *, pools: Sequence[str]
) -> pa.Table:
    """Answer `SpanReader.costs`.

    Args:
        read: the same, with pools as teams of their own; all its answers from one moment.
        query: what is asked.
        pools: the pools there are.
    """
    plan = plan_costs(query)
    asked = query.filters.get(TEAM)
    concerns_team = TEAM in query.group_by or asked is not None
    if not pools or not concerns_team or not _is_of_cube(plan) or set(asked or ()) & set(pools):
        return read(query)
    whole = read(query)
    rest = _without(whole, pools) if TEAM in query.group_by else whole
    fine = msgspec.structs.replace(
        query,
        granularity=Granularity.QUARTER_HOUR,
        group_by=_CUBE,
        filters={**query.filters, TEAM: tuple(pools)},
    )
    return _add(rest, _divided(read(fine), query, plan), plan)


def _is_of_cube(plan: CostPlan) -> bool:
    return all(d.in_cube for d in plan.groups) and all(d.in_cube for d, _ in plan.filters)


def _without(table: pa.Table, pools: Sequence[str]) -> pa.Table:
    is_pool: Any = pc.is_in(table.column(TEAM), value_set=pa.array(pools, pa.string()))
    return table.filter(pc.invert(is_pool))


def _divided(fine: pa.Table, query: CostQuery, plan: CostPlan) -> dict[_Key, list[int]]:
    """Divide every row, and add the parts up by what is asked for."""
    asked = query.filters.get(TEAM)
    place = _period_of(query, plan)
    sums: dict[_Key, list[int]] = defaultdict(lambda: [0] * len(plan.measures))
    for row in fine.to_pylist():
        weights = weights_of(row[TEAM]) or {}
        parts = [divide(row[measure], weights) for measure in plan.measures]
        for team in weights:
            if asked is not None and team not in asked:
                continue
            values = {**row, TEAM: team}
            total = sums[*place(row["bucket_start"]), *(values[g.name] for g in plan.groups)]
            for number, part in enumerate(parts):
                total[number] += part[team]
    return sums


def _period_of(query: CostQuery, plan: CostPlan) -> Callable[[datetime], tuple[datetime, ...]]:
    if query.granularity is Granularity.TOTAL:
        return lambda _at: ()
    if not plan.periods:
        return lambda at: (at,)
    starts = [window.start for window in plan.periods]
    return lambda at: (starts[max(0, bisect_right(starts, at) - 1)],)


def _add(rest: pa.Table, divided: dict[_Key, list[int]], plan: CostPlan) -> pa.Table:
    """Add the parts to what is no pool's; ordered by period, then cost descending."""
    keys = rest.column_names[: rest.num_columns - len(plan.measures)]
    for row in rest.to_pylist():
        total = divided[tuple(row[key] for key in keys)]
        for number, measure in enumerate(plan.measures):
            total[number] += row[measure]
    rows = [
        dict(zip(rest.column_names, (*key, *total), strict=True)) for key, total in divided.items()
    ]
    rows.sort(
        key=lambda row: (
            *((row["bucket_start"],) if "bucket_start" in keys else ()),
            -row["cost_nusd"],
            *(str(row[key]) for key in keys),
        )
    )
    return pa.Table.from_pylist(rows, schema=rest.schema)
