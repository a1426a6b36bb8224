"""Charts from plain marks; each has a sentence for those who can not see it."""

from collections.abc import Sequence
from typing import Any, Final

import altair as alt
import msgspec

from dashboard.frames import Point

# Okabe and Ito's eight, told apart with the common colour blindnesses; grey for the rest.
PALETTE: Final = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7F3C8D",
)  # fmt: skip
OTHER: Final = "#9AA0A6"
USD: Final = "USD"
_HEIGHT: Final = 320
_LEGEND_WIDTH: Final = 520  # pixels: of a chart beside the sidebar of a small screen
_LEGEND_LETTER: Final = 7
_LEGEND_SYMBOL: Final = 30

AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart


def spend(
    points: Sequence[Point], *, series: list[str], titles: dict[str, str], granularity: str
) -> AnyChart:
    """Draw cost over time, stacked by series; a bucket that is not complete is paler."""
    # Rectangles, not bars: months of a fiscal calendar are no time unit that a chart knows.
    stacked = alt.Chart(_values(points)).transform_stack(
        stack="usd", as_=["low", "high"], groupby=["at"], sort=[alt.SortField("rank")]
    )
    base = stacked.encode(
        x=_time_axis(granularity),
        x2="until:T",
        y=alt.Y("low:Q", title="USD", axis=alt.Axis(format="$,.4~r", tickCount=5)),
        y2="high:Q",
        opacity=alt.condition("datum.partial", alt.value(0.45), alt.value(1.0)),
        tooltip=[
            alt.Tooltip(
                "at:T",
                title=titles["time"],
                format="%Y-%m-%d %H:%M",
                timeUnit="utcyearmonthdatehoursminutes",
            ),
            alt.Tooltip("series:N", title=titles["group"]),
            alt.Tooltip("cost:N", title=titles["cost"]),
            alt.Tooltip("calls:Q", title=titles["calls"], format=","),
        ],
    )
    bars = base.mark_rect(stroke="white", strokeWidth=1).encode(color=_color(series))
    return alt.layer(bars).properties(height=_HEIGHT)


def area(
    points: Sequence[Point],
    *,
    series: list[str],
    titles: dict[str, str],
    granularity: str,
    unit: str = USD,
) -> AnyChart:
    """Draw cost over time as stacked areas in a currency; the incomplete end is marked."""
    shown = _values(points)
    money = "$,.4~r" if unit == USD else ",.4~r"
    areas = (
        alt.Chart(shown)
        # A group without calls in a bucket has no row: it is zero there, not a straight line across.
        .transform_impute("usd", key="at", groupby=["series", "rank"], value=0)
        .mark_area(opacity=0.9, interpolate="linear", line=False)
        .encode(
            x=_time_axis(granularity),
            y=alt.Y(
                "sum(usd):Q", stack="zero", title=unit, axis=alt.Axis(format=money, tickCount=5)
            ),
            color=_color(series),
            order=alt.Order("rank:Q"),
            tooltip=[
                alt.Tooltip("series:N", title=titles["group"]),
                alt.Tooltip("sum(usd):Q", title=f"{titles['cost']} ({unit})", format=money),
            ],
        )
    )
    partial = (
        alt.Chart(shown)
        .transform_filter("datum.partial")
        .mark_rule(strokeDash=[4, 4], color=OTHER, strokeWidth=2)
        .encode(x=alt.X("at:T", scale=alt.Scale(type="utc")), tooltip=alt.value(titles["partial"]))
    )
    return alt.layer(areas, partial).properties(height=_HEIGHT)


def waterfall(
    rows: Sequence[dict[str, Any]], *, colors: dict[str, str], titles: dict[str, str]
) -> AnyChart:
    """Draw a trace: a bar a span, in tree order, coloured by what it is to the bill."""
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        y=alt.Y("row:O", sort=None, axis=None, scale=alt.Scale(paddingInner=0.25)),
    )
    bars = base.mark_bar(cornerRadius=2, minBandSize=6).encode(
        x=alt.X("start_ms:Q", title=titles["milliseconds"], axis=alt.Axis(orient="top", grid=True)),
        x2="end_ms:Q",
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=list(colors), range=list(colors.values())),
            legend=alt.Legend(orient="bottom", labelLimit=0),
        ),
        tooltip=[
            alt.Tooltip(f"{field}:N", title=titles[field])
            for field in ("name", "service", "duration", "tokens", "cost", "kind", "why")
        ],
    )
    labels = base.mark_text(align="left", dx=4, dy=0, limit=420, fontSize=11).encode(
        x=alt.X("start_ms:Q"), text="label:N"
    )
    return alt.layer(bars, labels).properties(height=28 * len(rows) + 130)


def budget_bar(
    parts: Sequence[dict[str, Any]],
    *,
    colors: dict[str, str],
    titles: dict[str, str],
    is_money: bool = True,
) -> AnyChart:
    """Draw where a budget's limit is as one bar whose parts are the terms of the sentence."""
    bar: AnyChart = (
        alt.Chart(alt.InlineData(values=list(parts)))
        .mark_bar(height=26)
        .encode(
            x=alt.X(
                "size:Q",
                stack="zero",
                title=None,
                scale=alt.Scale(nice=False),
                axis=alt.Axis(format="$,.4~r" if is_money else ",.4~r", tickCount=5),
            ),
            color=alt.Color(
                "part:N",
                title=None,
                scale=alt.Scale(domain=list(colors), range=list(colors.values())),
                legend=alt.Legend(orient="bottom", columns=6, labelLimit=0),
            ),
            order=alt.Order("rank:Q"),
            tooltip=[
                alt.Tooltip("part:N", title=titles["part"]),
                alt.Tooltip("amount:N", title=titles["amount"]),
            ],
        )
        .properties(height=120)
    )
    return bar


def _values(points: Sequence[Point]) -> alt.InlineData:
    return alt.InlineData(values=[msgspec.to_builtins(point) for point in points])


def _time_axis(granularity: str) -> alt.X:
    label = {"hour": "%d %b %H:%M", "month": "%b %Y"}.get(granularity, "%d %b")
    ticks: Any = "month" if granularity == "month" else 8  # no month is named twice
    return alt.X(
        "at:T",
        title=None,
        scale=alt.Scale(type="utc"),
        axis=alt.Axis(format=label, labelAngle=0, tickCount=ticks, labelOverlap=True, grid=False),
    )


def _color(series: list[str]) -> alt.Color:
    shades = [*PALETTE[: len(series)], OTHER][: len(series)]
    legend = (
        alt.Legend(orient="bottom", columns=_legend_columns(series), labelLimit=0)
        if len(series) > 1
        else None
    )
    return alt.Color(
        "series:N", title=None, scale=alt.Scale(domain=series, range=shades), legend=legend
    )


def _legend_columns(series: Sequence[str]) -> int:
    """Answer how many names stand in a row of the legend without being cut."""
    width = _LEGEND_SYMBOL + _LEGEND_LETTER * max(map(len, series))
    return min(len(series), max(1, _LEGEND_WIDTH // width))
