"""GPU cost: who used which pool, and what nobody used."""

import streamlit as st

from dashboard import data, filters, gpu, spoken, tables
from dashboard.filters import Filters
from dashboard.panel import Panel


def draw(asked: Filters) -> None:
    """Draw the page."""
    answer = None
    with Panel(asked.say("gpu_shares"), asked, key="gpu-shares", help_text=asked.say("gpu_help")):
        answer = data.table("gpu", asked.window_params())
        if not answer.rows.num_rows:
            st.caption(asked.say("gpu_none"))
            return
        total = spoken.plain(spoken.money(answer.meta["totals"]["cost_usd"]))
        st.markdown(asked.say("gpu_total", cost=total))
        names = {key: asked.say(f"column_{key}") for key in gpu.SHARE_COLUMNS}
        shown = gpu.share_rows(answer, names, idle=asked.say("gpu_idle"))
        st.dataframe(
            shown,
            hide_index=True,
            column_config=tables.figures(shown),
            alt=asked.say("gpu_shares"),
        )
    if answer is not None and answer.meta["bills"]:
        with Panel(asked.say("gpu_bills"), asked, key="gpu-bills"):
            names = {key: asked.say(f"column_{key}") for key in gpu.BILL_COLUMNS}
            shown = gpu.bill_rows(answer, names)
            st.dataframe(shown, hide_index=True, alt=asked.say("gpu_bills"))


draw(filters.current())
