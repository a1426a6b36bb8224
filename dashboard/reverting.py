"""What policy would do and could go back to: the dry run and the revert of the policy page."""

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from dashboard import data, spoken
from dashboard.client import ApiProblem
from dashboard.filters import Filters
from dashboard.panel import Panel

_NOT_FOUND = 404


def dry_run(asked: Filters) -> None:
    """Say what the rules in shadow would have done to the calls of the window."""
    title, about = asked.say("dry_run"), asked.say("dry_run_help")
    with Panel(title, asked, key="dry-run", help_text=about):
        try:
            found = data.document("shadow", (*asked.window_params(), ("limit", "0")))
        except ApiProblem as problem:
            if problem.status != _NOT_FOUND:
                raise
            st.caption(asked.say("no_shadow"))
            return
        st.markdown(spoken.plain(dry_run_sentence(found, asked.say)))


def dry_run_sentence(found: Mapping[str, Any], say: Callable[..., str]) -> str:
    """Say how many calls would have been others, and what they would have cost."""
    return say(
        "dry_run_sentence",
        calls=spoken.count(found["calls"]),
        changed=spoken.count(found["changed_calls"]),
        blocked=spoken.count(found["blocked_calls"]),
        before=spoken.money(found["cost_before_usd"]),
        after=spoken.money(found["cost_after_usd"]),
        unknown=spoken.count(found["unknown_cost_calls"]),
    )


def revert(asked: Filters) -> None:
    """Show what going back to an earlier generation changes, and do it on a click."""
    title, about = asked.say("revert"), asked.say("revert_help")
    with Panel(title, asked, key="revert", help_text=about):
        newest, *older = data.document("policy/generations")["rows"] or [None]
        if not older:
            st.caption(asked.say("nothing_to_revert"))
            return
        names = [_pair(row) for row in older]
        to = st.selectbox(asked.say("revert_to"), names, key="revert-to")
        scope = newest["scope"]
        told = data.document("policy/diff", (("scope", scope), ("from", _pair(newest)), ("to", to)))
        if told["diff"]:
            st.code(told["diff"], language="diff")
        else:
            st.caption(asked.say("revert_same"))
        if st.button(asked.say("revert_do", to=to), key="revert-do", icon=":material/undo:"):
            message = asked.say("revert_message", to=to)
            made = data.order("policy/rollback", {"scope": scope, "to": to, "message": message})
            st.success(asked.say("revert_done", to=to, made=_pair(made)))


def _pair(row: Mapping[str, Any]) -> str:
    return f"{row['epoch']}.{row['gen']}"
