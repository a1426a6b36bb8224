"""Business metrics and recorded reconciliations."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal

import msgspec
from sqlalchemy import Engine, delete, insert, select

from controlplane.core.fiscal import Dates
from controlplane.store.metadata.engine import reading, writing
from controlplane.store.metadata.tables import business_metric, reconciliation
from controlplane.usage.ports import KeptReconciliation


class FinanceRepository:
    """Implements `usage.ports.BusinessMetrics` and `KeptReconciliations`; safe for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put_metric(
        self, tenant: str, name: str, values: Mapping[date, Decimal], *, now: datetime
    ) -> None:
        """See `BusinessMetrics.put_metric`."""
        table = business_metric.c
        days = [day.isoformat() for day in values]
        with writing(self._engine) as connection:
            connection.execute(
                delete(business_metric).where(
                    table.tenant == tenant, table.name == name, table.day.in_(days)
                )
            )
            rows = [
                {
                    "tenant": tenant,
                    "name": name,
                    "day": day.isoformat(),
                    "value": format(value, "f"),
                    "recorded_at": now,
                }
                for day, value in values.items()
            ]
            if rows:
                connection.execute(insert(business_metric), rows)

    def metric(self, tenant: str, name: str, *, days: Dates) -> dict[date, Decimal]:
        """See `BusinessMetrics.metric`."""
        table = business_metric.c
        query = select(table.day, table.value).where(
            table.tenant == tenant,
            table.name == name,
            table.day >= days.start.isoformat(),
            table.day < days.end.isoformat(),
        )
        with reading(self._engine) as connection:
            return {
                date.fromisoformat(day): Decimal(value)
                for day, value in connection.execute(query.order_by(table.day))
            }

    def metric_names(self, tenants: Sequence[str]) -> list[tuple[str, str]]:
        """See `BusinessMetrics.metric_names`."""
        table = business_metric.c
        query = select(table.tenant, table.name).where(table.tenant.in_(sorted(tenants)))
        with reading(self._engine) as connection:
            return sorted((row[0], row[1]) for row in connection.execute(query.distinct()))

    def keep(self, one: KeptReconciliation) -> None:
        """See `KeptReconciliations.keep`."""
        row = msgspec.structs.asdict(one)
        row["tenants"] = msgspec.json.encode(one.tenants).decode()
        with writing(self._engine) as connection:
            connection.execute(insert(reconciliation), row)

    def kept(self, *, limit: int) -> list[KeptReconciliation]:
        """See `KeptReconciliations.kept`."""
        newest = reconciliation.c.recorded_at.desc(), reconciliation.c.id.desc()
        query = select(reconciliation).order_by(*newest).limit(limit)
        with reading(self._engine) as connection:
            return [
                KeptReconciliation(
                    **{
                        **row,
                        "tenants": msgspec.json.decode(row["tenants"], type=tuple[str, ...]),
                    }
                )
                for row in connection.execute(query).mappings()
            ]
