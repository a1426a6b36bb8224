"""Data quality: who reports, and what was reported more than once and billed once."""

import streamlit as st

from dashboard import data, filters, quality, spoken, tables
from dashboard.filters import Filters
from dashboard.panel import Panel, empty


def draw(asked: Filters) -> None:
    """Draw the page."""
    _shares(asked)
    _findings(asked)
    _duplicates(asked)
    _emitters(asked)
    _accounts(asked)
    _counters(asked)


def _shares(asked: Filters) -> None:
    with Panel("", asked, key="shares", border=False):
        told = data.document("data-quality/shares", asked.window_params())
        tiles = st.columns(len(quality.SHARES) + 1)
        for tile, name in zip(tiles, quality.SHARES, strict=False):
            share = spoken.ratio(told["shares"][name])
            help_text = asked.say(f"share_{name}_help")
            tile.metric(asked.say(f"share_{name}"), share, help=help_text, border=True)
        age = quality.price_list_age(told)
        tiles[-1].metric(
            asked.say("price_list_age"), age, help=asked.say("price_list_age_help"), border=True
        )


def _findings(asked: Filters) -> None:
    with Panel(asked.say("findings"), asked, key="findings", help_text=asked.say("findings_help")):
        found = data.document("quality/completeness", asked.window_params())["findings"]
        if not found:
            st.caption(asked.say("no_findings"))
        notes = []
        for one in found:
            said = quality.finding_line(one, unknown=asked.say("missing_unknown"))
            if one["severity"] == "warning":
                is_here = one["code"] in quality.NOTHING_MISSING
                st.warning(asked.say("finding_note" if is_here else "finding_line", **said))
            else:  # nothing of it is missing
                notes.append(asked.say("finding_note", **said))
        if notes:  # in one box: every emitter of an import is late
            st.info("  \n".join(notes))


def _accounts(asked: Filters) -> None:
    with Panel(asked.say("accounts"), asked, key="accounts", help_text=asked.say("accounts_help")):
        rows = data.document("quality/completeness", asked.window_params())["accounts"]
        if not rows:
            empty(asked)
            return
        names = {key: asked.say(f"column_{key}") for key in quality.ACCOUNT_COLUMNS}
        shown = quality.account_rows(rows, names, zone=data.document("version")["zone"])
        st.dataframe(
            shown,
            hide_index=True,
            column_config=tables.figures(shown),
            alt=asked.say("accounts"),
        )


def _counters(asked: Filters) -> None:
    with Panel(asked.say("counters"), asked, key="counters", help_text=asked.say("counters_help")):
        rows = data.document("quality/completeness", asked.window_params())["counters"]
        if not rows:
            st.caption(asked.say("no_counters"))
            return
        names = {key: asked.say(f"column_{key}") for key in quality.COUNTER_COLUMNS}
        shown = quality.counter_rows(rows, names)
        st.dataframe(
            shown,
            hide_index=True,
            column_config=tables.figures(shown),
            alt=asked.say("counters"),
        )


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
            column_config=tables.figures(shown),
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
            column_config=tables.figures(shown),
            alt=asked.say("emitters"),
        )


draw(filters.current())
