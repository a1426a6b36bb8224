"""Histograms counted call by call: what the engines must answer."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from math import floor, log
from typing import Any, Final

import pyarrow as pa

from controlplane.signals.queries import LATENCY_BOUNDS_US, CostQuery
from controlplane.signals.schema import durations_schema
from controlplane.usage.dimensions import dimension

Row = dict[str, Any]
_LATENCIES: Final[list[tuple[str, pa.DataType]]] = [
    ("model", pa.string()),
    ("operation", pa.string()),
    ("bucket", pa.int32()),
    ("calls", pa.int64()),
    ("duration_us", pa.int64()),
]
_LENGTHS: Final[list[tuple[str, pa.DataType]]] = [
    ("model", pa.string()),
    ("bin", pa.int64()),
    ("calls", pa.int64()),
]
LATENCIES: Final = pa.schema(_LATENCIES)
LENGTHS: Final = pa.schema(_LENGTHS)


def count_latencies(calls: Iterable[Row], query: CostQuery) -> pa.Table:
    """Answer `SpanReader.latencies`."""
    counts: Counter[tuple[str | None, str | None, int]] = Counter()
    sums: Counter[tuple[str | None, str | None, int]] = Counter()
    for row in calls:
        if _is_wanted(row, query):
            bucket = bisect_left(LATENCY_BOUNDS_US, row["duration_us"])
            key = (dimension("model").value_of(row), row["operation"], bucket)
            counts[key] += 1
            sums[key] += row["duration_us"]
    rows = [
        dict(zip(LATENCIES.names, (*key, counts[key], sums[key]), strict=True)) for key in counts
    ]
    return pa.Table.from_pylist(_ordered(rows), schema=LATENCIES)


def rank_durations(calls: Iterable[Row], query: CostQuery) -> pa.Table:
    """Answer `SpanReader.durations`."""
    found: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for row in calls:
        if _is_wanted(row, query) and row["status"] == "ok" and row["duration_us"] > 0:
            key = tuple(dimension(name).value_of(row) for name in query.group_by)
            found[key].append(row["duration_us"])
    rows = []
    for key, durations in found.items():
        said = {"calls": len(durations)}
        for rank in (50, 95):
            place = -(-rank * len(durations) // 100) - 1
            said[f"p{rank}_us"] = sorted(durations)[place]
        rows.append({**dict(zip(query.group_by, key, strict=True)), **said})
    return pa.Table.from_pylist(_ordered(rows), schema=durations_schema(query.group_by))


def _is_wanted(row: Row, query: CostQuery) -> bool:
    wanted = (dimension(name).value_of(row) in values for name, values in query.filters.items())
    return (
        row["tenant"] in query.tenants and query.window.contains(row["start_time"]) and all(wanted)
    )


def count_lengths(calls: Iterable[Row]) -> pa.Table:
    """Answer `SpanReader.output_lengths`."""
    counts: Counter[tuple[str | None, int]] = Counter()
    for row in calls:
        output = row["output_tokens"] or 0
        if row["status"] == "ok" and output > 0:
            counts[dimension("model").value_of(row), floor(log(output) / log(1.1))] += 1
    rows = [dict(zip(LENGTHS.names, (*key, counts[key]), strict=True)) for key in counts]
    return pa.Table.from_pylist(_ordered(rows), schema=LENGTHS)


def _ordered(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: [(v is None, 0 if v is None else v) for v in row.values()])
