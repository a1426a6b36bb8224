"""Suppressed reports by who made them and who bills instead, added up one by one."""

from collections.abc import Iterable
from typing import Any, Final

import pyarrow as pa

from controlplane.signals.schema import DUPLICATES_SCHEMA

Row = dict[str, Any]
_SUMS: Final = ("reports", "input_tokens", "output_tokens", "cost_nusd", "unpriced_reports")


def sum_duplicates(members: Iterable[Row], tenants: tuple[str, ...]) -> pa.Table:
    """Answer `SpanReader.duplicates` for MEMBER_SCHEMA rows."""
    sums: dict[tuple[str | None, ...], Row] = {}
    for row in members:
        if row["tenant"] not in tenants:
            continue
        is_own = row["billing_tenant"] in tenants
        named = {
            "service_name": row["service_name"],
            "dialect": row["dialect"],
            "billing_service": row["billing_service"] if is_own else None,
            "billing_dialect": row["billing_dialect"] if is_own else None,
            "reason": row["reason"],
        }
        zeros = dict.fromkeys(_SUMS, 0)
        total = sums.setdefault(tuple(named.values()), {**named, **zeros})
        total["reports"] += 1
        for name in ("input_tokens", "output_tokens", "cost_nusd"):
            total[name] += row[name] or 0
        total["unpriced_reports"] += row["cost_nusd"] is None
    ordered = sorted(
        sums.values(),
        key=lambda row: (-row["cost_nusd"], -row["reports"], *(_last(v) for v in row.values())),
    )
    return pa.Table.from_pylist(ordered, schema=DUPLICATES_SCHEMA)


def _last(value: str | int | None) -> tuple[bool, str | int]:
    """Order NULL after everything else."""
    return (value is None, 0 if value is None else value)
