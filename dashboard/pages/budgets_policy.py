"""Budgets and policy: where each budget's money is, and which rules run where."""

from typing import Final

import streamlit as st

from dashboard import filters
from dashboard.filters import Filters
from dashboard.panel import Panel, empty

COLORS: Final = {
    "settled_enforced": "#0072B2",
    "settled_unproven": "#E69F00",
    "observed_unenforced": "#D55E00",
    "leased": "#56B4E9",
    "free": "#D0D7DE",
}


def draw(asked: Filters) -> None:
    """Draw the page."""
    st.markdown(asked.say("budget_sentence"))
    _budgets(asked)
    left, right = st.columns(2)
    with left:
        _generations(asked)
    with right:
        _nodes(asked)


def _budgets(asked: Filters) -> None:
    with Panel(asked.say("budgets"), asked, key="budgets"):
        empty(asked)


def _generations(asked: Filters) -> None:
    with Panel(asked.say("generations"), asked, key="generations"):
        empty(asked)


def _nodes(asked: Filters) -> None:
    with Panel(asked.say("nodes"), asked, key="nodes"):
        empty(asked)


draw(filters.current())
