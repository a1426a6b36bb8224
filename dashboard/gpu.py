"""Answers about GPU cost in the shape that tables draw. Nothing is added up here."""

from typing import Final

import pyarrow as pa

from dashboard import spoken
from dashboard.client import Table

SHARE_COLUMNS: Final = ("pool", "tenant", "team", "model", "calls", "cost")
BILL_COLUMNS: Final = ("pool", "bill", "busy", "confidence")


def share_rows(answer: Table, names: dict[str, str], *, idle: str) -> pa.Table:
    """Turn a GPU cost answer into the table that is shown; `idle` stands for who used nothing."""
    rows = answer.rows.to_pylist()
    return pa.table(
        {
            names["pool"]: [" · ".join(filter(None, (r["pool"], r["slice"]))) for r in rows],
            names["tenant"]: [r["tenant"] or spoken.UNKNOWN for r in rows],
            names["team"]: [idle if r["is_idle"] else r["team"] or spoken.UNKNOWN for r in rows],
            names["model"]: [r["model"] or spoken.UNKNOWN for r in rows],
            names["calls"]: [r["calls"] for r in rows],
            names["cost"]: [spoken.money(r["cost_usd"]) for r in rows],
        }
    )


def bill_rows(answer: Table, names: dict[str, str]) -> pa.Table:
    """Turn the pools' bills into the table that is shown."""
    bills = answer.meta["bills"]
    return pa.table(
        {
            names["pool"]: [bill["pool"] for bill in bills],
            names["bill"]: [spoken.money(bill["bill_usd"]) for bill in bills],
            names["busy"]: [spoken.ratio(bill["busy_ratio"]) for bill in bills],
            names["confidence"]: [bill["confidence"] for bill in bills],
        }
    )
