"""Unit economics: what one of something costs, who bears what, and how concentrated cost is."""

from typing import Final

import streamlit as st

from dashboard import data, filters, money_charts, money_rows, showback, spoken, tables
from dashboard.filters import Filters
from dashboard.panel import Panel

DIMENSIONS: Final = ("user", "customer", "team", "feature", "api_key", "project", "model")


def draw(asked: Filters) -> None:
    """Draw the page."""
    _figures(asked)
    showback.draw(asked)
    _concentration(asked)


def _figures(asked: Filters) -> None:
    say = asked.say
    with Panel(say("unit_costs"), asked, key="unit-costs", help_text=say("unit_costs_help")):
        answer = data.table("unit-costs", asked.params())
        shown = money_rows.unit_rows(answer, say)
        st.dataframe(
            shown,
            hide_index=True,
            column_config=tables.figures(shown),
            alt=say("unit_costs"),
        )
        meta = answer.meta
        told = say(
            "unit_excludes",
            calls=spoken.count(meta["unpriced_calls"]),
            tokens=spoken.count(meta["unpriced_tokens"]),
            prices=say(f"basis_{meta['basis']}"),
            start=spoken.moment(meta["start"], zone=meta["zone"]),
            end=spoken.moment(meta["end"], zone=meta["zone"]),
            zone=meta["zone"],
        )
        st.caption(spoken.plain(told))


def _concentration(asked: Filters) -> None:
    say = asked.say
    with Panel(
        say("concentration"), asked, key="concentration", help_text=say("concentration_help")
    ):
        of = st.segmented_control(
            say("concentration_of"),
            DIMENSIONS,
            default=DIMENSIONS[0],
            key="concentration-of",
            format_func=lambda name: say(f"dim_{name}"),
        )
        chosen = (("dimension", of or DIMENSIONS[0]),)
        answer = data.table("concentration", (*asked.params(), *chosen))
        meta = answer.meta
        if not meta["groups"]:
            st.info(say("no_groups"), icon=":material/inbox:")
            return
        counts = {name: spoken.count(meta[f"{name}_groups"]) for name in ("half", "most")}
        groups = spoken.count(meta["groups"])
        gini = spoken.UNKNOWN if meta["gini"] is None else f"{meta['gini']:.2f}"
        told = say(
            "concentration_line",
            groups=groups,
            cost=spoken.money(meta["cost_usd"]),
            gini=gini,
            **counts,
        )
        st.markdown(spoken.plain(told))
        left, right = st.columns([3, 2])
        titles = {name: say(f"column_{name}") for name in money_rows.CHART_COLUMNS}
        left.altair_chart(
            money_charts.curve(money_rows.curve(meta), titles),
            alt=say("concentration_alt", half=counts["half"], groups=groups),
        )
        shown = money_rows.rank_rows(answer, say)
        right.dataframe(
            shown,
            hide_index=True,
            column_config=tables.figures(shown),
            alt=say("concentration"),
        )


draw(filters.current())
