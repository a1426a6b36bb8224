"""Whether the ledger in this database is the one that went before, and since when it is not."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine, func, insert, select, text, update

from controlplane.budgets.recovery import Mark
from controlplane.store.metadata.engine import LEDGER_LOCK, reading, writing
from controlplane.store.metadata.tables import call_posting, ledger_entry, ledger_timeline

TIMELINE_SQL: Final = text("SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)")
"""A promoted standby and a point-in-time restore each begin a new one."""


class TimelineRepository:
    """What the hub keeps outside the database is compared with this; safe for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def mark(self) -> Mark:
        """Return how far the ledger has come."""
        with reading(self._engine) as connection:
            seq = connection.execute(
                select(func.coalesce(func.max(ledger_entry.c.seq), 0))
            ).scalar()
            return Mark(timeline=_timeline(connection), seq=int(seq or 0))

    def posted(self) -> int:
        """Return the newest settlement version that the ledger has; 0: none."""
        with reading(self._engine) as connection:
            newest = select(func.coalesce(func.max(call_posting.c.version), 0))
            return max(0, int(connection.execute(newest).scalar() or 0))

    def recover(self, until: datetime) -> None:
        """Grant nothing until then; it has to be announced."""
        with writing(self._engine, lock=LEDGER_LOCK) as connection:
            _begin(connection, until, timeline=_timeline(connection))

    def recovering_until(self, now: datetime) -> datetime | None:
        """Return until when nothing is granted; None: the ledger is in order."""
        with reading(self._engine) as connection:
            until = connection.execute(select(ledger_timeline.c.recovering_until)).scalar()
        return until if until is not None and until > now else None

    def unannounced(self) -> bool:
        """Whether a recovery began that no epoch was bumped for."""
        with reading(self._engine) as connection:
            return connection.execute(select(ledger_timeline.c.is_announced)).scalar() is False

    def announced(self) -> None:
        """Note that every scope has a new epoch."""
        with writing(self._engine, lock=LEDGER_LOCK) as connection:
            connection.execute(update(ledger_timeline).values(is_announced=True))


def frozen_until(connection: Connection, now: datetime, *, for_seconds: float) -> datetime | None:
    """Return until when nothing is granted; a timeline that was not seen before begins it."""
    row = connection.execute(select(ledger_timeline)).first()
    timeline = _timeline(connection)
    if row is None:
        connection.execute(
            insert(ledger_timeline).values(id=1, timeline=timeline, is_announced=True)
        )
        return None
    if row.timeline != timeline:
        until = now + timedelta(seconds=for_seconds)
        _begin(connection, until, timeline=timeline)
        return until
    until = row.recovering_until
    return until if until is not None and until > now else None


def _begin(connection: Connection, until: datetime, *, timeline: str) -> None:
    values = {"timeline": timeline, "recovering_until": until, "is_announced": False}
    changed = connection.execute(update(ledger_timeline).values(**values))
    if not changed.rowcount:
        connection.execute(insert(ledger_timeline).values(id=1, **values))


def _timeline(connection: Connection) -> str:
    if connection.dialect.name != "postgresql":
        return ""
    return str(connection.execute(TIMELINE_SQL).scalar())
