"""What could be saved: a switch of model, and the levers beside it, over the calls that are shown."""

from collections.abc import Mapping
from typing import Any, Final

import streamlit as st

from dashboard import data, savings, spoken, tables
from dashboard.client import ApiProblem
from dashboard.filters import Filters
from dashboard.panel import Panel

_FORBIDDEN: Final = 403
_SWITCH: Final = "switch-asked"
_LEVERS: Final = "levers-asked"


def what_if(asked: Filters, meta: Mapping[str, Any]) -> None:
    """Ask for another model, and show what the same calls would have cost there."""
    say = asked.say
    with Panel(say("what_if"), asked, key="what-if", help_text=say("what_if_help")):
        with st.form("what-if-form", border=False):
            target = st.text_input(
                say("what_if_target"), key="what-if-target", placeholder="openai/gpt-5-mini"
            )
            ratio = st.number_input(
                say("what_if_ratio"), 0.1, 10.0, 1.0, 0.05,
                key="what-if-ratio", help=say("what_if_ratio_help"),
            )  # fmt: skip
            if st.form_submit_button(say("what_if_do")) and target.strip():
                st.session_state[_SWITCH] = savings.switch(target, ratio)
        scenario = st.session_state.get(_SWITCH)
        if scenario is None:
            return
        found = data.answer_to("what-if", savings.question(meta, asked, scenario))
        st.markdown(spoken.plain(savings.moved(found, say)))
        _formula(found["formula"], found["scenario"], say("what_if_caveat"))
        names = {key: say(f"column_{key}") for key in savings.FEATURE_COLUMNS}
        shown = savings.feature_rows(found, names)
        st.dataframe(
            shown, hide_index=True, column_config=tables.figures(shown), alt=say("what_if")
        )
        if found["latency"]:
            titles = {key: say(f"column_{key}") for key in savings.LATENCY_COLUMNS}
            measured = savings.latency_rows(found, titles, say)
            st.dataframe(measured, hide_index=True, alt=say("what_if_latency"))
        st.caption(say("what_if_latency"))
        if found["policy_draft"]:
            st.markdown(say("policy_draft"), help=say("policy_draft_help"))
            st.code(found["policy_draft"], language="yaml")
        else:
            st.caption(say("no_policy_draft"))


def levers(asked: Filters, meta: Mapping[str, Any]) -> None:
    """Draw a card a lever; those that price every call again wait until they are asked for."""
    say = asked.say
    box = Panel(say("levers"), asked, key="levers", help_text=say("levers_help"))
    with box, st.form("levers-form", border=False):
        left, right = st.columns(2)
        cached = left.number_input(
            say("lever_cached"), 1, 100, savings.DEFAULT_CACHED_PERCENT, key="lever-cached"
        )
        context = right.number_input(
            say("lever_context"), 1, None, savings.DEFAULT_CONTEXT, key="lever-context"
        )
        if st.form_submit_button(say("levers_do")):
            st.session_state[_LEVERS] = {
                "lever_cache_card": {"cache_permille": cached * 10},
                "lever_batch_card": {"service_tier": "batch"},
                "lever_context_card": {"max_input_tokens": context},
            }
    for name, scenario in st.session_state.get(_LEVERS, {}).items():
        with Panel(say(name), asked, key=name.replace("_", "-")):
            found = data.answer_to("what-if", savings.question(meta, asked, scenario))
            st.markdown(spoken.plain(savings.moved(found, say)))
            _formula(found["formula"], found["scenario"], say(f"{name}_caveat"))
    _idle(asked, meta)
    _commitment(asked)


def _formula(lines: list[str], inputs: Mapping[str, Any], caveat: str) -> None:
    given = {name: value for name, value in inputs.items() if value is not None}
    told = [*lines, *(f"{name} = {value}" for name, value in given.items())]
    st.code("\n".join(told), language=None, wrap_lines=True)
    st.caption(spoken.plain(caveat))


def _idle(asked: Filters, meta: Mapping[str, Any]) -> None:
    say = asked.say
    with Panel(say("lever_idle_card"), asked, key="lever-idle-card"):
        if meta.get("idle") is None:
            st.markdown(say("lever_idle_filtered"))
        elif not data.table("gpu", asked.window_params()).rows.num_rows:
            st.markdown(say("lever_idle_no_pool"))
        else:
            idle = spoken.money(meta["idle"]["cost_usd"])
            st.markdown(spoken.plain(say("lever_idle", idle=idle)))
        _formula([say("lever_idle_formula")], {}, say("lever_idle_caveat"))


def _commitment(asked: Filters) -> None:
    say = asked.say
    with Panel(say("lever_commitment_card"), asked, key="lever-commitment-card"):
        try:
            rows = data.document("contracts/commitments", (("range", asked.range),))["rows"]
        except ApiProblem as problem:
            if problem.status != _FORBIDDEN:
                raise
            rows = None  # commitments are the organisation's: a tenant's viewer does not see them
        if rows:
            for line in savings.commitment_lines(rows, say):
                st.markdown(spoken.plain(line))
        else:
            st.markdown(say("lever_commitment_none" if rows == [] else "lever_commitment_hidden"))
        _formula([say("lever_commitment_formula")], {}, say("lever_commitment_caveat"))
