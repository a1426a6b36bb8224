"""Reconciliation: kept comparisons of bills with the ledger, and what each difference is made of."""

from typing import Any

import streamlit as st

from dashboard import data, filters, money_charts, money_rows, spoken, tables
from dashboard.filters import Filters
from dashboard.panel import Panel


def draw(asked: Filters) -> None:
    """Draw the page."""
    say = asked.say
    with Panel(say("reconciled"), asked, key="reconciled", help_text=say("reconciled_help")):
        kept = {row["id"]: row for row in data.document("reconciliations")["rows"]}
        if not kept:
            st.info(say("no_reconciliations"), icon=":material/inbox:")
            return
        chosen = st.selectbox(
            say("reconciliation_choice"),
            list(kept),
            key="reconciliation",
            format_func=lambda name: _title(kept[name]),
        )
        _report(asked, data.document(f"reconciliations/{chosen}"))


def _title(row: dict[str, Any]) -> str:
    start, end = (row[name][:10] for name in ("start", "end"))
    return f"{row['provider']} · {start} – {end} · {spoken.money(row['difference_usd'])}"  # noqa: RUF001 - a range's dash


def _report(asked: Filters, report: dict[str, Any]) -> None:
    say = asked.say
    told = say(
        "reconciliation_line",
        provider=report["provider"],
        billed=spoken.money(report["billed_usd"]),
        ledger=spoken.money(report["ledger_usd"]),
        difference=money_rows.signed(report["difference_usd"]),
    )
    st.markdown(spoken.plain(told))
    _verdict(asked, report)
    bars = money_rows.residuals(report, say)
    if not bars:
        st.success(say("no_differences"), icon=":material/check:")
    else:
        titles = {name: say(f"column_{name}") for name in money_rows.CHART_COLUMNS}
        st.markdown(f"##### {say('residual_chart')}")
        st.altair_chart(
            money_charts.residuals(bars, titles),
            alt=say("residual_alt", parts=", ".join(f"{b['class']} {b['cost']}" for b in bars)),
        )
        st.markdown(f"##### {say('residual_cells')}", help=say("residual_help"))
        shown = money_rows.cell_rows(report, say)
        st.dataframe(
            shown,
            hide_index=True,
            column_config=tables.whole_numbers(shown),
            alt=say("residual_cells"),
        )
    for file in report["files"]:
        line = say(
            "bill_files", name=file["name"], lines=file["lines"], rejected=file["rejected_lines"]
        )
        st.caption(spoken.plain(line))


def _verdict(asked: Filters, report: dict[str, Any]) -> None:
    limit = asked.say(
        "tolerance",
        ratio=spoken.ratio(report["tolerance_ratio"]),
        usd=spoken.money(report["tolerance_usd"]),
    )
    ratio = spoken.ratio(report["unexplained_ratio"])
    if report["within_tolerance"]:
        st.badge(
            asked.say("within_tolerance", ratio=ratio, limit=limit),
            icon=":material/check:",
            color="green",
        )
    else:
        st.badge(
            asked.say("above_tolerance", ratio=ratio, limit=limit),
            icon=":material/warning:",
            color="red",
        )


draw(filters.current())
