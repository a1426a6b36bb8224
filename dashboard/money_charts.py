"""Charts of the finance pages, from plain marks."""

from collections.abc import Sequence
from typing import Any, Final

import altair as alt

from dashboard.charts import AnyChart

_MONEY: Final = alt.Axis(format="$,.4~r", tickCount=5)
_COLORS: Final = {"total": "#5B6770", "more": "#D55E00", "less": "#009E73"}
_UNEXPLAINED: Final = "#D55E00"
_EXPLAINED: Final = "#0072B2"


def waterfall(bars: Sequence[dict[str, Any]], titles: dict[str, str]) -> AnyChart:
    """Draw a walk from one amount to another; more is orange, less is green, ends are grey."""
    base = alt.Chart(alt.InlineData(values=list(bars))).encode(
        x=alt.X("step:N", sort=alt.EncodingSortField("place"), title=None,
                axis=alt.Axis(labelAngle=0, labelExpr="split(datum.label, ' ')", labelLimit=0)),
        tooltip=[
            alt.Tooltip("step:N", title=titles["step"]),
            alt.Tooltip("cost:N", title=titles["cost"]),
        ],
    )  # fmt: skip
    kinds = list(_COLORS)
    drawn = base.mark_bar(cornerRadius=2).encode(
        y=alt.Y("low:Q", title="USD", axis=_MONEY),
        y2="high:Q",
        color=alt.Color(
            "kind:N",
            scale=alt.Scale(domain=kinds, range=[_COLORS[kind] for kind in kinds]),
            legend=None,
        ),
    )
    labels = base.mark_text(dy=-8, fontSize=11).encode(y="top:Q", text="cost:N")
    return alt.layer(drawn, labels).properties(height=340)


def curve(points: Sequence[dict[str, Any]], titles: dict[str, str]) -> alt.Chart:
    """Draw cost so far over the dearest groups so far."""
    drawn: alt.Chart = (
        alt.Chart(alt.InlineData(values=list(points)))
        .mark_area(line={"color": _EXPLAINED}, color=_EXPLAINED, opacity=0.25)
        .encode(
            x=alt.X("groups:Q", title=titles["groups"], axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("usd:Q", title="USD", axis=_MONEY),
            tooltip=[
                alt.Tooltip("groups:Q", title=titles["groups"]),
                alt.Tooltip("cost:N", title=titles["so_far"]),
            ],
        )
        .properties(height=280)
    )
    return drawn


def residuals(bars: Sequence[dict[str, Any]], titles: dict[str, str]) -> AnyChart:
    """Draw what a difference is made of; what is unexplained stands out."""
    base = alt.Chart(alt.InlineData(values=list(bars))).encode(
        y=alt.Y("class:N", sort=alt.EncodingSortField("place"), title=None,
                axis=alt.Axis(labelLimit=220)),
        tooltip=[
            alt.Tooltip("class:N", title=titles["class"]),
            alt.Tooltip("cost:N", title=titles["cost"]),
        ],
    )  # fmt: skip
    drawn = base.mark_bar(cornerRadius=2).encode(
        x=alt.X("usd:Q", title="USD", axis=_MONEY),
        color=alt.condition("datum.is_unexplained", alt.value(_UNEXPLAINED), alt.value(_EXPLAINED)),
    )
    labels = base.mark_text(align="left", dx=5, fontSize=11).encode(x="label_at:Q", text="cost:N")
    return alt.layer(drawn, labels).properties(height=44 * max(1, len(bars)) + 60)
