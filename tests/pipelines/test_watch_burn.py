"""A budget in the ledger that is spent too fast: seen by the hub's watch, told, and cleared."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import Engine

from controlplane.bootstrap.watching import watched_budgets
from controlplane.budgets.budget import Budget
from controlplane.budgets.ledger import Amounts, Entry, EntryKind, WindowKey
from controlplane.core.calendar import Period
from controlplane.pipelines.budget_course import DaysSpent
from controlplane.pipelines.watch import burn_findings, forecast_findings
from controlplane.pipelines.watched import WatchedBudget
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.ledger import LedgerRepository

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
START = datetime(2026, 11, 1, tzinfo=UTC)
USD = 10**9
HOUR_NUSD = USD // 60 * 60
"""A dollar, less what does not divide by sixty."""
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
                    change=Amounts(enforced_nusd=usd_an_hour * HOUR_NUSD // 60),
                )
                for minute in range(minutes)
            ]
        )


def _watched(engine: Engine, now: datetime) -> Sequence[WatchedBudget]:
    repository = BudgetRepository(engine)
    return watched_budgets(repository, now, days=DaysSpent(repository))


def _told(engine: Engine, now: datetime) -> list[tuple[str, str]]:
    (budget,) = _watched(engine, now)
    return [(f.labels["window"], f.labels["severity"]) for f in burn_findings(budget)]


def test_a_budget_that_is_spent_too_fast_pages_until_it_is_calm(metadata_engine: Engine) -> None:
    """A dollar an hour is planned: steady is quiet, eighteen an hour pages, and clears in minutes."""
    BudgetRepository(metadata_engine).create(BUDGET)
    burst = NOW - timedelta(hours=1)
    _post(metadata_engine, usd_an_hour=1, since=NOW - timedelta(hours=48), until=burst)
    assert [] == _told(metadata_engine, burst)
    _post(metadata_engine, usd_an_hour=18, since=burst, until=NOW)
    assert [("1h", "page")] == _told(metadata_engine, NOW)
    (budget,) = _watched(metadata_engine, NOW)
    (finding,) = burn_findings(budget)
    assert " within 1 h, $1.00 expected of $720.00" in finding.annotations["summary"]
    assert not finding.once
    assert [] == _told(metadata_engine, NOW + timedelta(minutes=6))


def test_the_same_hour_of_both_weeks_before_is_the_plan(metadata_engine: Engine) -> None:
    BudgetRepository(metadata_engine).create(BUDGET)
    for weeks in (2, 1, 0):
        end = NOW - timedelta(days=7 * weeks)
        _post(metadata_engine, usd_an_hour=18, since=end - timedelta(hours=1), until=end)
        assert ([] if weeks == 0 else [("1h", "page")]) == _told(metadata_engine, end)


def test_three_times_the_usual_for_two_hours_pages(metadata_engine: Engine) -> None:
    """Of a month's budget that is 0.56 %: far below what pages in an hour."""
    BudgetRepository(metadata_engine).create(
        msgspec.structs.replace(BUDGET, limit_nusd=7_200 * USD)
    )
    burst = NOW - timedelta(hours=2)
    for weeks in (2, 1):
        end = NOW - timedelta(days=7 * weeks)
        _post(metadata_engine, usd_an_hour=10, since=end - timedelta(hours=3), until=end)
    _post(metadata_engine, usd_an_hour=10, since=NOW - timedelta(days=4), until=burst)
    assert [] == _told(metadata_engine, burst)
    _post(metadata_engine, usd_an_hour=30, since=burst, until=NOW)
    assert [("2h", "page")] == _told(metadata_engine, NOW)
    assert [] == _told(metadata_engine, NOW + timedelta(minutes=11))


def test_steady_days_that_end_below_the_limit_are_quiet(metadata_engine: Engine) -> None:
    """24 USD a day for 19 days, and 11 to come: 720, less what did not divide by sixty."""
    BudgetRepository(metadata_engine).create(BUDGET)
    midnight = NOW.replace(hour=0)
    _post(metadata_engine, usd_an_hour=1, since=START, until=midnight)
    (steady,) = _watched(metadata_engine, midnight)
    assert steady.forecast is not None
    assert 720 * HOUR_NUSD == steady.forecast.p50 == steady.forecast.p90
    assert [] == forecast_findings(steady, midnight)


def test_wild_days_tell_p90_as_well(metadata_engine: Engine) -> None:
    """48 USD every other day: 480 by now, and 24 a day for 11 days are above 720 already."""
    BudgetRepository(metadata_engine).create(BUDGET)
    midnight = NOW.replace(hour=0)
    for day in range(0, 19, 2):
        since = START + timedelta(days=day)
        _post(metadata_engine, usd_an_hour=2, since=since, until=since + timedelta(days=1))
    (wild,) = _watched(metadata_engine, midnight)
    found = forecast_findings(wild, midnight)
    assert [("100", ""), ("110", "p90")] == [
        (one.labels["threshold"], one.labels["quantile"]) for one in found
    ]
    assert all(one.once and one.annotations["method"] == "last_days" for one in found)


def test_a_day_that_is_over_is_asked_for_once(metadata_engine: Engine) -> None:
    repository = BudgetRepository(metadata_engine)
    repository.create(BUDGET)
    _post(metadata_engine, usd_an_hour=1, since=START, until=START + timedelta(days=2))
    days = DaysSpent(repository)
    at = START + timedelta(days=2, hours=1)
    assert [24 * HOUR_NUSD] * 2 == days.last(BUDGET, at)
    _post(metadata_engine, usd_an_hour=1, since=START + timedelta(days=2), until=at)
    assert [24 * HOUR_NUSD] * 2 + [HOUR_NUSD] == days.last(BUDGET, at + timedelta(days=1))
    days.forget_before(START + timedelta(days=40))
    assert [0] * 14 == days.last(BUDGET, START + timedelta(days=40))
