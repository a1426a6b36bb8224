"""Cube and GPU ledger over windows → allocations in OpenCost's shape, whose sums are our own."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

import msgspec

from controlplane.core.calendar import Window
from controlplane.core.errors import LimitExceededError
from controlplane.exports.opencost import (
    Allocation,
    NodeHours,
    accumulated,
    allocations_of,
    dimension_of,
    to_wire,
)
from controlplane.pipelines.gpu_cost import GPU_PRICE, GpuTools
from controlplane.pipelines.gpu_idle import idle_lines
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import MAX_CHART_ROWS, CostQuery

SELF_HOSTED: Final = "self-hosted"
_NO_POOL: Final = "__unallocated__"
_QUARTERS: Final = 4


class AllocationQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Whose cost, in which consecutive windows, by which properties, and where idle time goes."""

    tenants: tuple[str, ...]
    everyone: bool
    """Whoever asks sees all tenants: also what nobody bears, and the pools' hours."""
    windows: tuple[Window, ...]
    aggregate: tuple[str, ...]
    accumulate: bool = False
    include_idle: bool = False
    share_idle: bool = False
    idle_by_node: bool = False


def allocate_costs(reader: SpanReader, gpu: GpuTools, asked: AllocationQuestion) -> bytes:
    """Answer a question as OpenCost would.

    `externalCost` is what calls of providers cost and `gpuCost` what self-hosted ones do, both as
    the cube has them; `__idle__` is the idle time that no call carries.

    Raises:
        LimitExceededError: more than MAX_CHART_ROWS allocations.
    """
    sets: list[dict[str, Allocation]] = []
    unpriced = 0
    for window in asked.windows:
        rows, without = _rows(reader, asked, window)
        unpriced += without
        idle = _idle(gpu, asked, window)
        sets.append(
            allocations_of(
                rows,
                idle,
                window=window,
                include_idle=asked.include_idle,
                share_idle=asked.share_idle,
                by_node=asked.idle_by_node,
            )
        )
        found = sum(map(len, sets))
        if found > MAX_CHART_ROWS:
            raise LimitExceededError("allocations", MAX_CHART_ROWS, found)
    whole = Window(asked.windows[0].start, asked.windows[-1].end)
    windows: Sequence[Window] = asked.windows
    if asked.accumulate:
        sets, windows = [accumulated(sets, whole)], (whole,)
    told = [
        (rows, node_hours(gpu, window) if asked.everyone else None)
        for rows, window in zip(sets, windows, strict=True)
    ]
    warning = f"{unpriced} calls have no known price and are in no cost" if unpriced else None
    return to_wire(told, warning=warning)


def _rows(
    reader: SpanReader, asked: AllocationQuestion, window: Window
) -> tuple[list[tuple[dict[str, str | None], str | None, int]], int]:
    dimensions = {key: dimension_of(key) for key in asked.aggregate}
    grouped = dict.fromkeys((*filter(None, dimensions.values()), "provider", "price_id"))
    query = CostQuery(tenants=asked.tenants, window=window, group_by=tuple(grouped))
    found = reader.costs(query).to_pylist()
    rows = [
        (
            {key: _pool(row) if name is None else row[name] for key, name in dimensions.items()},
            _pool(row),
            row["cost_nusd"] or 0,
        )
        for row in found
    ]
    return rows, sum(row["unpriced_calls"] for row in found)


def _pool(row: dict[str, Any]) -> str | None:
    """Return the pool that served a row's calls; None where a provider did."""
    price = row["price_id"] or ""
    if price.startswith(GPU_PRICE):
        return price.removeprefix(GPU_PRICE)
    return _NO_POOL if row["provider"] == SELF_HOSTED else None


def _idle(gpu: GpuTools, asked: AllocationQuestion, window: Window) -> dict[str, int]:
    if not (asked.include_idle or asked.share_idle):
        return {}
    sums: dict[str, int] = {}
    for line in idle_lines(gpu, asked.tenants, window, everyone=asked.everyone):
        sums[line.pool] = sums.get(line.pool, 0) + line.cost_nusd
    return sums


def node_hours(gpu: GpuTools, window: Window) -> dict[str, NodeHours]:
    """Return how many node hours of each pool were billed in a window, and for how much."""
    nodes = {pool.name: pool.nodes_at for pool in gpu.pools()}
    found: dict[str, NodeHours] = {}
    for part in _between_changes(gpu, window):
        for row in gpu.store.bills(part).to_pylist():
            was = found.get(row["pool"], NodeHours(Fraction(), 0))
            at = nodes.get(row["pool"])
            hours = Fraction(row["buckets"], _QUARTERS) * (at(part.start) if at else 0)
            found[row["pool"]] = NodeHours(was.hours + hours, was.bill_nusd + row["bill_nusd"])
    return found


def _between_changes(gpu: GpuTools, window: Window) -> Iterator[Window]:
    """Yield a window cut at the midnights from which pools have other nodes."""
    days = {change.effective_from for pool in gpu.pools() for change in pool.changes}
    cuts = sorted(datetime(day.year, day.month, day.day, tzinfo=UTC) for day in days)
    edges = [window.start, *(at for at in cuts if window.start < at < window.end), window.end]
    for start, end in pairwise(edges):
        yield Window(start, end)
