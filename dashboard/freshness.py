"""The badge on every page that says how new its numbers are (UX-22)."""

from datetime import timedelta
from typing import Final, Literal

import streamlit as st

from dashboard import data, spoken
from dashboard.client import ApiProblem
from dashboard.filters import Filters

FRESH: Final = timedelta(minutes=1)
LATE: Final = timedelta(minutes=15)


def badge(filters: Filters) -> None:
    """Show through when the data reaches, and how far that is behind the server's clock."""
    _badge(filters)


def wait_for_first(filters: Filters) -> None:
    """While nothing has arrived yet, look every second and draw the page when something has."""
    if _through(filters) is None:
        _look_again(filters)


@st.fragment(run_every="1s")
def _look_again(filters: Filters) -> None:
    data.forget()
    if _through(filters) is not None:
        st.rerun()


def _through(filters: Filters) -> str | None:
    try:
        meta = data.table("data-quality", tuple(("tenant", t) for t in filters.tenants)).meta
    except ApiProblem:
        return None  # not there yet, or a session that has ended: the panels say which
    through = meta.get("data_through")
    return through if isinstance(through, str) else None


@st.fragment(run_every="10s")
def _badge(filters: Filters) -> None:
    try:
        meta = data.table("data-quality", tuple(("tenant", t) for t in filters.tenants)).meta
        zone = data.document("version")["zone"]
    except ApiProblem:
        st.badge(filters.say("freshness_unknown"), icon=":material/help:", color="gray")
        return
    through, now = meta.get("data_through"), meta["server_time"]
    if through is None:
        st.badge(filters.say("freshness_empty"), icon=":material/hourglass_empty:", color="gray")
        return
    behind = spoken.parse(now) - spoken.parse(through)
    color, icon = _mood(behind)
    words = filters.say(
        "freshness", at=spoken.moment(through, zone=zone), zone=zone, behind=spoken.span(behind)
    )
    st.badge(words, icon=icon, color=color)


def _mood(behind: timedelta) -> tuple[Literal["green", "orange", "red"], str]:
    """Answer colour and icon; the words carry the same, colour is never the only signal."""
    if behind <= FRESH:
        return "green", ":material/check_circle:"
    if behind <= LATE:
        return "orange", ":material/schedule:"
    return "red", ":material/error:"
