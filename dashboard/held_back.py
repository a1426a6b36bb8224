"""Who spent too fast and is held back: the quotas that began by themselves, on the policy page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import streamlit as st

from dashboard import data, spoken
from dashboard.filters import Filters
from dashboard.panel import Panel

COLUMNS: Final = ("tenant", "held_who", "held_spent", "held_allowed", "held_since", "held_until")
SECONDS_A_MINUTE: Final = 60


def held_back(asked: Filters, *, zone: str) -> None:
    """List the quotas in force, the dearest first."""
    title, about = asked.say("held_back"), asked.say("held_back_help")
    with Panel(title, asked, key="held-back", help_text=about):
        found = data.document("policy/quotas")["rows"]
        if not found:
            st.caption(asked.say("nobody_held_back"))
            return
        names = {key: asked.say(f"column_{key}") for key in COLUMNS}
        shown = quota_rows(found, names, say=asked.say, zone=zone)
        st.dataframe(shown, hide_index=True, alt=title)


def quota_rows(
    rows: Sequence[Mapping[str, Any]],
    names: Mapping[str, str],
    *,
    say: Callable[..., str],
    zone: str,
) -> pa.Table:
    """Say of each who it is, what was spent in how long, what is allowed, and until when.

    Args:
        rows: the API's.
        names: of the columns.
        say: the words.
        zone: of the times.
    """
    shown: dict[str, list[str]] = {
        "tenant": [row["tenant"] for row in rows],
        "held_who": [say(f"held_{row['per']}", who=row["value"] or row["name"]) for row in rows],
        "held_spent": [
            say(
                "held_within",
                spent=spoken.money(row["spent_usd"]),
                minutes=f"{row['window_seconds'] / SECONDS_A_MINUTE:g}",
            )
            for row in rows
        ],
        "held_allowed": [spoken.money(row["limit_usd"]) for row in rows],
        "held_since": [spoken.moment(row["since"], zone=zone) for row in rows],
        "held_until": [spoken.moment(row["until"], zone=zone) for row in rows],
    }
    return pa.table({names[key]: values for key, values in shown.items()})
