"""Answers about what was and could be saved, as the page shows them. Nothing is added up here."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import pyarrow as pa

from dashboard import spoken
from dashboard.client import Table
from dashboard.frames import UNATTRIBUTED

CACHE_COLUMNS: Final = (
    *("group", "calls", "hit_calls", "hit_tokens", "read_tokens", "written_tokens"),
    *("read_saving", "write_premium", "net_saving", "unknown_calls"),
)
CACHE_GROUPS: Final = ("model", "team")
Say = Callable[..., str]


def cache_rows(answer: Table, group: str, names: Mapping[str, str]) -> pa.Table:
    """Turn cache figures into the table that is shown; a dash is what is not known."""
    rows = answer.rows.to_pylist()
    shown: dict[str, list[Any]] = {
        "group": [row[group] or UNATTRIBUTED for row in rows],
        "calls": [row["calls"] for row in rows],
        "hit_calls": [spoken.ratio(row["hit_ratio_calls"]) for row in rows],
        "hit_tokens": [spoken.ratio(row["hit_ratio_tokens"]) for row in rows],
        "read_tokens": [row["read_tokens"] for row in rows],
        "written_tokens": [row["write_tokens"] for row in rows],
        "read_saving": [spoken.money(row["read_saving_usd"]) for row in rows],
        "write_premium": [spoken.money(row["write_premium_usd"]) for row in rows],
        "net_saving": [spoken.money(row["net_saving_usd"]) for row in rows],
        "unknown_calls": [row["unknown_calls"] for row in rows],
    }
    return pa.table({names[key]: values for key, values in shown.items()})


def cache_tiles(totals: Mapping[str, Any]) -> dict[str, str]:
    """Answer the figures of the whole window, by the phrase that names each."""
    return {
        "cache_hit_tokens": spoken.ratio(totals["hit_ratio_tokens"]),
        "cache_hit_calls": spoken.ratio(totals["hit_ratio_calls"]),
        "cache_read_saving": spoken.money(totals["read_saving_usd"]),
        "cache_write_premium": spoken.money(totals["write_premium_usd"]),
        "cache_net": spoken.money(totals["net_saving_usd"]),
    }


def cache_left_out(meta: Mapping[str, Any], say: Say) -> str:
    """Say what the figures are of, and what they leave out."""
    totals = meta["totals"]
    return say(
        "cache_left_out",
        calls=spoken.count(totals["calls"]),
        unknown=spoken.count(totals["unknown_calls"]),
        tokens=spoken.count(totals["unknown_tokens"]),
        without=spoken.count(totals["calls_without_usage"]),
        gateway=spoken.count(totals["gateway_answers"]),
        start=spoken.moment(meta["start"], zone=meta["zone"]),
        end=spoken.moment(meta["end"], zone=meta["zone"]),
        zone=meta["zone"],
    )
