"""Business metrics and kept reconciliations on both engines."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from sqlalchemy import Engine

from controlplane.core.errors import ConflictError
from controlplane.core.fiscal import Dates
from controlplane.store.metadata.finance import FinanceRepository
from controlplane.usage.ports import KeptReconciliation

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
NOVEMBER = Dates(date(2026, 11, 1), date(2026, 12, 1))


def test_a_days_value_is_replaced_and_others_stay(metadata_engine: Engine) -> None:
    """Exact decimals; by tenant and name; ends are half-open."""
    kept = FinanceRepository(metadata_engine)
    first = {date(2026, 11, 1): Decimal("0.1"), date(2026, 11, 2): Decimal(2)}
    kept.put_metric("acme", "orders", first, now=NOW)
    kept.put_metric("acme", "orders", {date(2026, 11, 2): Decimal("3.25")}, now=NOW)
    kept.put_metric("acme", "orders", {date(2026, 12, 1): Decimal(9)}, now=NOW)
    kept.put_metric("globex", "seats", {date(2026, 11, 2): Decimal(7)}, now=NOW)
    kept.put_metric("acme", "empty", {}, now=NOW)
    assert {date(2026, 11, 1): Decimal("0.1"), date(2026, 11, 2): Decimal("3.25")} == kept.metric(
        "acme", "orders", days=NOVEMBER
    )
    assert [("acme", "orders")] == kept.metric_names(["acme"])
    assert [] == kept.metric_names([])


def test_reports_are_kept_newest_first_and_never_changed(metadata_engine: Engine) -> None:
    kept = FinanceRepository(metadata_engine)
    reports = [
        KeptReconciliation(
            id=f"rec_{n}",
            tenants=("acme", "globex"),
            provider="openai",
            start=NOW,
            end=NOW,
            recorded_at=NOW.replace(minute=n),
            body="{}",
        )
        for n in range(3)
    ]
    for one in reports:
        kept.keep(one)
    assert reports[:0:-1] == kept.kept(limit=2)
    with pytest.raises(ConflictError):
        kept.keep(reports[0])
