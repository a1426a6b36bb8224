"""Why it moved: the change of cost against another period, as a walk over its causes."""

from typing import Final

import streamlit as st

from dashboard import data, filters, money_charts, money_rows, spoken, tables
from dashboard.filters import Filters
from dashboard.panel import Panel, empty

COMPARED: Final = ("previous", "last_week", "last_month", "last_year")


def draw(asked: Filters) -> None:
    """Draw the page."""
    compared = st.segmented_control(
        asked.say("compare"),
        COMPARED,
        default=COMPARED[0],
        key="compare",
        format_func=lambda name: asked.say(f"compare_{name}"),
    )
    against = (("compare", compared or COMPARED[0]),)
    _waterfall(asked, against)
    _groups(asked, against)


def _waterfall(asked: Filters, against: tuple[tuple[str, str], ...]) -> None:
    say = asked.say
    with Panel(say("change_chart"), asked, key="change", help_text=say("change_chart_help")):
        meta = data.table("costs/change", (*asked.params(), *against)).meta
        totals, zone = meta["totals"], meta["zone"]
        if not totals["calls_before"] and not totals["calls_after"]:
            empty(asked)
            return
        before, after = (
            money_rows.known(totals[f"{when}_usd"], totals[f"unpriced_{when}"])
            for when in ("before", "after")
        )
        times = ("start", "end", "before_start", "before_end")
        told = say(
            "change_total",
            before=before,
            after=after,
            change=money_rows.signed(totals["change_usd"]),
            zone=zone,
            **{name: spoken.moment(meta[name], zone=zone) for name in times},
        )
        st.markdown(spoken.plain(told))
        bars = money_rows.steps(meta, say)
        titles = {name: say(f"column_{name}") for name in money_rows.CHART_COLUMNS}
        parts = ", ".join(f"{bar['step']} {bar['cost']}" for bar in bars[1:-1])
        st.altair_chart(
            money_charts.waterfall(bars, titles),
            alt=say("change_alt", before=before, after=after, parts=parts),
        )
        if not meta["duplicates_sought"]:
            st.caption(say("no_duplicates_sought"))


def _groups(asked: Filters, against: tuple[tuple[str, str], ...]) -> None:
    title = asked.say("change_by", group=asked.say(f"dim_{asked.group_by}"))
    with Panel(title, asked, key="change-groups", help_text=asked.say("change_help")):
        grouped = (*asked.params(), *against, ("group_by", asked.group_by))
        answer = data.table("costs/change", grouped)
        if not answer.rows.num_rows:
            empty(asked)
            return
        shown = money_rows.change_rows(answer, asked.group_by, asked.say)
        st.dataframe(shown, hide_index=True, column_config=tables.figures(shown), alt=title)


draw(filters.current())
