"""Data quality: who reports, and what was reported more than once and billed once."""

import streamlit as st

from dashboard import data, filters, quality, spoken, tables
from dashboard.filters import Filters
from dashboard.panel import Panel, empty


def draw(asked: Filters) -> None:
    """Draw the page."""
    _duplicates(asked)
    _emitters(asked)


def _duplicates(asked: Filters) -> None:
    with Panel(
        asked.say("duplicates"), asked, key="duplicates", help_text=asked.say("duplicates_help")
    ):
        answer = data.table("data-quality/duplicates", asked.window_params())
        if not answer.rows.num_rows:
            empty(asked)
            return
        totals = answer.meta["totals"]
        st.markdown(
            asked.say(
                "duplicates_total",
                reports=spoken.count(totals["reports"]),
                input=spoken.count(totals["input_tokens"]),
                output=spoken.count(totals["output_tokens"]),
                cost=spoken.plain(spoken.money(totals["cost_usd"])),
            )
        )
        names = {key: asked.say(f"column_{key}") for key in quality.DUPLICATE_COLUMNS}
        shown = quality.duplicate_rows(answer, names)
        st.dataframe(
            shown,
            hide_index=True,
            column_config=tables.whole_numbers(shown),
            alt=asked.say("duplicates"),
        )


def _emitters(asked: Filters) -> None:
    with Panel(asked.say("emitters"), asked, key="emitters", help_text=asked.say("emitters_help")):
        answer = data.table("data-quality", asked.tenant_params())
        if not answer.rows.num_rows:
            empty(asked, first_run=True)
            return
        names = {key: asked.say(f"column_{key}") for key in quality.EMITTER_COLUMNS}
        shown = quality.emitter_rows(answer, names)
        st.dataframe(
            shown,
            hide_index=True,
            column_config=tables.whole_numbers(shown),
            alt=asked.say("emitters"),
        )


draw(filters.current())
