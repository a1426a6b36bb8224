"""Reconciliation: kept comparisons of bills with the ledger, commitments, and other currencies."""

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


def draw_commitments(asked: Filters) -> None:
    """Draw how much of what was promised is used; nothing where nothing was promised."""
    say = asked.say
    with Panel(say("commitments"), asked, key="commitments", help_text=say("commitments_help")):
        found = data.document("contracts/commitments", (("range", asked.range),))["rows"]
        if not found:
            st.caption(say("no_commitments"))
            return
        for row in found:
            told = say(
                "commitment_line",
                contract=row["contract"],
                drawn=spoken.money(row["drawn_usd"]),
                committed=spoken.money(row["committed_usd"]),
                start=row["start"][:10],
                end=row["end"][:10],
            )
            st.progress(row["drawn_ratio"], text=spoken.plain(told))
        names = {key: say(f"column_{key}") for key in money_rows.COMMITMENT_COLUMNS}
        st.dataframe(
            money_rows.commitment_rows(found, names), hide_index=True, alt=say("commitments")
        )


def draw_currency(asked: Filters) -> None:
    """Draw days of cost in another currency, each at its own rate."""
    say = asked.say
    with Panel(say("in_currency"), asked, key="in-currency", help_text=say("in_currency_help")):
        known = data.document("currencies")["rows"]
        if not known:
            st.caption(say("no_currencies"))
            return
        chosen = st.selectbox(say("currency_choice"), known, key="currency", bind="query-params")
        answer = data.document("currencies/costs", (("currency", chosen), *asked.window_params()))
        total = say(
            "currency_total",
            amount=money_rows.amount(answer["amount"]),
            currency=spoken.plain(chosen),
            usd=spoken.plain(spoken.money(answer["cost_usd"])),
            missing=answer["days_without_rate"],
        )
        st.markdown(total)
        names = {key: say(f"column_{key}") for key in money_rows.CURRENCY_COLUMNS}
        shown = money_rows.currency_rows(answer, names)
        st.dataframe(shown, hide_index=True, alt=say("in_currency"))


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
            column_config=tables.figures(shown),
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
draw_commitments(filters.current())
draw_currency(filters.current())
