"""A budget in the ledger that is spent too fast: seen by the hub's watch, told, and cleared."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from controlplane.bootstrap.watching import watched_budgets
from controlplane.budgets.budget import Budget
from controlplane.budgets.ledger import Amounts, Entry, EntryKind, WindowKey
from controlplane.core.calendar import Period
from controlplane.pipelines.watch import burn_findings
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.ledger import LedgerRepository

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
START = datetime(2026, 11, 1, tzinfo=UTC)
USD = 10**9
BUDGET = Budget(
    id="b",
    name="Search",
    owner="ana",
    tenant="acme",
    limit_nusd=720 * USD,
    period=Period.MONTH,
    counts_from=START,
)


def _post(engine: Engine, *, usd_an_hour: int, since: datetime, until: datetime) -> None:
    """Post a call a minute."""
    minutes = int((until - since) / timedelta(minutes=1))
    with LedgerRepository(engine).transaction() as ledger:
        ledger.append(
            [
                Entry(
                    window=WindowKey("b", START),
                    key=f"settle:{since.isoformat()}:{minute}",
                    kind=EntryKind.SETTLE,
                    at=since + timedelta(minutes=minute),
                    change=Amounts(enforced_nusd=usd_an_hour * USD // 60),
                )
                for minute in range(minutes)
            ]
        )


def _told(engine: Engine, now: datetime) -> list[tuple[str, str]]:
    (budget,) = watched_budgets(BudgetRepository(engine), now)
    return [(f.labels["window"], f.labels["severity"]) for f in burn_findings(budget)]


def test_a_budget_that_is_spent_too_fast_pages_until_it_is_calm(metadata_engine: Engine) -> None:
    """A dollar an hour is planned: steady is quiet, eighteen an hour pages, and clears in minutes."""
    BudgetRepository(metadata_engine).create(BUDGET)
    burst = NOW - timedelta(hours=1)
    _post(metadata_engine, usd_an_hour=1, since=NOW - timedelta(hours=48), until=burst)
    assert [] == _told(metadata_engine, burst)
    _post(metadata_engine, usd_an_hour=18, since=burst, until=NOW)
    assert [("1h", "page")] == _told(metadata_engine, NOW)
    (budget,) = watched_budgets(BudgetRepository(metadata_engine), NOW)
    (finding,) = burn_findings(budget)
    assert finding.annotations["summary"].startswith("Budget Search: $18 within 1 h, $1 expected")
    assert not finding.once
    assert [] == _told(metadata_engine, NOW + timedelta(minutes=6))


def test_the_same_hour_of_both_weeks_before_is_the_plan(metadata_engine: Engine) -> None:
    BudgetRepository(metadata_engine).create(BUDGET)
    for weeks in (2, 1, 0):
        end = NOW - timedelta(days=7 * weeks)
        _post(metadata_engine, usd_an_hour=18, since=end - timedelta(hours=1), until=end)
        assert ([] if weeks == 0 else [("1h", "page")]) == _told(metadata_engine, end)
