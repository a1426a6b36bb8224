"""Exchange rates, appended to and never changed."""

from collections.abc import Iterable
from datetime import date

from sqlalchemy import Engine, insert, select

from controlplane.pricing.currency import ExchangeRate
from controlplane.store.metadata.engine import reading, writing
from controlplane.store.metadata.tables import exchange_rate


class ExchangeRateRepository:
    """Implements `pricing.currency.ExchangeRates`; safe for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, rates: Iterable[ExchangeRate]) -> None:
        """See `ExchangeRates.add`."""
        rows = [
            {
                "currency": rate.currency,
                "day": rate.day.isoformat(),
                "usd_per_unit": rate.usd_per_unit,
                "source": rate.source,
                "recorded_at": rate.recorded_at,
            }
            for rate in rates
        ]
        if rows:
            with writing(self._engine) as connection:
                connection.execute(insert(exchange_rate), rows)

    def of(self, currency: str) -> list[ExchangeRate]:
        """See `ExchangeRates.of`."""
        table = exchange_rate.c
        query = select(exchange_rate).where(table.currency == currency).order_by(table.seq)
        with reading(self._engine) as connection:
            return [
                ExchangeRate(
                    currency=row.currency,
                    day=date.fromisoformat(row.day),
                    usd_per_unit=row.usd_per_unit,
                    source=row.source,
                    recorded_at=row.recorded_at,
                )
                for row in connection.execute(query)
            ]

    def currencies(self) -> list[str]:
        """See `ExchangeRates.currencies`."""
        query = select(exchange_rate.c.currency).distinct().order_by(exchange_rate.c.currency)
        with reading(self._engine) as connection:
            return list(connection.scalars(query))
