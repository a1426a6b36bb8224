"""What finance keeps beside calls: numbers of the business, and reconciliations that were recorded."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol

import msgspec

from controlplane.core.fiscal import Dates


class BusinessMetrics(Protocol):
    """Daily numbers of an organisation: orders, seats, resolved tickets."""

    def put_metric(
        self, tenant: str, name: str, values: Mapping[date, Decimal], *, now: datetime
    ) -> None:
        """Keep the values of these days, in place of what was there; twice is once."""
        ...

    def metric(self, tenant: str, name: str, *, days: Dates) -> dict[date, Decimal]:
        """Return which of these days have a value, and which."""
        ...

    def metric_names(self, tenants: Sequence[str]) -> list[tuple[str, str]]:
        """Return every (tenant, name) that has a value, sorted."""
        ...


class KeptReconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded report; `body` is its JSON."""

    id: str
    tenants: tuple[str, ...]
    provider: str
    start: datetime
    end: datetime
    recorded_at: datetime
    body: str


class KeptReconciliations(Protocol):
    """Reports that somebody recorded; they are never changed."""

    def keep(self, one: KeptReconciliation) -> None:
        """Keep a report.

        Raises:
            ConflictError: there is one of that id.
        """
        ...

    def kept(self, *, limit: int) -> list[KeptReconciliation]:
        """Return the newest reports first."""
        ...
