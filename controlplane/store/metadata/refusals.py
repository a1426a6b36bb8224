"""Calls that agents refused: per hour and reason, the highest count that each holder told."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, Engine, delete, func, select, text

from controlplane.core.calendar import Window
from controlplane.policy.wire import RefusedCalls
from controlplane.store.metadata.engine import reading
from controlplane.store.metadata.tables import UtcMicros, refused_calls

KEPT: Final = timedelta(days=400)
"""A year's budget, and what its people look back at."""
_COUNT: Final = text("""
    INSERT INTO refused_calls (hour, tenant, budget_id, rule, code, boot_id, calls, last_at)
    VALUES (:hour, :tenant, :budget_id, :rule, :code, :boot_id, :calls, :last_at)
    ON CONFLICT (hour, tenant, budget_id, rule, code, boot_id) DO UPDATE SET
      calls = excluded.calls, last_at = excluded.last_at
    WHERE excluded.calls > refused_calls.calls
""")


def read_refused(engine: Engine, tenants: Collection[str], span: Window) -> list[RefusedCalls]:
    """Return the refused calls of the hours that begin in a span, most first, summed."""
    table = refused_calls.c
    kind = (table.tenant, table.budget_id, table.rule, table.code)
    query = (
        select(
            *kind,
            func.min(table.hour).label("hour"),
            func.sum(table.calls).label("calls"),
            func.max(table.last_at).label("last_at"),
        )
        .where(table.tenant.in_(list(tenants)), table.hour >= span.start, table.hour < span.end)
        .group_by(*kind)
    )
    with reading(engine) as connection:
        found = [
            RefusedCalls(
                hour=row.hour,
                code=row.code,
                budget_id=row.budget_id,
                rule=row.rule,
                tenant=row.tenant,
                calls=int(row.calls),
                last_at=row.last_at,
            )
            for row in connection.execute(query)
        ]
    return sorted(found, key=lambda one: (-one.calls, one.tenant, one.budget_id, one.rule))


def write_refused(connection: Connection, counts: Sequence[RefusedCalls], *, holder: str) -> None:
    """Keep the highest count of each hour and reason, and forget what is too old."""
    if not counts:
        return
    connection.execute(
        _COUNT,
        [
            {
                "hour": UtcMicros.to_micros(one.hour),
                "tenant": one.tenant,
                "budget_id": one.budget_id,
                "rule": one.rule,
                "code": one.code,
                "boot_id": holder,
                "calls": one.calls,
                "last_at": UtcMicros.to_micros(one.last_at),
            }
            for one in counts
        ],
    )
    oldest = max(one.hour for one in counts) - KEPT
    connection.execute(delete(refused_calls).where(refused_calls.c.hour < oldest))
