"""Quotas that began by themselves."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Engine, delete, insert, select

from controlplane.policy.velocity import Quota
from controlplane.store.metadata.engine import reading, writing
from controlplane.store.metadata.tables import velocity_quota


class QuotaRepository:
    """Implements `policy.velocity.QuotaStore`; safe for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def quotas(self, scope: str) -> Sequence[Quota]:
        """See `QuotaStore.quotas`."""
        table = velocity_quota.c
        query = select(table.body).where(table.scope == scope).order_by(table.id)
        with reading(self._engine) as connection:
            bodies = connection.scalars(query).all()
        return [msgspec.json.decode(body, type=Quota) for body in bodies]

    def save_quotas(self, scope: str, quotas: Sequence[Quota], *, removed: Sequence[str]) -> None:
        """See `QuotaStore.save_quotas`."""
        table = velocity_quota.c
        ids = [*removed, *(quota.id for quota in quotas)]
        rows = [
            {"scope": scope, "id": quota.id, "body": msgspec.json.encode(quota).decode()}
            for quota in quotas
        ]
        with writing(self._engine) as connection:
            connection.execute(
                delete(velocity_quota).where(table.scope == scope, table.id.in_(ids))
            )
            if rows:
                connection.execute(insert(velocity_quota), rows)
