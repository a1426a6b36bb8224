"""Answers about money in the shape that the finance pages draw. Nothing is added up here."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import pyarrow as pa

from dashboard import spoken
from dashboard.client import Table
from dashboard.frames import Point

TERMS: Final = (
    "volume", "mix", "recognition", "input_size", "cache", "output_size", "other_usage", "price",
    "retries", "duplicates", "new", "vanished",
)  # fmt: skip
CLASSES: Final = (
    "uncaptured", "overcounted", "cache_semantics", "time_boundary", "price", "rounding",
    "tax_fees", "booked_later", "unexplained",
)  # fmt: skip
FIGURES: Final = (
    "request", "million_tokens", "successful_outcome", "gpu_hour", "active_user", "customer",
    "feature",
)  # fmt: skip
CHANGE_COLUMNS: Final = ("group", "before", "after", "change", "calls_before", "calls_after")
UNIT_COLUMNS: Final = ("figure", "cost", "denominator", "unit_cost", "gaps", "note")
RANK_COLUMNS: Final = ("rank", "group", "cost")
CELL_COLUMNS: Final = ("day", "model", "meter", "billed", "ledger", "difference", "because")
COMMITMENT_COLUMNS: Final = (
    "contract", "period", "committed", "contracted", "effective", "remaining", "shortfall",
    "overage",
)  # fmt: skip
CURRENCY_COLUMNS: Final = ("day", "cost", "amount", "rate", "rate_day", "rate_source")
CHART_COLUMNS: Final = ("step", "cost", "groups", "so_far", "class")
UNATTRIBUTED: Final = "unattributed"

Say = Callable[..., str]


def steps(meta: Mapping[str, Any], say: Say) -> list[dict[str, Any]]:
    """Return the bars of a change's waterfall: both ends, and the terms that moved.

    `low` and `high` are floats because pixels are; `cost` is what is read.
    """
    totals = meta["totals"]
    moved = [step for step in meta["steps"] if step["change_usd"] != "0"]
    first, last = (
        {
            "step": say(f"column_{name}"),
            "low": 0.0,
            "high": float(totals[f"{name}_usd"]),
            "kind": "total",
            "cost": spoken.money(totals[f"{name}_usd"]),
        }
        for name in ("before", "after")
    )
    between = [
        {
            "step": say(f"term_{step['term']}"),
            "low": float(step["start_usd"]),
            "high": float(step["end_usd"]),
            "kind": "less" if step["change_usd"].startswith("-") else "more",
            "cost": signed(step["change_usd"]),
        }
        for step in moved
    ]
    bars: list[dict[str, Any]] = [first, *between, last]
    return [
        {**bar, "place": place, "top": max(bar["low"], bar["high"])}
        for place, bar in enumerate(bars)
    ]


def known(usd: str, unpriced_calls: int) -> str:
    """Write what is known of a cost: nothing, or at least so much, where calls have no price."""
    written = spoken.money(usd)
    if not unpriced_calls:
        return written
    return spoken.UNKNOWN if usd == "0" else f"≥ {written}"


def _moved(row: Mapping[str, Any]) -> str:
    is_known = row["change_usd"] != "0" or not (row["unpriced_before"] or row["unpriced_after"])
    return signed(row["change_usd"]) if is_known else spoken.UNKNOWN


def signed(usd: str) -> str:
    """Write an amount of money with its sign, also when it is a plus."""
    written = spoken.money(usd)
    return written if usd.startswith("-") or usd == "0" else f"+{written}"


def change_rows(answer: Table, group_by: str, say: Say) -> pa.Table:
    """Return a row a group, with a column for every term that moved in any of them."""
    rows = answer.rows.to_pylist()
    moved = [term for term in TERMS if any(row[f"{term}_nusd"] for row in rows)]
    named = {name: say(f"column_{name}") for name in CHANGE_COLUMNS}
    columns: dict[str, list[Any]] = {
        named["group"]: [row[group_by] or UNATTRIBUTED for row in rows],
        named["before"]: [known(row["before_usd"], row["unpriced_before"]) for row in rows],
        named["after"]: [known(row["after_usd"], row["unpriced_after"]) for row in rows],
        named["change"]: [_moved(row) for row in rows],
    }
    for term in moved:
        shown = [signed(row[f"{term}_usd"]) if row[f"{term}_nusd"] else "" for row in rows]
        columns[say(f"term_{term}")] = shown
    for name in ("calls_before", "calls_after"):
        columns[named[name]] = [row[name] for row in rows]
    return pa.table(columns)


def unit_rows(answer: Table, say: Say) -> pa.Table:
    """Return a row a figure; a figure without a denominator is a dash and says why.

    Days without a value are a matter of business figures: without any there is no such column.
    """
    rows = answer.rows.to_pylist()
    named = [say(f"column_{name}") for name in UNIT_COLUMNS]
    shown = [
        [_figure(row, say) for row in rows],
        [spoken.money(row["cost_usd"]) for row in rows],
        [spoken.quantity(row["denominator"]) for row in rows],
        [spoken.money(row["unit_cost_usd"]) for row in rows],
        ["" if row["gap_days"] is None else spoken.count(row["gap_days"]) for row in rows],
        [_why_none(row, say) for row in rows],
    ]
    table = pa.table(dict(zip(named, shown, strict=True)))
    has_business = any(row["is_business"] for row in rows)
    return table if has_business else table.drop_columns([named[UNIT_COLUMNS.index("gaps")]])


def _why_none(row: Mapping[str, Any], say: Say) -> str:
    if row["reason"]:
        return str(row["reason"])
    is_none = row["denominator"] is not None and float(row["denominator"]) == 0
    return say("no_denominator") if is_none else ""


def _figure(row: Mapping[str, Any], say: Say) -> str:
    if row["is_business"]:
        return say("business_of", name=row["figure"], tenant=row["tenant"])
    return say(f"figure_{row['figure']}")


def rank_rows(answer: Table, say: Say) -> pa.Table:
    """Return the dearest groups."""
    rows = answer.rows.to_pylist()
    dimension = str(answer.meta["dimension"])
    named = [say(f"column_{name}") for name in RANK_COLUMNS]
    shown: list[list[Any]] = [
        [row["rank"] for row in rows],
        [row[dimension] for row in rows],
        [spoken.money(row["cost_usd"]) for row in rows],
    ]
    return pa.table(dict(zip(named, shown, strict=True)))


def curve(meta: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the marks of a concentration curve, from nothing to the whole."""
    points = [{"groups": 0, "cost_usd": "0"}, *meta["curve"]]
    return [
        {
            "groups": point["groups"],
            "usd": float(point["cost_usd"]),
            "cost": spoken.money(point["cost_usd"]),
        }
        for point in points
    ]


def residuals(report: Mapping[str, Any], say: Say) -> list[dict[str, Any]]:
    """Return a bar per class of residual that is not zero."""
    return [
        {
            "class": say(f"class_{name}"),
            "usd": float(report["classes"][name]),
            "cost": signed(report["classes"][name]),
            "label_at": max(0.0, float(report["classes"][name])),
            "place": place,
            "is_unexplained": name == "unexplained",
        }
        for place, name in enumerate(CLASSES)
        if report["classes"].get(name, "0") != "0"
    ]


def cell_rows(report: Mapping[str, Any], say: Say) -> pa.Table:
    """Return the cells of a bill that differ from ours, with what the difference is made of."""
    rows = [row for row in report["rows"] if row["classes"]]
    named = [say(f"column_{name}") for name in CELL_COLUMNS]
    shown = [
        [row["day"] for row in rows],
        [row["model"] or spoken.UNKNOWN for row in rows],
        [row["meter"] or spoken.UNKNOWN for row in rows],
        [spoken.money(row["billed_usd"]) for row in rows],
        [spoken.money(row["ledger_usd"]) for row in rows],
        [signed(row["difference_usd"]) for row in rows],
        [_because(row["classes"], say) for row in rows],
    ]
    return pa.table(dict(zip(named, shown, strict=True)))


def _because(classes: Mapping[str, str], say: Say) -> str:
    return ", ".join(f"{say(f'class_{name}')} {signed(usd)}" for name, usd in classes.items())


def amount(text: str | None) -> str:
    """Write an amount in a currency that stands beside it; unknown is a dash."""
    return spoken.UNKNOWN if text is None else spoken.money(text).replace("$", "")


def commitment_rows(rows: Sequence[Mapping[str, Any]], names: dict[str, str]) -> pa.Table:
    """Return the table of commitments."""
    columns: dict[str, list[str]] = {
        names["contract"]: [row["contract"] for row in rows],
        names["period"]: [f"{row['start'][:10]} – {row['end'][:10]}" for row in rows],  # noqa: RUF001 - a range's dash
    }
    for name in COMMITMENT_COLUMNS[2:]:
        columns[names[name]] = [spoken.money(row[f"{name}_usd"]) for row in rows]
    return pa.table(columns)


def currency_rows(answer: Mapping[str, Any], names: dict[str, str]) -> pa.Table:
    """Return the table of days in another currency."""
    days = answer["days"]
    return pa.table(
        {
            names["day"]: [day["day"] for day in days],
            names["cost"]: [spoken.money(day["cost_usd"]) for day in days],
            names["amount"]: [amount(day["amount"]) for day in days],
            names["rate"]: [day["usd_per_unit"] or spoken.UNKNOWN for day in days],
            names["rate_day"]: [day["rate_day"] or spoken.UNKNOWN for day in days],
            names["rate_source"]: [day["rate_source"] or spoken.UNKNOWN for day in days],
        }
    )


def currency_groups(answer: Mapping[str, Any], names: dict[str, str]) -> pa.Table:
    """Return the table of groups in another currency, the dearest first."""
    groups = answer["groups"]
    return pa.table(
        {
            names["group"]: [one["group"] or UNATTRIBUTED for one in groups],
            names["cost"]: [spoken.money(one["cost_usd"]) for one in groups],
            names["amount"]: [amount(one["amount"]) for one in groups],
        }
    )


def currency_points(answer: Mapping[str, Any], *, other: str) -> list[Point]:
    """Turn days of the dearest groups into marks; a day that the window cuts is partial."""
    zone, end = ZoneInfo(answer["zone"]), spoken.parse(answer["end"])
    rank = {name: place for place, name in enumerate(currency_series(answer, other=other))}
    marks = []
    for point in answer["series"]:
        series = other if point["is_other"] else point["group"] or UNATTRIBUTED
        tomorrow = datetime.fromisoformat(point["day"]).replace(tzinfo=zone) + timedelta(days=1)
        marks.append(
            Point(
                at=f"{point['day']}T00:00:00.000000Z",
                until=f"{tomorrow:%Y-%m-%d}T00:00:00.000000Z",
                usd=float(point["amount"]),
                cost=f"{amount(point['amount'])} {answer['currency']}",
                series=series,
                rank=rank[series],
                calls=0,
                partial=tomorrow > end,
            )
        )
    return marks


def currency_series(answer: Mapping[str, Any], *, other: str) -> list[str]:
    """Return the names in a chart, dearest first, all others last."""
    shown = {point["group"] or UNATTRIBUTED for point in answer["series"] if not point["is_other"]}
    names = [one["group"] or UNATTRIBUTED for one in answer["groups"]]
    top = [name for name in names if name in shown]
    return [*top, other] if any(point["is_other"] for point in answer["series"]) else top
