"""Answers about data quality in the shape that tables draw. Nothing is added up here."""

from typing import Final

import pyarrow as pa

from dashboard import spoken
from dashboard.client import Table

DUPLICATE_COLUMNS: Final = (
    "reported_by", "billed_by", "reason", "reports", "input", "output", "cost",
)  # fmt: skip
EMITTER_COLUMNS: Final = (
    "emitter", "dialect", "stored", "calls", "suppressed", "last_event",
)  # fmt: skip


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
            names["cost"]: [spoken.money(row["cost_usd"]) for row in rows],
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
