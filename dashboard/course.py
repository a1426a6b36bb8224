"""Where a budget is going, and who edited it, in the shape that the page draws."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import altair as alt
import pyarrow as pa

from dashboard import spoken
from dashboard.charts import OTHER, AnyChart
from dashboard.frames import wall
from dashboard.ledger import amount

EDIT_COLUMNS: Final = ("edited_at", "edited_by", "edit", "edited_fields")
REFUSED_COLUMNS: Final = ("refused_by", "refused_code", "refused_calls", "refused_last")
REFUSED_CODES: Final = frozenset(
    {
        "budget_exhausted",
        "budget_no_output_limit",
        "budget_recovering",
        "budget_unattributed_request",
        "budget_unbounded_request",
        "budget_unpriced_model",
        "policy_denied",
        "policy_stale",
        "rate_limited",
    }
)
"""Reasons that have words; another is shown as agents write it."""
HEADING_COLUMNS: Final = (
    "heading_budget",
    "heading_spent",
    "heading_limit",
    "heading_likely",
    "heading_range",
    "heading_met",
)
ALERT_COLUMNS: Final = ("told_since", "told_state", "told_what")
LINES: Final = {"left": "#0072B2", "expected": "#E69F00", "ideal": OTHER}
_DASHES: Final = ([1, 0], [6, 4], [2, 3])
_DAYS_ALONE: Final = timedelta(days=7)


def lines(
    course: Mapping[str, Any], names: Mapping[str, str], *, zone: str
) -> list[dict[str, Any]]:
    """Turn a course into points of what is left: so far, as expected, and spent evenly."""
    limit = float(course["limit"])
    ideal = [(course["window_start"], limit), (course["window_end"], 0.0)]
    drawn = {
        "left": [(one["at"], limit - float(one["spent"])) for one in course["reached"]],
        "expected": [(one["at"], limit - float(one["p50"])) for one in course["expected"]],
        "ideal": ideal,
    }
    return [
        {"at": _wall(at, zone), "amount": left, "line": names[line]}
        for line, points in drawn.items()
        for at, left in points
    ]


def _wall(at: str, zone: str) -> str:
    return wall(spoken.parse(at), ZoneInfo(zone))


def cone(course: Mapping[str, Any], *, zone: str) -> list[dict[str, Any]]:
    """Turn what is expected into the band that four in five ends lie in."""
    limit = float(course["limit"])
    return [
        {
            "at": _wall(one["at"], zone),
            "low": limit - float(one["p90"]),
            "high": limit - float(one["p10"]),
        }
        for one in course["expected"]
    ]


def chart(
    course: Mapping[str, Any], names: Mapping[str, str], *, title: str, zone: str
) -> AnyChart:
    """Draw what is left of the limit over the window, beside the even line and in its cone."""
    axis = alt.Axis(format="$,.4~r" if course["unit"] == "usd" else ",.4~r", tickCount=5)
    across = alt.X(
        "at:T",
        title=None,
        scale=alt.Scale(type="utc"),
        axis=alt.Axis(
            format=_dates(course), labelAngle=0, tickCount=8, labelOverlap=True, grid=False
        ),
    )
    domain = [names[line] for line in LINES]
    band = (
        alt.Chart(alt.InlineData(values=cone(course, zone=zone)))
        .mark_area(color=LINES["expected"], opacity=0.2)
        .encode(x=across, y=alt.Y("low:Q", title=title, axis=axis), y2="high:Q")
    )
    drawn = (
        alt.Chart(alt.InlineData(values=lines(course, names, zone=zone)))
        .mark_line(strokeWidth=2)
        .encode(
            x=across,
            y=alt.Y("amount:Q", title=title, axis=axis),
            color=alt.Color(
                "line:N",
                title=None,
                scale=alt.Scale(domain=domain, range=list(LINES.values())),
                legend=alt.Legend(orient="bottom", labelLimit=0),
            ),
            strokeDash=alt.StrokeDash(
                "line:N", legend=None, scale=alt.Scale(domain=domain, range=list(_DASHES))
            ),
            tooltip=[alt.Tooltip("line:N"), alt.Tooltip("amount:Q", title=title, format=",.4~r")],
        )
    )
    empty = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color="#D55E00")
    return alt.layer(band, drawn, empty.encode(y="zero:Q")).properties(height=260)


def _dates(course: Mapping[str, Any]) -> str:
    """Answer how dates are written below a window: with the hour where days repeat."""
    lasts = spoken.parse(course["window_end"]) - spoken.parse(course["window_start"])
    return "%d %b" if lasts >= _DAYS_ALONE else "%d %b %H:%M"


def sentence(course: Mapping[str, Any], say: Callable[..., str], *, zone: str) -> str:
    """Say how far it is, where it is likely to end, and which thresholds are behind it."""
    unit = course["unit"]
    said = [
        say(
            "course_spent",
            spent=amount(unit, course["spent"], say),
            limit=amount(unit, course["limit"], say),
        )
    ]
    if course["expected"]:
        end = course["expected"][-1]
        likely = {name: amount(unit, end[name], say) for name in ("p10", "p50", "p90")}
        said.append(say("course_expected", **likely))
        met = course["exhausted_at"]
        said.append(
            say("course_exhausted", at=spoken.moment(met, zone=zone), zone=zone)
            if met
            else say("course_lasts")
        )
    else:
        said.append(say("course_unknown"))
    if course["thresholds_crossed"]:
        crossed = ", ".join(f"{percent} %" for percent in course["thresholds_crossed"])
        said.append(say("course_crossed", crossed=crossed))
    return " ".join(said)


def heading_rows(
    courses: Sequence[tuple[str, Mapping[str, Any]]],
    names: Mapping[str, str],
    *,
    say: Callable[..., str],
    zone: str,
) -> pa.Table:
    """List budgets beside the end that is likely; what nothing is forecast of is unknown."""
    rows = [_heading(name, course, say=say, zone=zone) for name, course in courses]
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip((names[key] for key in HEADING_COLUMNS), columns, strict=True)))


def _heading(
    name: str, course: Mapping[str, Any], *, say: Callable[..., str], zone: str
) -> tuple[str, ...]:
    unit = course["unit"]
    fixed = (name, amount(unit, course["spent"], say), amount(unit, course["limit"], say))
    if not course["expected"]:
        return (*fixed, spoken.UNKNOWN, spoken.UNKNOWN, spoken.UNKNOWN)
    end = course["expected"][-1]
    low, likely, high = (amount(unit, end[point], say) for point in ("p10", "p50", "p90"))
    met = course["exhausted_at"]
    when = spoken.moment(met, zone=zone)[: len("2026-11-20")] if met else say("heading_lasts")
    return (*fixed, likely, f"{low} \N{EN DASH} {high}", when)


def edit_rows(
    rows: Sequence[dict[str, Any]],
    names: Mapping[str, str],
    *,
    say: Callable[..., str],
    zone: str,
) -> pa.Table:
    """List who did what, newest first."""
    shown = {
        "edited_at": [spoken.moment(row["at"], zone=zone) for row in rows],
        "edited_by": [row["author"] for row in rows],
        "edit": [say(f"edit_{row['kind']}") for row in rows],
        "edited_fields": [
            ", ".join(f"{one['field']}: {one['before']} → {one['after']}" for one in row["fields"])
            for row in rows
        ],
    }
    return pa.table({names[key]: values for key, values in shown.items()})


def alerts_of(rows: Sequence[dict[str, Any]], budget_id: str) -> list[dict[str, Any]]:
    """Keep the alerts of one budget, in the API's order."""
    return [row for row in rows if row["labels"].get("budget_id") == budget_id]


def alert_rows(
    rows: Sequence[dict[str, Any]],
    names: Mapping[str, str],
    *,
    say: Callable[..., str],
    zone: str,
) -> pa.Table:
    """List what was told of a budget, and whether it still holds."""
    shown = {
        "told_since": [spoken.moment(row["since"], zone=zone) for row in rows],
        "told_state": [say(f"told_{row['state']}") for row in rows],
        "told_what": [
            row["annotations"].get("summary", row["labels"].get("alertname", "")) for row in rows
        ],
    }
    return pa.table({names[key]: values for key, values in shown.items()})


def refused_rows(
    rows: Sequence[dict[str, Any]],
    names: Mapping[str, str],
    *,
    budgets: Mapping[str, str],
    say: Callable[..., str],
    zone: str,
) -> pa.Table:
    """List which budget or rule refused how many calls, why, and when last.

    Args:
        rows: the API's.
        names: of the columns.
        budgets: id → name; one that was stopped is shown by its id.
        say: the words.
        zone: of the times.
    """
    shown: dict[str, list[Any]] = {
        "refused_by": [
            budgets.get(row["budget_id"], row["budget_id"]) or row["rule"] or spoken.UNKNOWN
            for row in rows
        ],
        "refused_code": [
            say(f"refused_{row['code']}") if row["code"] in REFUSED_CODES else row["code"]
            for row in rows
        ],
        "refused_calls": [row["calls"] for row in rows],
        "refused_last": [spoken.moment(row["last_at"], zone=zone) for row in rows],
    }
    return pa.table({names[key]: values for key, values in shown.items()})
