"""Re-rates that were asked for, and what came of them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Engine, RowMapping, insert, select, update

from controlplane.core.errors import NotFoundError
from controlplane.pricing.rerate import RerateRun, RunState
from controlplane.store.metadata.engine import reading, writing
from controlplane.store.metadata.tables import rerate_run


class RerateRepository:
    """Implements `pricing.rerate.RerateRuns`; safe for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, run: RerateRun) -> None:
        """See `RerateRuns.add`."""
        row: dict[str, Any] = msgspec.structs.asdict(run)
        row["state"], row["tenants"] = run.state.value, msgspec.json.encode(run.tenants).decode()
        with writing(self._engine) as connection:
            connection.execute(insert(rerate_run), row)

    def get(self, run_id: str) -> RerateRun:
        """See `RerateRuns.get`."""
        query = select(rerate_run).where(rerate_run.c.id == run_id)
        with reading(self._engine) as connection:
            found = connection.execute(query).mappings().first()
        if found is None:
            raise NotFoundError("rerate", run_id)
        return _from_row(found)

    def runs(self, *, states: Sequence[RunState] = (), limit: int = 100) -> list[RerateRun]:
        """See `RerateRuns.runs`."""
        query = select(rerate_run).order_by(rerate_run.c.asked_at.desc(), rerate_run.c.id.desc())
        if states:
            query = query.where(rerate_run.c.state.in_([state.value for state in states]))
        with reading(self._engine) as connection:
            return [_from_row(row) for row in connection.execute(query.limit(limit)).mappings()]

    def done(self, run_id: str, *, state: RunState, report: str, now: datetime) -> None:
        """See `RerateRuns.done`."""
        with writing(self._engine) as connection:
            connection.execute(
                update(rerate_run)
                .where(rerate_run.c.id == run_id)
                .values(state=state.value, report=report, done_at=now)
            )


def _from_row(row: RowMapping) -> RerateRun:
    said = dict(row)
    said["state"] = RunState(said["state"])
    said["tenants"] = msgspec.json.decode(said["tenants"], type=tuple[str, ...])
    return RerateRun(**said)
