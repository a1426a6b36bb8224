"""The global filters: widgets of the entrypoint, kept in the URL, shared by every page.

The URL keys (`range`, `tenant`, `team`, `model`, `group`, `step`, `lang`) are a public contract: a
link shows the same numbers to whoever may see them. A team, model or tenant that a link names is
kept, had it calls or not: without it the numbers would be everybody's.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import streamlit as st

from dashboard import data, i18n
from dashboard.client import ApiProblem, Params

RANGES: Final = ("24h", "today", "7d", "30d", "90d", "mtd", "last_month")
DEFAULT_RANGE: Final = "7d"
GROUPS: Final = (
    "team",
    "model",
    "feature",
    "provider",
    "tenant",
    "project",
    "customer",
    "api_key",
    "environment",
    "region",
    "operation",
    "cost_state",
)
STEPS: Final = ("auto", "hour", "day", "week", "month")
_AUTO_STEP: Final = {"24h": "hour", "today": "hour"}
CHOICES_RANGE: Final = "90d"
"""How far back the values of filters are looked for."""
UNATTRIBUTED: Final = "unattributed"
MAX_CHOICES: Final = 500

_STATE: Final = "filters"


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What the reader asked to see."""

    range: str = DEFAULT_RANGE
    tenants: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    group_by: str = GROUPS[0]
    step: str = STEPS[0]
    language: str = i18n.DEFAULT_LANGUAGE

    def params(self) -> Params:
        """Answer the query parameters that every question about a window carries."""
        return (
            ("range", self.range),
            *(("tenant", value) for value in self.tenants),
            *(("filter.team", value) for value in self.teams),
            *(("filter.model", value) for value in self.models),
        )

    def tenant_params(self) -> Params:
        """Answer the query parameters of a question that has no window."""
        return tuple(("tenant", value) for value in self.tenants)

    def window_params(self) -> Params:
        """Answer the query parameters of a question that has no dimensions."""
        return (("range", self.range), *self.tenant_params())

    def granularity(self) -> str:
        """Answer the width of a time bucket."""
        return _AUTO_STEP.get(self.range, "day") if self.step == "auto" else self.step

    def summary(self) -> str:
        """Say what is shown; the widgets show the words of the URL."""
        return " · ".join(
            (
                self.say(f"range_{self.range}"),
                self.say("grouped_by", group=self.say(f"dim_{self.group_by}")),
                *(value for values in (self.tenants, self.teams, self.models) for value in values),
            )
        )

    def say(self, key: str, **values: object) -> str:
        """Answer a phrase in the reader's language."""
        return i18n.translate(self.language, key, **values)


def current() -> Filters:
    """Answer what `ask` read in this run."""
    chosen = st.session_state.get(_STATE)
    return chosen if isinstance(chosen, Filters) else Filters()


def ask(default_language: str) -> Filters:
    """Draw the filter widgets in the sidebar and keep their answer for the pages."""
    language = st.session_state.get("lang") or st.query_params.get("lang", default_language)

    def say(key: str) -> str:
        return i18n.translate(language if language in i18n.LANGUAGES else default_language, key)

    with st.sidebar:
        chosen = Filters(
            range=_select(say("filter_range"), RANGES, key="range", default=DEFAULT_RANGE),
            tenants=_several(say("filter_tenant"), key="tenant", hint=say("filter_any")),
            teams=_several(say("filter_team"), key="team", hint=say("filter_any")),
            models=_several(say("filter_model"), key="model", hint=say("filter_any")),
            group_by=_select(say("filter_group"), GROUPS, key="group"),
            step=_select(say("filter_step"), STEPS, key="step"),
            language=_select(
                say("filter_language"), tuple(i18n.LANGUAGES), key="lang", default=default_language
            ),
        )
    st.session_state[_STATE] = chosen
    return chosen


def _select(label: str, options: Sequence[str], *, key: str, default: str | None = None) -> str:
    # No format_func: what a bound widget writes into the URL is the option as it is displayed, and
    # a link must not depend on the language of who copied it.
    first = options.index(default) if default in options else 0
    chosen = st.selectbox(label, options, index=first, key=key, bind="query-params")
    return chosen if chosen in options else options[first]


def _several(label: str, *, key: str, hint: str) -> tuple[str, ...]:
    return tuple(
        st.multiselect(label, _values(key), key=key, bind="query-params", placeholder=hint)
    )


def _values(dimension: str) -> list[str]:
    """Answer what is chosen, and the values that a dimension had lately."""
    chosen = st.session_state.get(dimension) or st.query_params.get_all(dimension)
    try:
        answer = data.table("costs", (("range", CHOICES_RANGE), ("group_by", dimension)))
    except ApiProblem:
        return list(chosen)  # the panels say what is wrong; the filter must not lose its value
    found = [value or UNATTRIBUTED for value in answer.rows[dimension].to_pylist()]
    return sorted({*filter(None, chosen), *sorted(set(found))[:MAX_CHOICES]})
