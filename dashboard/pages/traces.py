"""Traces: the newest calls, and the waterfall of one trace with what each span is to the bill."""

from typing import Final

import streamlit as st

from dashboard import charts, data, filters, spoken, tables, tracing
from dashboard.client import ApiProblem, Table
from dashboard.filters import Filters
from dashboard.panel import Panel, empty

PAGE_ROWS: Final = "100"
CALLS_HEIGHT: Final = 640  # pixels: what a screen has below the heading
URL_KEY: Final = "trace"
# Light enough for the dark label that lies on each bar.
COLORS: Final = {
    "billed": "#56B4E9",
    "unpriced": "#E69F00",
    "suppressed": "#C3C8CE",
    "other": "#E6EAEF",
}


def draw(asked: Filters) -> None:
    """Draw the page; the chosen trace stands in the URL."""
    trace_id = st.query_params.get(URL_KEY)
    if trace_id:
        _trace(asked, trace_id)
        _content(asked, trace_id)
    _calls(asked)


def _calls(asked: Filters) -> None:
    with Panel(asked.say("calls_newest"), asked, key="calls", help_text=asked.say("calls_help")):
        answer = data.table("calls", (*asked.params(), ("limit", PAGE_ROWS)))
        if not answer.rows.num_rows:
            empty(asked)
            return
        names = {key: asked.say(f"column_{key}") for key in tracing.CALL_COLUMNS}
        shown = tracing.call_rows(answer, names, zone=str(answer.meta["zone"]))
        st.dataframe(
            shown,
            hide_index=True,
            column_config=tables.figures(shown),
            alt=asked.say("calls_newest"),
            key="calls-table",
            height=CALLS_HEIGHT,
            selection_mode="single-row",
            on_select=lambda: _open_selected(answer),
        )


def _open_selected(answer: Table) -> None:
    """Put the chosen row's trace in the URL: a table's selection does not bind by itself."""
    chosen = st.session_state["calls-table"]["selection"]["rows"]
    if chosen:
        st.query_params[URL_KEY] = answer.rows["trace_id"][chosen[0]].as_py()


def _close() -> None:
    del st.query_params[URL_KEY]


def _trace(asked: Filters, trace_id: str) -> None:
    with Panel(asked.say("trace", id=trace_id), asked, key="trace"):
        st.button(asked.say("close"), key="close-trace", on_click=_close, icon=":material/close:")
        if not tracing.is_trace_id(trace_id):
            raise ApiProblem(404, "not_found", asked.say("trace_id_wrong"))
        answer = data.table(f"traces/{trace_id}")
        meta = answer.meta
        st.markdown(
            asked.say(
                "trace_total",
                cost=spoken.plain(spoken.money(meta["cost_usd"])),
                spans=spoken.count(meta["spans"]),
                unpriced=spoken.count(meta["unpriced_calls"]),
            )
        )
        kinds = {kind: asked.say(f"kind_{kind}") for kind in COLORS}
        rows = tracing.waterfall(answer, kinds)
        titles = {key: asked.say(f"column_{key}") for key in tracing.TOOLTIPS}
        st.altair_chart(
            charts.waterfall(
                rows,
                colors={kinds[kind]: color for kind, color in COLORS.items()},
                titles=titles,
            ),
            alt=asked.say("trace_alt", spans=meta["spans"]),
        )
        if len(rows) < meta["spans"]:
            st.caption(asked.say("trace_cut", shown=len(rows)))
        _reports(asked, answer)


def _reports(asked: Filters, answer: Table) -> None:
    names = {key: asked.say(f"column_{key}") for key in tracing.REPORT_COLUMNS}
    shown = tracing.report_rows(answer, names)
    st.dataframe(
        shown,
        hide_index=True,
        column_config=tables.figures(shown),
        alt=asked.say("reports_help"),
    )
    st.caption(asked.say("reports_help"))


def _content(asked: Filters, trace_id: str) -> None:
    """Show recorded text, asked for only when the viewer opens it: reading it is its own right."""
    if not tracing.is_trace_id(trace_id):
        return
    with Panel(asked.say("content"), asked, key="content", help_text=asked.say("content_help")):
        if not st.toggle(asked.say("content_show"), key="show-content"):
            return
        answer = data.table(f"traces/{trace_id}/content")
        texts = tracing.recorded_texts(answer, zone="UTC")
        if not texts:
            st.info(asked.say("content_none" if answer.meta["capture"] else "content_off"))
            return
        days = spoken.count(answer.meta["retention_days"])
        st.caption(asked.say("content_kept", days=days, texts=spoken.count(len(texts))))
        for number, one in enumerate(texts):
            _recorded(asked, one, number)


def _recorded(asked: Filters, one: tracing.RecordedText, number: int) -> None:
    said = [asked.say(f"content_{one.side}"), spoken.plain(one.attribute)]
    if one.redactions:
        said.append(asked.say("content_redacted", names=spoken.plain(one.redactions)))
    if one.is_cut:
        said.append(asked.say("content_cut"))
    said.append(asked.say("content_until", at=one.kept_until))
    with st.container(key=f"recorded-{number}"):
        st.caption(" · ".join(said))
        # Never Markdown: whoever wrote the text would write on our page.
        st.code(one.text, language=None, wrap_lines=True)


draw(filters.current())
