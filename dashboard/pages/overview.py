"""Overview: what was spent, by whom, how sure we are of it, and what needs a look."""

from typing import Any, Final

import streamlit as st

from dashboard import charts, course, data, filters, frames, ledger, money_rows, spoken, tables
from dashboard.client import Params
from dashboard.filters import Filters
from dashboard.panel import Panel, empty

MAX_ALERTS: Final = 4
MAX_MOVERS: Final = 5
MAX_BUDGETS: Final = 5
MOVER_COLUMNS: Final = 4  # group, before, after, change; the page of changes has the causes
TILE_HEIGHT: Final = 120  # pixels: one row whether a tile has a delta or not


def draw(asked: Filters) -> None:
    """Draw the page."""
    _tiles(asked)
    left, right = st.columns([2, 1])
    with left:
        _spend(asked)
        _movers(asked)
        _heading(asked)
    with right:
        _groups(asked)
        _alerts(asked)


@st.fragment(run_every="15s")
def _tiles(asked: Filters) -> None:
    say = asked.say
    with Panel("", asked, key="tiles", border=False):
        meta = data.table("costs", (*asked.params(), ("compare", "previous"))).meta
        totals, previous = meta["totals"], meta["previous"]
        basis = say("basis", prices=say(f"basis_{meta['basis']}"), zone=meta["zone"], start=spoken.moment(meta["start"], zone=meta["zone"]),
                    end=spoken.moment(meta["end"], zone=meta["zone"]))  # fmt: skip
        if not totals["calls"]:
            empty(asked, first_run=meta["data_through"] is None)
        tiles = st.columns([1.2, 1, 1.4, 1, 1, 1.2])
        tiles[0].metric(
            say("tile_spend"), _spent(asked, meta), help=basis, delta=_change(previous),
            delta_color="inverse", border=True, height=TILE_HEIGHT,
        )  # fmt: skip
        tiles[1].metric(
            say("tile_calls"),
            spoken.count(totals["calls"]),
            border=True,
            height=TILE_HEIGHT,
            help=basis,
        )
        tiles[2].metric(
            say("tile_tokens"),
            f"{spoken.short(totals['input_tokens'])} / {spoken.short(totals['output_tokens'])}",
            border=True,
            height=TILE_HEIGHT,
            help=say("tile_tokens_help"),
        )
        tiles[3].metric(
            say("tile_unpriced"), spoken.count(totals["unpriced_calls"]), border=True, height=TILE_HEIGHT,
            help=say("tile_unpriced_help"),
        )  # fmt: skip
        with tiles[4]:
            _alerts_tile(asked)
        with tiles[5]:
            _budget_tile(asked)
        st.caption(spoken.plain(_excluded(asked, totals)))
        if corrected := frames.corrections(meta):
            st.caption(spoken.plain(say("includes_corrections", corrections=corrected)))
        if idle := frames.idle(meta):
            st.caption(say("includes_idle", idle=idle[0], both=idle[1]))


def _spent(asked: Filters, meta: dict[str, Any]) -> str:
    """Write the spend; of a window that no data reaches, since when there is none."""
    through = meta["data_through"]
    if through is not None and spoken.parse(through) < spoken.parse(meta["start"]):
        return asked.say("no_data_since", at=spoken.moment(through, zone=meta["zone"]))
    return spoken.money(meta["totals"]["cost_usd"])


def _change(previous: dict[str, Any]) -> str | None:
    share = previous.get("change_ratio")
    if share is None:
        return None
    return f"{spoken.ratio(share)} ({spoken.money(previous['change_usd'])})"


def _excluded(asked: Filters, totals: dict[str, Any]) -> str:
    if not totals["calls"]:
        return ""
    if not totals["unpriced_calls"]:
        return asked.say("excludes_nothing")
    return asked.say(
        "excludes",
        calls=spoken.count(totals["unpriced_calls"]),
        tokens=spoken.count(totals["unpriced_tokens"]),
    )


def _alerts_tile(asked: Filters) -> None:
    with Panel("", asked, key="alerts-tile", border=False):
        found = data.document("alerts", _firing(asked))
        st.metric(
            asked.say("tile_alerts"),
            spoken.count(len(found["rows"])),
            border=True,
            height=TILE_HEIGHT,
        )


def _budget_tile(asked: Filters) -> None:
    with Panel("", asked, key="budget-tile", border=False):
        found = data.document("budgets", tuple(("tenant", t) for t in asked.tenants))["rows"]
        near = f"{ledger.near_limit(found)} / {len(found)}"
        st.metric(
            asked.say("tile_budget"),
            near,
            help=asked.say("tile_budget_help"),
            border=True,
            height=TILE_HEIGHT,
        )


def _alerts(asked: Filters) -> None:
    with Panel(asked.say("tile_alerts"), asked, key="alerts"):
        found = data.document("alerts", _firing(asked))["rows"]
        if not found:
            st.caption(asked.say("no_alerts"))
        zone = data.document("version")["zone"]
        for alert in found[:MAX_ALERTS]:
            summary = alert["annotations"].get("summary", alert["labels"].get("alertname", ""))
            st.warning(
                asked.say(
                    "alert_line",
                    summary=spoken.plain(summary),
                    since=spoken.moment(alert["since"], zone=zone),
                    zone=zone,
                ),
                icon=":material/notifications_active:",
            )
        if len(found) > MAX_ALERTS:
            st.caption(asked.say("more_alerts", count=len(found) - MAX_ALERTS))


def _firing(asked: Filters) -> Params:
    return (("state", "firing"), *(("tenant", tenant) for tenant in asked.tenants))


def _spend(asked: Filters) -> None:
    with Panel(
        asked.say("spend_over_time"), asked, key="spend", help_text=asked.say("partial_help")
    ):
        step = asked.granularity()
        answer = data.table(
            "costs", (*asked.params(), ("granularity", step), ("group_by", asked.group_by))
        )
        ranked = data.table("costs", (*asked.params(), ("group_by", asked.group_by)))
        if not answer.rows.num_rows:
            empty(asked)
            return
        top = frames.top_groups(ranked, asked.group_by)
        other = asked.say("other_groups")
        marks = frames.points(answer, asked.group_by, other=other, top=top)
        series = [*top, other] if any(mark.series == other for mark in marks) else top
        st.altair_chart(
            charts.spend(marks, series=series, titles=frames.titles(asked.say), granularity=step),
            alt=asked.say(
                "spend_alt",
                group=asked.say(f"dim_{asked.group_by}"),
                step=asked.say(f"step_{step}"),
            ),
        )


def _movers(asked: Filters) -> None:
    title = asked.say("movers")
    with Panel(title, asked, key="movers", help_text=asked.say("movers_help")):
        compared = (("compare", "previous"), ("group_by", asked.group_by))
        answer = data.table("costs/change", (*asked.params(), *compared))
        if not answer.rows.num_rows:
            empty(asked)
            return
        shown = money_rows.change_rows(answer, asked.group_by, asked.say).slice(0, MAX_MOVERS)
        shown = shown.select(shown.column_names[:MOVER_COLUMNS])
        st.dataframe(shown, hide_index=True, column_config=tables.figures(shown), alt=title)


def _heading(asked: Filters) -> None:
    """Draw where the tightest budgets are likely to end; rolling windows have no end."""
    title = asked.say("heading")
    with Panel(title, asked, key="heading", help_text=asked.say("heading_help")):
        found = data.document("budgets", tuple(("tenant", t) for t in asked.tenants))["rows"]
        kept = [one for one in ledger.tightest_first(found) if one["window"] != "rolling"]
        if not kept:
            st.caption(asked.say("no_budgets"))
            return
        courses = [
            (one["name"], data.document(f"budgets/{one['id']}/course"))
            for one in kept[:MAX_BUDGETS]
        ]
        names = {key: asked.say(f"column_{key}") for key in course.HEADING_COLUMNS}
        zone = data.document("version")["zone"]
        shown = course.heading_rows(courses, names, say=asked.say, zone=zone)
        st.dataframe(shown, hide_index=True, column_config=tables.figures(shown), alt=title)


def _groups(asked: Filters) -> None:
    title = asked.say("top_groups", group=asked.say(f"dim_{asked.group_by}"))
    with Panel(title, asked, key="groups"):
        ranked = data.table("costs", (*asked.params(), ("group_by", asked.group_by)))
        if not ranked.rows.num_rows:
            empty(asked)
            return
        names = {key: asked.say(f"column_{key}") for key in frames.GROUP_COLUMNS}
        shown = frames.group_rows(ranked, asked.group_by, names)
        st.dataframe(
            shown.select([names["group"], names["cost"], names["calls"], names["unpriced"]]),
            hide_index=True,
            alt=title,
            column_config=tables.figures(shown),
        )


draw(filters.current())
