"""A part of a page that fails alone: an API problem becomes a sentence and a retry button."""

from types import TracebackType
from typing import Self

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import data, settings, spoken
from dashboard.client import UNAUTHENTICATED, ApiProblem
from dashboard.filters import Filters

_FORBIDDEN = 403
_NOT_FOUND = 404


class Panel:
    """`with Panel("…", filters, key=…):` draws inside a box and swallows ApiProblem only."""

    def __init__(
        self, title: str, filters: Filters, *, key: str, help_text: str = "", border: bool = True
    ) -> None:
        self._title = title
        self._filters = filters
        self._key = key
        self._help = help_text
        self._border = border
        self._box: DeltaGenerator | None = None

    def __enter__(self) -> Self:
        self._box = st.container(border=self._border, key=f"panel-{self._key}")
        self._box.__enter__()
        if self._title:
            st.markdown(f"#### {spoken.plain(self._title)}", help=self._help or None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        swallowed = isinstance(problem, ApiProblem)
        if isinstance(problem, ApiProblem):
            self._explain(problem)
        if self._box is not None:
            self._box.__exit__(None, None, None)
        return swallowed

    def _explain(self, problem: ApiProblem) -> None:
        say = self._filters.say
        if problem.status == UNAUTHENTICATED:
            st.info(say("sign_in_needed"), icon=":material/lock:")
            return
        if problem.status == _FORBIDDEN:
            st.info(say("not_allowed", detail=spoken.plain(problem.detail)))
            return
        if problem.status == _NOT_FOUND:
            st.info(say("not_found", detail=spoken.plain(problem.detail)))
            return
        told = say("unreachable") if not problem.status else spoken.plain(problem.detail)
        st.warning(say("panel_failed", detail=told), icon=":material/warning:")
        st.button(say("retry"), key=f"retry-{self._key}", on_click=data.forget)


def empty(filters: Filters, *, first_run: bool = False) -> None:
    """Say that there is nothing to show, and how to send the first span (UX-26)."""
    said = (
        filters.say("empty_first_run", otlp=settings.current().otlp_url)
        if first_run
        else filters.say("empty")
    )
    st.info(said, icon=":material/inbox:")
