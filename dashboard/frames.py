"""Answers of the API in the shape that charts and tables draw. Nothing is added up here."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa

from dashboard import spoken
from dashboard.client import Table

MAX_SERIES: Final = 8
"""Colours that stay apart; further groups share one."""
UNATTRIBUTED: Final = "unattributed"
GROUP_COLUMNS: Final = (
    "group", "cost", "calls", "errors", "input", "cached", "output", "unpriced",
)  # fmt: skip
_CHART_TITLES: Final = ("time", "group", "cost", "calls", "partial")


class Point(msgspec.Struct, frozen=True):
    """One mark of a chart; `usd` is a float because a pixel is, `cost` is what is read.

    In a chart in another currency `usd` is of that: the axis names the unit.
    """

    at: str
    until: str
    usd: float
    cost: str
    series: str
    rank: int
    calls: int
    partial: bool


def points(answer: Table, group_by: str, *, other: str, top: list[str]) -> list[Point]:
    """Turn a cost answer into marks; groups outside `top` are drawn as `other`."""
    zone = ZoneInfo(str(answer.meta["zone"]))
    through = answer.meta.get("data_through")
    through_at = spoken.parse(through) if through else None
    rank = {name: i for i, name in enumerate(top)}
    marks = []
    for row in answer.rows.to_pylist():
        series = _series(row, group_by, other=other, top=top)
        marks.append(
            Point(
                at=wall(row["bucket_start"], zone),
                until=wall(row["bucket_end"], zone),
                usd=float(row["cost_usd"] or 0),
                cost=cost_of(row),
                series=series,
                rank=rank.get(series, len(top)),
                calls=row["calls"],
                partial=through_at is None or row["bucket_end"] > through_at,
            )
        )
    return marks


def wall(at: datetime, zone: ZoneInfo) -> str:
    """Write wall time in the reporting zone as if it were UTC.

    Charts use a UTC scale, so that every reader sees the organisation's days and not the
    browser's (UX-C05).
    """
    return at.astimezone(zone).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _series(row: dict[str, Any], group_by: str, *, other: str, top: list[str]) -> str:
    value = row[group_by] or UNATTRIBUTED
    return value if value in top else other


def titles(say: Callable[[str], str]) -> dict[str, str]:
    """Answer the titles of a chart's fields."""
    return {key: say(f"column_{key}") for key in _CHART_TITLES}


def top_groups(answer: Table, group_by: str) -> list[str]:
    """Answer the dearest groups, in the API's order."""
    values = answer.rows[group_by].to_pylist()
    return [value or UNATTRIBUTED for value in values[:MAX_SERIES]]


def cost_of(measures: dict[str, Any]) -> str:
    """Write a group's cost; what is not priced is unknown, and never looks like zero (UX-C07)."""
    known = spoken.money(measures["cost_usd"])
    if not measures["unpriced_calls"]:
        return known
    is_none = known in {spoken.UNKNOWN, spoken.money("0")}
    return spoken.UNKNOWN if is_none else f"≥ {known}"


def corrections(meta: Mapping[str, Any]) -> str:
    """List what a cost answer holds about closed months, as `2026-10 +$0.003`; often nothing."""
    return ", ".join(
        f"{one['period']} {'' if one['cost_usd'].startswith('-') else '+'}"
        f"{spoken.money(one['cost_usd'])}"
        for one in meta["corrections"]
    )


def group_rows(answer: Table, group_by: str, names: dict[str, str]) -> pa.Table:
    """Turn a total-by-group answer into the table that is shown under the chart.

    Args:
        answer: one row a group, dearest first.
        group_by: the column that names the group.
        names: column titles by measure.
    """
    rows = answer.rows.to_pylist()
    shown = {
        names["group"]: [row[group_by] or UNATTRIBUTED for row in rows],
        names["cost"]: [cost_of(row) for row in rows],
        names["calls"]: [row["calls"] for row in rows],
        names["errors"]: [row["errors"] for row in rows],
        names["input"]: [row["input_tokens"] for row in rows],
        names["cached"]: [row["cached_input_tokens"] for row in rows],
        names["output"]: [row["output_tokens"] for row in rows],
        names["unpriced"]: [row["unpriced_calls"] for row in rows],
    }
    return pa.table(shown)


def idle(meta: Mapping[str, Any]) -> tuple[str, str] | None:
    """Answer idle GPU time and the sum of it and of calls; None where there is none."""
    said = meta.get("idle")
    if not said or said["cost_nusd"] == "0":
        return None
    cost, both = (spoken.plain(spoken.money(said[f"{n}_usd"])) for n in ("cost", "with_calls"))
    return cost, both
