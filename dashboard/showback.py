"""Showback: what each owner cost, with its part of what nobody owns and of idle GPU time.

Rules are chosen here and applied by the API; nothing is added up on the page.
"""

from collections.abc import Callable
from typing import Final

import pyarrow as pa
import streamlit as st

from dashboard import data, spoken, tables
from dashboard.client import Params, Table
from dashboard.filters import Filters
from dashboard.frames import UNATTRIBUTED
from dashboard.money_rows import known, signed
from dashboard.panel import Panel, empty

OWNERS: Final = ("team", "project", "feature", "customer", "api_key", "environment", "region")
RULES: Final = ("none", "proportional", "even", "fixed")
_FIXED: Final = "fixed"
_PARTS: Final = ("shared", "idle")
COLUMNS: Final = ("group", "own", "shared", "idle", "total")

Say = Callable[..., str]


def rows(answer: Table, say: Say) -> pa.Table:
    """Turn the answer into the table that is shown: owners, what has none, and idle pools."""
    told = answer.rows.to_pylist()
    shown = {
        "group": [_name(row["kind"], row["name"], say) for row in told],
        "own": [known(row["own_usd"], row["unpriced_calls"]) for row in told],
        **{name: [signed(row[f"{name}_usd"]) for row in told] for name in _PARTS},
        "total": [known(row["total_usd"], row["unpriced_calls"]) for row in told],
    }
    return pa.table({say(f"column_showback_{name}"): values for name, values in shown.items()})


def _name(kind: str, name: str | None, say: Say) -> str:
    return say("showback_idle_row", pool=name) if kind == "idle" else name or UNATTRIBUTED


def draw(asked: Filters) -> None:
    """Draw the panel with its rules."""
    say = asked.say
    with Panel(say("showback"), asked, key="showback", help_text=say("showback_help")):
        by, params = _asked(asked)
        if params is None:
            st.caption(say("showback_needs_weights"))
            return
        answer = data.table("showback", (*asked.window_params(), ("by", by), *params))
        if not answer.rows.num_rows:
            empty(asked)
            return
        shown = rows(answer, say)
        st.dataframe(
            shown,
            hide_index=True,
            column_config=tables.figures(shown),
            alt=say("showback"),
        )
        total = spoken.plain(spoken.money(answer.meta["totals"]["cost_usd"]))
        st.markdown(say("showback_total", total=total))


def _asked(asked: Filters) -> tuple[str, Params | None]:
    """Let the reader choose whose cost it is and the rules; None where weights are missing."""
    say = asked.say
    columns = st.columns(3)
    by = columns[0].selectbox(
        say("showback_by"), OWNERS, key="showback-by", format_func=lambda name: say(f"dim_{name}")
    )
    params: list[tuple[str, str]] = []
    is_whole = True
    for column, part in zip(columns[1:], _PARTS, strict=True):
        rule = column.selectbox(
            say(f"showback_{part}"),
            RULES,
            key=f"showback-{part}",
            format_func=lambda name: say(f"rule_{name}"),
        )
        params.append((part, str(rule)))
        if rule == _FIXED:
            text = column.text_input(
                say("showback_weights"),
                key=f"showback-{part}-weights",
                placeholder="search=3, ads=1",
            )
            weights = [weight.strip() for weight in text.split(",") if weight.strip()]
            field = "share" if part == "shared" else "idle_share"
            params += [(field, weight) for weight in weights]
            is_whole = is_whole and bool(weights)
    return str(by), tuple(params) if is_whole else None
