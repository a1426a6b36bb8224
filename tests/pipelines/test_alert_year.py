"""A year of a monthly budget, hour by hour: what the watch tells, and how often."""

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from controlplane.alerts.alert import Alert, AlertState
from controlplane.alerts.burn import USUAL_AFTER, Pace, Spent, burns, rules_for
from controlplane.alerts.evaluate import evaluate
from controlplane.alerts.forecast import forecast
from controlplane.pipelines.watch import budget_findings, burn_findings, forecast_findings
from controlplane.pipelines.watched import WatchedBudget
from controlplane.policy.wire import Standing

HOUR = timedelta(hours=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
HOURS = 365 * 24
STEP = 12
"""Spans of five minutes in an hour: what the shortest window looks at."""
LIMIT = 720_000
LEAST = 5_000


def _month(at: datetime) -> tuple[datetime, datetime]:
    first = at.replace(day=1, hour=0)
    return first, (first + timedelta(days=32)).replace(day=1)


class Year:
    """What was spent in each five minutes of a year, with sums to look up."""

    def __init__(self, hourly: Sequence[float]) -> None:
        self._sums = [0]
        for amount in hourly:
            for _ in range(STEP):
                self._sums.append(self._sums[-1] + int(amount / STEP))

    def between(self, since: datetime, until: datetime) -> int:
        """Return what was spent; nothing was before the year."""
        first, last = (max(0, int((at - START) / timedelta(minutes=5))) for at in (since, until))
        return self._sums[last] - self._sums[first]

    def watched(self, now: datetime) -> WatchedBudget:
        """See the budget as the hub's watch does, a hundred calls in every span of time."""
        begin, end = _month(now)
        used = self.between(begin, now)
        midnight = now.replace(hour=0)
        days = [midnight - timedelta(days=back) for back in range(14, 0, -1)]
        known = [self.between(day, day + timedelta(days=1)) for day in days if day >= START]
        paces = []
        for rule in rules_for(end - begin):
            ends = (now, *(now - back for back in USUAL_AFTER))
            long, short = (
                [self.between(at - length, at) for at in ends]
                for length in (rule.window, rule.short)
            )
            pace = Pace(
                rule, Spent(long[0], 100), Spent(short[0], 100), (*long[1:],), (*short[1:],)
            )
            paces.append(pace)
        return WatchedBudget(
            tenant="acme",
            name="Search",
            owner="ana",
            standing=Standing("b", begin, end, LIMIT, 0, used, 0, 0, 0, max(0, LIMIT - used)),
            forecast=forecast(
                used,
                known,
                days_left=(end - now) / timedelta(days=1),
                day_part=(now - midnight) / timedelta(days=1),
            ),
            burns=burns(paces, limit=LIMIT, period=end - begin, least_amount=LEAST),
        )


def _told(year: Year, *, every: int, hours: range = range(1, HOURS)) -> list[Alert]:
    """Let the watch look again and again; return what it told, each firing."""
    alerts: list[Alert] = []
    told: list[Alert] = []
    for hour in hours[::every]:
        now = START + hour * HOUR
        budget = year.watched(now)
        found = (*budget_findings(budget), *forecast_findings(budget, now), *burn_findings(budget))
        done = evaluate(alerts, found, now=now)
        told += [one for one in done.changed if one.state is AlertState.FIRING]
        alerts = done.alerts
    return told


def _hourly(*, month_factors: Sequence[float], noise: float) -> list[float]:
    """Business hours and weekends, a factor for each month, noise; 1.0 spends the limit."""
    chance, hourly = random.Random(11), []
    for hour in range(HOURS):
        at = START + hour * HOUR
        begin, end = _month(at)
        shape = (1.5 if 8 <= at.hour < 20 else 0.5) * (0.4 if at.weekday() >= 5 else 1.24)
        pace = LIMIT / ((end - begin) / HOUR) * month_factors[at.month - 1]
        hourly.append(pace * shape * chance.lognormvariate(0, noise))
    return hourly


def test_each_threshold_and_forecast_is_told_once_per_period() -> None:
    """Twelve months from a third of the limit to double it; each threshold that was met, once."""
    factors = [0.35, 0.6, 0.85, 1.1, 1.3, 0.9, 0.7, 1.2, 2.0, 0.4, 1.05, 0.95]
    year = Year(_hourly(month_factors=factors, noise=0.1))
    told = [one for one in _told(year, every=3) if one.labels["alertname"] != "BudgetBurn"]
    once = Counter(
        tuple(
            one.labels.get(name, "")
            for name in ("alertname", "threshold", "quantile", "window_start")
        )
        for one in told
    )
    assert {1} == set(once.values())
    reached = {
        (str(percent), begin.isoformat())
        for begin, end in {_month(START + hour * HOUR) for hour in range(HOURS)}
        for percent in (50, 80, 100)
        if year.between(begin, end - 3 * HOUR) >= LIMIT * percent // 100
    }
    assert reached <= {(key[1], key[3]) for key in once if key[0] == "BudgetThreshold"}
    forecasts = {
        datetime.fromisoformat(key[3]).month for key in once if key[:2] == ("BudgetForecast", "100")
    }
    assert {4, 5, 8, 9} <= forecasts
    assert not {1, 2, 7} & forecasts


def test_a_year_at_the_planned_pace_burns_never() -> None:
    """Working days, nights and weekends with noise, all within the plan: nobody is woken."""
    year = Year(_hourly(month_factors=[0.97] * 12, noise=0.15))
    told = [one.labels["alertname"] for one in _told(year, every=1)]
    assert "BudgetBurn" not in told


def test_steady_spend_for_a_month_is_no_alert_but_the_thresholds() -> None:
    flat = [LIMIT / (31 * 24)] * HOURS
    told = _told(Year(flat), every=1, hours=range(1, 31 * 24))
    assert {"BudgetThreshold"} == {one.labels["alertname"] for one in told}
    assert ["50", "80"] == [one.labels["threshold"] for one in told]


def test_a_weekly_batch_job_pages_until_it_was_seen_in_two_weeks() -> None:
    """Each Wednesday at 3 it takes 2.9 % of the month's limit within the hour."""
    hourly = [300.0] * HOURS
    for hour in range(HOURS):
        at = START + hour * HOUR
        if at.weekday() == 2 and at.hour == 3:
            hourly[hour] = 21_000.0
    told = [
        one.starts_at
        for one in _told(Year(hourly), every=1, hours=range(1, 60 * 24))
        if one.labels["alertname"] == "BudgetBurn" and one.labels["severity"] == "page"
    ]
    assert [datetime(2026, 1, day, 4, tzinfo=UTC) for day in (7, 14)] == told
