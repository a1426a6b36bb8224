"""GPU pools that were made through the API."""

from datetime import datetime

import msgspec
from sqlalchemy import Engine, delete, insert, select

from controlplane.pricing.gpu_pool import GpuPool
from controlplane.store.metadata.engine import reading, writing
from controlplane.store.metadata.tables import gpu_pool


class GpuPoolRepository:
    """Implements `pricing.gpu_ports.GpuPools`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def pools(self) -> tuple[GpuPool, ...]:
        """See `GpuPools.pools`."""
        with reading(self._engine) as connection:
            bodies = connection.scalars(select(gpu_pool.c.body).order_by(gpu_pool.c.name)).all()
        return tuple(msgspec.json.decode(body, type=GpuPool) for body in bodies)

    def put(self, pool: GpuPool, *, by: str, now: datetime) -> None:
        """See `GpuPools.put`."""
        row = {
            "name": pool.name,
            "body": msgspec.json.encode(pool).decode(),
            "changed_by": by,
            "changed_at": now,
        }
        with writing(self._engine) as connection:
            connection.execute(delete(gpu_pool).where(gpu_pool.c.name == pool.name))
            connection.execute(insert(gpu_pool).values(row))

    def remove(self, name: str) -> bool:
        """See `GpuPools.remove`."""
        with writing(self._engine) as connection:
            gone = connection.execute(delete(gpu_pool).where(gpu_pool.c.name == name))
        return gone.rowcount == 1
