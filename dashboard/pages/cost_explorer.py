"""Cost explorer: one question about cost, as a chart over time and a table whose rows add up."""

from typing import Any, Final

import streamlit as st

from dashboard import charts, data, filters, frames, money_rows, spoken, tables
from dashboard.filters import Filters
from dashboard.panel import Panel, empty

USD: Final = "USD"


def draw(asked: Filters) -> None:
    """Draw the page."""
    code = _currency(asked)
    if code == USD:
        _chart(asked)
    else:
        _chart_in(asked, code)
    _table(asked)
    if code != USD:
        _groups_in(asked, code)


def _currency(asked: Filters) -> str:
    """Let the reader choose a currency; without rates there is nothing to choose."""
    say = asked.say
    with Panel("", asked, key="explorer-unit", border=False):
        known = data.document("currencies")["rows"]
        if not known:
            st.caption(say("no_currencies"))
            return USD
        code = st.selectbox(
            say("display_currency"),
            (USD, *known),
            key="display",
            bind="query-params",
            width=200,
        )
        st.caption(say("usd_is_accounted"))
        return str(code or USD)
    return USD  # the panel says why there are none


def _converted(asked: Filters, code: str) -> dict[str, Any]:
    params = (("group_by", asked.group_by), ("top", str(frames.MAX_SERIES)), *asked.params())
    answer: dict[str, Any] = data.document("currencies/costs", (("currency", code), *params))
    return answer


def _chart_in(asked: Filters, code: str) -> None:
    """Draw days of cost in another currency; rates are of days, so no step is shorter."""
    group = asked.say(f"dim_{asked.group_by}")
    title = asked.say("cost_by_in", group=group, currency=spoken.plain(code))
    with Panel(title, asked, key="explorer-chart"):
        answer = _converted(asked, code)
        if not answer["series"]:
            empty(asked)
            return
        other, step = asked.say("other_groups"), "day"
        st.altair_chart(
            charts.area(
                money_rows.currency_points(answer, other=other),
                series=money_rows.currency_series(answer, other=other),
                titles=frames.titles(asked.say),
                granularity=step,
                unit=code,
            ),
            alt=asked.say(
                "spend_alt_in", group=group, step=asked.say(f"step_{step}"), currency=code
            ),
        )
        st.caption(asked.say("partial_help"))


def _chart(asked: Filters) -> None:
    group = asked.say(f"dim_{asked.group_by}")
    with Panel(asked.say("cost_by", group=group), asked, key="explorer-chart"):
        step = asked.granularity()
        grouped = (*asked.params(), ("group_by", asked.group_by))
        answer = data.table("costs", (*grouped, ("granularity", step)))
        if not answer.rows.num_rows:
            empty(asked)
            return
        top = frames.top_groups(data.table("costs", grouped), asked.group_by)
        other = asked.say("other_groups")
        marks = frames.points(answer, asked.group_by, other=other, top=top)
        series = [*top, other] if any(mark.series == other for mark in marks) else top
        st.altair_chart(
            charts.area(marks, series=series, titles=frames.titles(asked.say), granularity=step),
            alt=asked.say("spend_alt", group=group, step=asked.say(f"step_{step}")),
        )
        st.caption(asked.say("partial_help"))


def _table(asked: Filters) -> None:
    with Panel(
        asked.say("table_by", group=asked.say(f"dim_{asked.group_by}")), asked, key="explorer-table"
    ):
        answer = data.table("costs", (*asked.params(), ("group_by", asked.group_by)))
        if not answer.rows.num_rows:
            empty(asked)
            return
        names = {key: asked.say(f"column_{key}") for key in frames.GROUP_COLUMNS}
        shown = frames.group_rows(answer, asked.group_by, names)
        st.dataframe(
            shown,
            hide_index=True,
            column_config=tables.figures(shown),
            alt=asked.say("table_by", group=asked.group_by),
        )
        totals = answer.meta["totals"]
        st.markdown(
            asked.say(
                "table_total",
                cost=spoken.plain(spoken.money(totals["cost_usd"])),
                calls=spoken.count(totals["calls"]),
                unpriced=spoken.count(totals["unpriced_calls"]),
                prices=asked.say(f"basis_{answer.meta['basis']}"),
                zone=spoken.plain(answer.meta["zone"]),
                start=spoken.moment(answer.meta["start"], zone=answer.meta["zone"]),
                end=spoken.moment(answer.meta["end"], zone=answer.meta["zone"]),
            )
        )
        if idle := frames.idle(answer.meta):
            st.markdown(asked.say("includes_idle", idle=idle[0], both=idle[1]))
        if corrected := frames.corrections(answer.meta):
            st.caption(spoken.plain(asked.say("includes_corrections", corrections=corrected)))


def _groups_in(asked: Filters, code: str) -> None:
    """Draw the same groups in another currency, and the rates."""
    say = asked.say
    with Panel(
        say("in_currency"), asked, key="explorer-currency", help_text=say("in_currency_help")
    ):
        answer = _converted(asked, code)
        total = say(
            "currency_total",
            amount=money_rows.amount(answer["amount"]),
            currency=spoken.plain(code),
            usd=spoken.plain(spoken.money(answer["cost_usd"])),
            missing=answer["days_without_rate"],
        )
        st.markdown(total)
        names = {key: say(f"column_{key}") for key in ("group", "cost")}
        groups = money_rows.currency_groups(answer, {**names, "amount": code})
        st.dataframe(groups, hide_index=True, alt=say("in_currency"))
        with st.expander(say("rates_used")):
            titles = {key: say(f"column_{key}") for key in money_rows.CURRENCY_COLUMNS}
            days = money_rows.currency_rows(answer, titles)
            st.dataframe(days, hide_index=True, alt=say("rates_used"))


draw(filters.current())
