"""The attribution rules' history: appended to, never changed."""

from typing import Any

import msgspec
from sqlalchemy import Engine, RowMapping, insert, select

from controlplane.attribution.history import RulesVersion
from controlplane.attribution.rules import RulesDocument
from controlplane.store.metadata.engine import reading, writing
from controlplane.store.metadata.tables import attribution_version


class RulesRepository:
    """Implements `attribution.history.RulesHistory`; safe for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def latest(self) -> RulesVersion | None:
        """See `RulesHistory.latest`."""
        newest = self.versions(limit=1)
        return newest[0] if newest else None

    def versions(self, *, limit: int) -> list[RulesVersion]:
        """See `RulesHistory.versions`."""
        query = select(attribution_version).order_by(attribution_version.c.version.desc())
        with reading(self._engine) as connection:
            return [from_row(row) for row in connection.execute(query.limit(limit)).mappings()]

    def append(self, version: RulesVersion) -> None:
        """See `RulesHistory.append`."""
        row: dict[str, Any] = msgspec.structs.asdict(version)
        row["document"] = msgspec.json.encode(version.document, order="sorted").decode()
        with writing(self._engine) as connection:
            connection.execute(insert(attribution_version), row)


def from_row(row: RowMapping) -> RulesVersion:
    """Cross from the store."""
    fields = {str(name): value for name, value in row.items()}
    document = msgspec.json.decode(fields.pop("document"), type=RulesDocument)
    return RulesVersion(**fields, document=document)
