"""Savings: what the prompt cache saved after what it cost to fill, and what else could be saved."""

import streamlit as st

from dashboard import data, filters, levers, savings, spoken, tables
from dashboard.filters import Filters
from dashboard.panel import Panel


def draw(asked: Filters) -> None:
    """Draw the page."""
    _cache(asked)
    with Panel("", asked, key="savings-window", border=False):
        meta = data.table("costs", asked.params()).meta
        levers.what_if(asked, meta)
        levers.levers(asked, meta)


def _cache(asked: Filters) -> None:
    say = asked.say
    with Panel(say("cache"), asked, key="cache", help_text=say("cache_help")):
        by = st.segmented_control(
            say("cache_by"),
            savings.CACHE_GROUPS,
            default=savings.CACHE_GROUPS[0],
            key="cache-by",
            format_func=lambda name: say(f"dim_{name}"),
        )
        group = by or savings.CACHE_GROUPS[0]
        answer = data.long_table("costs/cache", (*asked.params(), ("group_by", group)))
        tiles = savings.cache_tiles(answer.meta["totals"]).items()
        for column, (name, figure) in zip(st.columns(len(tiles)), tiles, strict=True):
            column.metric(say(name), spoken.plain(figure), help=say(f"{name}_help"))
        st.caption(spoken.plain(savings.cache_left_out(answer.meta, say)))
        if not answer.rows.num_rows:
            st.info(say("empty"), icon=":material/inbox:")
            return
        names = {key: say(f"column_{key}") for key in savings.CACHE_COLUMNS}
        shown = savings.cache_rows(answer, group, names)
        st.dataframe(shown, hide_index=True, column_config=tables.figures(shown), alt=say("cache"))


draw(filters.current())
