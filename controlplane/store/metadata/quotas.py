"""Quotas that began by themselves."""

from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import Connection, Engine, delete, insert, select

from controlplane.policy.velocity import Quota, Turn
from controlplane.store.metadata.engine import QUOTA_LOCK, reading, writing
from controlplane.store.metadata.tables import velocity_quota


class QuotaRepository:
    """Implements `policy.velocity.QuotaStore`; safe for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def quotas(self, scope: str) -> Sequence[Quota]:
        """See `QuotaStore.quotas`."""
        with reading(self._engine) as connection:
            return _quotas(connection, scope)

    def change(self, scope: str, fold: Callable[[Sequence[Quota]], Turn]) -> Turn:
        """See `QuotaStore.change`."""
        table = velocity_quota.c
        with writing(self._engine, lock=QUOTA_LOCK) as connection:
            before = {quota.id: quota for quota in _quotas(connection, scope)}
            turned = fold(tuple(before.values()))
            after = {quota.id: quota for quota in turned.kept}
            changed = [quota for quota in turned.kept if before.get(quota.id) != quota]
            gone = [*(before.keys() - after.keys()), *(quota.id for quota in changed)]
            if gone:
                connection.execute(
                    delete(velocity_quota).where(table.scope == scope, table.id.in_(gone))
                )
            if changed:
                connection.execute(insert(velocity_quota), [_to_row(scope, q) for q in changed])
        return turned


def _quotas(connection: Connection, scope: str) -> list[Quota]:
    table = velocity_quota.c
    query = select(table.body).where(table.scope == scope).order_by(table.id)
    return [msgspec.json.decode(body, type=Quota) for body in connection.scalars(query)]


def _to_row(scope: str, quota: Quota) -> dict[str, str]:
    return {"scope": scope, "id": quota.id, "body": msgspec.json.encode(quota).decode()}
