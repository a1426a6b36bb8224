"""The price book's history: appended to, never changed."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Engine, func, insert, inspect, select

from controlplane.pricing.history import EntryKind, PriceEntry, PriceVersion
from controlplane.store.metadata.engine import reading, writing
from controlplane.store.metadata.tables import price_entry, price_version


class PriceRepository:
    """Implements `pricing.history.PriceHistory`; safe for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def exists(self) -> bool:
        """Whether the database has the tables: a command may meet one that was never migrated."""
        return inspect(self._engine).has_table(price_version.name)

    def versions(self, *, limit: int) -> list[PriceVersion]:
        """Return versions, newest first."""
        query = select(price_version).order_by(price_version.c.version.desc()).limit(limit)
        with reading(self._engine) as connection:
            return [PriceVersion(**row) for row in connection.execute(query).mappings()]

    def latest(self) -> int:
        """Return the newest version; 0 when there is none."""
        with reading(self._engine) as connection:
            return connection.scalar(select(func.max(price_version.c.version))) or 0

    def entries(self, version: int) -> list[PriceEntry]:
        """Return the newest entry of each kind and key of a version up to `version`."""
        of_version = (
            select(
                price_entry.c.kind,
                price_entry.c.key,
                func.max(price_entry.c.version).label("version"),
            )
            .where(price_entry.c.version <= version)
            .group_by(price_entry.c.kind, price_entry.c.key)
            .subquery()
        )
        query = select(price_entry.c.kind, price_entry.c.key, price_entry.c.body).join(
            of_version,
            (price_entry.c.kind == of_version.c.kind)
            & (price_entry.c.key == of_version.c.key)
            & (price_entry.c.version == of_version.c.version),
        )
        with reading(self._engine) as connection:
            found = connection.execute(query.order_by(price_entry.c.kind, price_entry.c.key))
            return [PriceEntry(EntryKind(kind), key, body) for kind, key, body in found]

    def has_contracts(self) -> bool:
        """Whether a contract was ever kept; one that was removed has priced calls, too."""
        kinds = (EntryKind.CONTRACT.value, EntryKind.FILE_CONTRACT.value)
        query = select(price_entry.c.version).where(price_entry.c.kind.in_(kinds)).limit(1)
        with reading(self._engine) as connection:
            return connection.scalar(query) is not None

    def list_recorded_at(self) -> datetime | None:
        """Return when the price list last changed: what its staleness is counted from."""
        kinds = (EntryKind.MODEL.value, EntryKind.PROVIDER.value)
        query = (
            select(price_version.c.recorded_at)
            .join(price_entry, price_entry.c.version == price_version.c.version)
            .where(price_entry.c.kind.in_(kinds))
            .order_by(price_version.c.version.desc())
            .limit(1)
        )
        with reading(self._engine) as connection:
            return connection.scalar(query)

    def append(self, entries: Sequence[PriceEntry], version: PriceVersion) -> None:
        """Append a version with its entries: all of it, or nothing.

        Raises:
            ConflictError: there is a version of that number already.
        """
        header = {
            "version": version.version,
            "recorded_at": version.recorded_at,
            "source": version.source,
            "note": version.note,
            "recorded_by": version.recorded_by,
        }
        rows = [
            {"version": version.version, "kind": e.kind.value, "key": e.key, "body": e.body}
            for e in entries
        ]
        with writing(self._engine) as connection:
            connection.execute(insert(price_version), header)
            if rows:
                connection.execute(insert(price_entry), rows)
