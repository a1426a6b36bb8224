"""Budgets and policy: where each budget's money is, and which rules run where."""

from typing import Any, Final

import streamlit as st

from dashboard import (
    charts,
    course,
    data,
    filters,
    held_back,
    ledger,
    reverting,
    routing,
    spoken,
    tables,
)
from dashboard.client import ApiProblem, Params
from dashboard.filters import Filters
from dashboard.panel import Panel

NOT_FOUND: Final = 404
TOLD_WIDTH: Final = 800  # pixels: an alert's sentence
COLORS: Final = {
    "settled_enforced": "#0072B2",
    "settled_unproven": "#E69F00",
    "observed_unenforced": "#D55E00",
    "restated": "#CC79A7",
    "leased": "#56B4E9",
    "free": "#D0D7DE",
}


def draw(asked: Filters) -> None:
    """Draw the page."""
    st.markdown(asked.say("budget_sentence"))
    with Panel("", asked, key="zone", border=False):
        st.caption(spoken.plain(asked.say("budget_zone", zone=_zone())))
    _budgets(asked)
    _course(asked)
    _refused(asked)
    _held_back(asked)
    left, right = st.columns(2)
    with left:
        _rollout(asked)
        _generations(asked)
    with right:
        _nodes(asked)
        reverting.revert(asked)
    reverting.dry_run(asked)
    _savings(asked)
    _experiments(asked)


@st.fragment(run_every="10s")
def _budgets(asked: Filters) -> None:
    with Panel(asked.say("budgets"), asked, key="budgets", border=False):
        answer = data.document("budgets", _tenants(asked))
        found, until = answer["rows"], answer["meta"]["recovering_until"]
        if until:
            at = spoken.moment(until, zone=_zone())
            st.warning(asked.say("ledger_recovering", until=at), icon=":material/history:")
        if not found:
            st.info(asked.say("no_budgets"), icon=":material/inbox:")
        for budget in ledger.tightest_first(found):
            _budget(asked, budget)


def _budget(asked: Filters, budget: dict[str, Any]) -> None:
    standing = budget["standing"]
    sentence = ledger.sentence(standing, asked.say)
    with Panel(budget["name"], asked, key=f"budget-{budget['id']}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            color, icon = ledger.mood(standing["used_ratio"])
            used = asked.say("budget_used", ratio=spoken.ratio(standing["used_ratio"]))
            st.badge(used, icon=icon, color=color)
            st.badge(asked.say(f"mode_{budget['mode']}"), color="gray")
            st.caption(spoken.plain(ledger.facts(budget, asked.say)))
        parts = {part: asked.say(f"part_{part}") for part in COLORS}
        st.altair_chart(
            charts.budget_bar(
                ledger.parts(standing, parts, say=asked.say),
                colors={parts[part]: color for part, color in COLORS.items()},
                titles={key: asked.say(f"column_{key}") for key in ("part", "amount")},
                is_money=standing["unit"] == "usd",
            ),
            alt=sentence,
        )
        st.markdown(spoken.plain(sentence))


@st.fragment(run_every="60s")
def _course(asked: Filters) -> None:
    with Panel(asked.say("course"), asked, key="course", help_text=asked.say("course_help")):
        found = ledger.tightest_first(data.document("budgets", _tenants(asked))["rows"])
        if not found:
            st.caption(asked.say("no_course"))
            return
        names = {budget["id"]: budget["name"] for budget in found}
        chosen = st.selectbox(
            asked.say("column_budget"), list(names), format_func=names.__getitem__, key="course-of"
        )
        zone = _zone()
        taken = data.document(f"budgets/{chosen}/course")
        said = course.sentence(taken, asked.say, zone=zone)
        if taken["reached"]:
            lines = {line: asked.say(f"line_{line}") for line in course.LINES}
            drawn = course.chart(taken, lines, title=asked.say("line_left"), zone=zone)
            st.altair_chart(drawn, alt=said)
        else:
            st.caption(asked.say("course_rolls"))
        st.markdown(spoken.plain(said))
        _edits(asked, chosen, zone=zone)
        _told(asked, chosen, zone=zone)


def _edits(asked: Filters, budget_id: str, *, zone: str) -> None:
    st.markdown(f"##### {asked.say('edits')}")
    found = data.document(f"budgets/{budget_id}/edits")["rows"]
    if not found:
        st.caption(asked.say("no_edits"))
        return
    names = {key: asked.say(f"column_{key}") for key in course.EDIT_COLUMNS}
    shown = course.edit_rows(found, names, say=asked.say, zone=zone)
    st.dataframe(shown, hide_index=True, alt=asked.say("edits"))


def _told(asked: Filters, budget_id: str, *, zone: str) -> None:
    st.markdown(f"##### {asked.say('told')}")
    found = course.alerts_of(data.document("alerts")["rows"], budget_id)
    if not found:
        st.caption(asked.say("nothing_told"))
        return
    names = {key: asked.say(f"column_{key}") for key in course.ALERT_COLUMNS}
    shown = course.alert_rows(found, names, say=asked.say, zone=zone)
    wide = {names["told_what"]: st.column_config.TextColumn(width=TOLD_WIDTH)}
    st.dataframe(shown, hide_index=True, column_config=wide, alt=asked.say("told"))


@st.fragment(run_every="60s")
def _refused(asked: Filters) -> None:
    with Panel(asked.say("refused"), asked, key="refused", help_text=asked.say("refused_help")):
        found = data.document("refusals", asked.window_params())["rows"]
        if not found:
            st.caption(asked.say("no_refused"))
            return
        budgets = data.document("budgets", _tenants(asked))["rows"]
        names = {key: asked.say(f"column_{key}") for key in course.REFUSED_COLUMNS}
        shown = course.refused_rows(
            found,
            names,
            budgets={budget["id"]: budget["name"] for budget in budgets},
            say=asked.say,
            zone=_zone(),
        )
        st.dataframe(
            shown,
            hide_index=True,
            column_config=tables.figures(shown),
            alt=asked.say("refused"),
        )


@st.fragment(run_every="10s")
def _held_back(asked: Filters) -> None:
    held_back.held_back(asked, zone=_zone())


@st.fragment(run_every="10s")
def _rollout(asked: Filters) -> None:
    with Panel(asked.say("rollout"), asked, key="rollout"):
        found = _last_rollout()
        if found is None:
            st.caption(asked.say("no_rollout"))
            return
        color, icon = ledger.ROLLOUT_MOODS[found["state"]]
        st.badge(asked.say(f"rollout_{found['state']}"), icon=icon, color=color)
        st.markdown(spoken.plain(ledger.rollout_sentence(found, asked.say, zone=_zone())))


def _last_rollout() -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = data.document("policy/rollout")
    except ApiProblem as problem:
        if problem.status == NOT_FOUND:
            return None
        raise
    return found


def _generations(asked: Filters) -> None:
    with Panel(asked.say("generations"), asked, key="generations"):
        found = data.document("policy/generations")["rows"]
        if not found:
            st.caption(asked.say("no_generations"))
            return
        names = {key: asked.say(f"column_{key}") for key in ledger.GENERATION_COLUMNS}
        shown = ledger.generation_rows(found, names, zone=_zone())
        st.dataframe(
            shown,
            hide_index=True,
            column_config=tables.figures(shown),
            alt=asked.say("generations"),
        )


def _nodes(asked: Filters) -> None:
    with Panel(asked.say("nodes"), asked, key="nodes"):
        found = data.document("policy/nodes")["rows"]
        if not found:
            st.caption(asked.say("no_nodes"))
            return
        names = {key: asked.say(f"column_{key}") for key in ledger.NODE_COLUMNS}
        shown = ledger.node_rows(found, names, say=asked.say, zone=_zone())
        st.dataframe(shown, hide_index=True, alt=asked.say("nodes"))


def _savings(asked: Filters) -> None:
    with Panel(asked.say("savings"), asked, key="savings", help_text=asked.say("savings_help")):
        found = data.document("savings", asked.window_params())
        if not found["rerouted_calls"]:
            st.caption(asked.say("nothing_rerouted"))
            return
        st.markdown(
            spoken.plain(
                asked.say(
                    "savings_sentence",
                    saved=spoken.money(found["saved_usd"]),
                    calls=spoken.count(found["rerouted_calls"]),
                    unknown=spoken.count(found["unknown_calls"]),
                )
            )
        )
        if found["rows"]:
            names = {key: asked.say(f"column_{key}") for key in routing.SAVINGS_COLUMNS}
            shown = routing.savings_rows(found["rows"], names)
            st.dataframe(
                shown,
                hide_index=True,
                column_config=tables.figures(shown),
                alt=asked.say("savings"),
            )


def _experiments(asked: Filters) -> None:
    title, about = asked.say("experiments"), asked.say("experiments_help")
    with Panel(title, asked, key="experiments", help_text=about):
        found = data.document("experiments", asked.window_params())["rows"]
        if not found:
            st.caption(asked.say("no_experiments"))
            return
        names = {key: asked.say(f"column_{key}") for key in routing.EXPERIMENT_COLUMNS}
        shown = routing.experiment_rows(found, names, say=asked.say)
        st.dataframe(shown, hide_index=True, column_config=tables.figures(shown), alt=title)


def _zone() -> str:
    """Return the organisation's zone: every time on the page but a window's own is in it."""
    return str(data.document("version")["zone"])


def _tenants(asked: Filters) -> Params:
    return tuple(("tenant", tenant) for tenant in asked.tenants)


draw(filters.current())
