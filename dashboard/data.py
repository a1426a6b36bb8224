"""What pages ask the API, with the viewer's own credential, remembered for a moment."""

from collections.abc import Mapping
from typing import Any, Final

import httpx
import msgspec
import streamlit as st

from dashboard import settings
from dashboard.client import ARROW, JSON, Api, Params, Table, connect, read_table

SESSION_COOKIE: Final = "controlplane_session"
BEARER_STATE: Final = "bearer"
FRESH_SECONDS: Final = 3
ANSWER_SECONDS: Final = 300
MAX_ANSWERS: Final = 512


def bearer() -> str | None:
    """Answer the viewer's session, from this run's state or the browser's cookie."""
    kept = st.session_state.get(BEARER_STATE) or st.context.cookies.get(SESSION_COOKIE)
    return str(kept) if kept else None


def table(path: str, params: Params = ()) -> Table:
    """Ask for a table.

    Raises:
        ApiProblem: the API refused or did not answer; nothing is remembered of that.
    """
    return read_table(
        _remembered((settings.current().api_url, bearer()), (path, params), accept=ARROW)
    )


def long_table(path: str, params: Params = ()) -> Table:
    """Ask for a table that every call of the window is read for; it is remembered for minutes.

    Raises:
        ApiProblem: as `table`.
    """
    return read_table(_kept((settings.current().api_url, bearer()), (path, params)))


def document(path: str, params: Params = ()) -> Any:
    """Ask for a JSON document.

    Raises:
        ApiProblem: as `table`.
    """
    return msgspec.json.decode(
        _remembered((settings.current().api_url, bearer()), (path, params), accept=JSON)
    )


def order(path: str, body: dict[str, str]) -> Any:
    """Have something done with the viewer's own credential; what was remembered is asked anew.

    Raises:
        ApiProblem: as `Api.send`.
    """
    answer = Api(_pool(settings.current().api_url), bearer()).send(path, body)
    forget()
    return msgspec.json.decode(answer)


def answer_to(path: str, body: Mapping[str, object]) -> Any:
    """Ask a question that takes long to answer; the answer is remembered for minutes.

    Raises:
        ApiProblem: as `table`.
    """
    viewer = (settings.current().api_url, bearer())
    return msgspec.json.decode(_answered(viewer, path, msgspec.json.encode(body, order="sorted")))


def forget() -> None:
    """Make the next question go to the API."""
    _remembered.clear()
    _answered.clear()
    _kept.clear()


# The cache is shared by all sessions of the process: the credential is part of the key, so that
# no viewer is ever served another's answer (ST-07).
@st.cache_data(ttl=FRESH_SECONDS, max_entries=MAX_ANSWERS, show_spinner=False)
def _remembered(
    viewer: tuple[str, str | None], question: tuple[str, Params], *, accept: str
) -> bytes:
    api_url, credential = viewer
    return Api(_pool(api_url), credential).fetch(*question, accept=accept)


@st.cache_data(ttl=ANSWER_SECONDS, max_entries=MAX_ANSWERS, show_spinner=False)
def _answered(viewer: tuple[str, str | None], path: str, body: bytes) -> bytes:
    api_url, credential = viewer
    return Api(_pool(api_url), credential).send(path, msgspec.json.decode(body))


@st.cache_data(ttl=ANSWER_SECONDS, max_entries=MAX_ANSWERS, show_spinner=False)
def _kept(viewer: tuple[str, str | None], question: tuple[str, Params]) -> bytes:
    api_url, credential = viewer
    return Api(_pool(api_url), credential).fetch(*question, accept=ARROW)


@st.cache_resource(max_entries=4, show_spinner=False, on_release=httpx.Client.close)
def _pool(api_url: str) -> httpx.Client:
    return connect(api_url, timeout_seconds=settings.current().request_timeout_seconds)
