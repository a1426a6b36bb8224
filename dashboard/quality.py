"""Answers about data quality in the shape that tables draw. Nothing is added up here."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from dashboard import spoken
from dashboard.client import Table
from dashboard.money_rows import known

DUPLICATE_COLUMNS: Final = (
    "reported_by", "billed_by", "reason", "reports", "input", "output", "cost",
)  # fmt: skip
EMITTER_COLUMNS: Final = (
    "emitter", "dialect", "stored", "calls", "suppressed", "last_event",
)  # fmt: skip

ACCOUNT_COLUMNS: Final = (
    "emitter", "tenant", "signal", "received", "stored", "late", "duplicates", "rejected",
    "rejected_why", "last_event", "silent",
)  # fmt: skip
COUNTER_COLUMNS: Final = (
    "emitter", "source", "model", "counted_input", "call_input", "counted_output", "call_output",
    "missing", "missing_cost",
)  # fmt: skip

SHARES: Final = (
    "unpriced_tokens", "unattributed_cost", "duplicate_reports", "late", "ahead", "rejected",
)  # fmt: skip

NOTHING_MISSING: Final = frozenset({"reported_cost_differs", "clock_ahead"})
"""Findings about what is here: none of it is missing."""


def price_list_age(told: Mapping[str, Any]) -> str:
    """Write how long ago the price list was imported."""
    recorded = told["price_list_recorded_at"]
    if recorded is None:
        return spoken.UNKNOWN
    return spoken.span(spoken.parse(told["server_time"]) - spoken.parse(recorded))


def finding_line(found: Mapping[str, Any], *, unknown: str) -> dict[str, str]:
    """Answer the words of a finding's sentence."""
    usd = found["missing_usd"]
    return {
        "emitter": spoken.plain(f"{found['emitter'] or spoken.UNKNOWN} ({found['tenant']})"),
        "message": spoken.plain(found["message"]),
        "missing": unknown if usd is None else spoken.plain(spoken.money(usd)),
    }


def account_rows(
    rows: Sequence[Mapping[str, Any]], names: dict[str, str], *, zone: str
) -> pa.Table:
    """Turn the meter's accounts into the table that is shown."""
    shown: dict[str, list[object]] = {
        names["emitter"]: [row["service_name"] or row["key_id"] or spoken.UNKNOWN for row in rows],
        **{
            names[name]: [row[name] for row in rows]
            for name in ("tenant", "signal", "received", "stored", "late", "duplicates", "rejected")
        },
        names["rejected_why"]: [_reasons(row["rejected_by_reason"]) for row in rows],
        names["last_event"]: [spoken.moment(row["last_received"], zone=zone) for row in rows],
        names["silent"]: [row["is_silent"] for row in rows],
    }
    return pa.table(shown)


def _reasons(rejected: Mapping[str, int]) -> str:
    return ", ".join(f"{spoken.count(rejected[why])} {why}" for why in sorted(rejected))


def counter_rows(rows: Sequence[Mapping[str, Any]], names: dict[str, str]) -> pa.Table:
    """Turn the meter's counter checks into the table that is shown."""
    shown: dict[str, list[object]] = {
        names["emitter"]: [row["emitter"] for row in rows],
        names["source"]: [row["source"] for row in rows],
        names["model"]: [row["model"] or spoken.UNKNOWN for row in rows],
        **{
            names[column]: [row[f"{column}_tokens"] for row in rows]
            for column in COUNTER_COLUMNS[3:8]
        },
        names["missing_cost"]: [spoken.money(row["missing_usd"]) for row in rows],
    }
    return pa.table(shown)


def duplicate_rows(answer: Table, names: dict[str, str]) -> pa.Table:
    """Turn a duplicates answer into the table that is shown, dearest first as it came."""
    rows = answer.rows.to_pylist()
    return pa.table(
        {
            names["reported_by"]: [_pair(row["service_name"], row["dialect"]) for row in rows],
            names["billed_by"]: [
                _pair(row["billing_service"], row["billing_dialect"]) for row in rows
            ],
            names["reason"]: [row["reason"] for row in rows],
            names["reports"]: [row["reports"] for row in rows],
            names["input"]: [row["input_tokens"] for row in rows],
            names["output"]: [row["output_tokens"] for row in rows],
            names["cost"]: [known(row["cost_usd"], row["unpriced_reports"]) for row in rows],
        }
    )


def _pair(service: str | None, dialect: str | None) -> str:
    """Write a producer; another tenant's has no name here."""
    return f"{service or spoken.UNKNOWN} · {dialect or spoken.UNKNOWN}"


def emitter_rows(answer: Table, names: dict[str, str]) -> pa.Table:
    """Turn the accounts of emitters into the table that is shown."""
    rows = answer.rows.to_pylist()
    zone = str(answer.meta.get("zone", "UTC"))
    shown: dict[str, list[object]] = {
        names["emitter"]: [row["service_name"] or spoken.UNKNOWN for row in rows],
        names["dialect"]: [row["dialect"] for row in rows],
        names["stored"]: [row["stored"] for row in rows],
        names["calls"]: [row["calls"] for row in rows],
        names["suppressed"]: [row["suppressed"] for row in rows],
        names["last_event"]: [spoken.moment(row["last_event_time"], zone=zone) for row in rows],
    }
    return pa.table(shown)
