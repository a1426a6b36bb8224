"""The watch of the hub: what is looked at, how often, and where it is told."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import httpx

from controlplane.alerts.burn import PERMILLE, USUAL_AFTER, Burn, Pace, burns, rules_for
from controlplane.alerts.forecast import Forecast, forecast
from controlplane.alerts.ports import AlertStore, Receiver
from controlplane.bootstrap.system import SystemClock, UlidIds
from controlplane.budgets.budget import Budget
from controlplane.budgets.ledger import Amounts
from controlplane.budgets.standing import standing
from controlplane.core.calendar import Window
from controlplane.core.money import NUSD_PER_USD
from controlplane.notify.alertmanager import AlertmanagerReceiver
from controlplane.notify.webhook import WebhookReceiver
from controlplane.pipelines.budget_course import DaysSpent, day_part, is_forecast_by_days
from controlplane.pipelines.watch import Sources, deliver_round, keep_alive, watch_round
from controlplane.pipelines.watched import WatchedBudget
from controlplane.policy.units import BudgetUnit
from controlplane.settings import Settings
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.workers.rounds import Rounds

DELIVER_SECONDS = 1.0
LEAST_BURN_NUSD = 5 * NUSD_PER_USD
"""An excess below five dollars wakes nobody."""


def receivers_of(settings: Settings) -> dict[str, Receiver]:
    """Return the configured ways out by name; the clients live as long as the process."""
    told = settings.watch
    receivers: dict[str, Receiver] = {}
    if told.alertmanager_url:
        receivers["alertmanager"] = AlertmanagerReceiver(
            told.alertmanager_url, resend_seconds=told.interval_seconds, client=httpx.Client()
        )
    if told.webhook_url and told.webhook_secret_file:
        secret = told.webhook_secret_file.read_text(encoding="utf-8").strip()
        receivers["webhook"] = WebhookReceiver(told.webhook_url, secret, client=httpx.Client())
    return receivers


def watch_rounds(
    settings: Settings,
    sources: Callable[[], Sources],
    budgets: BudgetRepository,
    *,
    alerts: AlertStore,
    clock: SystemClock,
    ids: UlidIds,
) -> list[Rounds]:
    """Return the two workers: one that looks, one that tells."""
    receivers = receivers_of(settings)

    days = DaysSpent(budgets)

    def watch() -> None:
        now = clock.now()
        firing = watch_round(
            sources(),
            watched_budgets(budgets, now, days=days),
            alerts,
            receivers=list(receivers),
            ids=ids,
            now=now,
        )
        if "alertmanager" in receivers:
            keep_alive(firing, receivers["alertmanager"], now=now, new_id=lambda: ids.new("msg"))

    return [
        Rounds("watch", watch, seconds=settings.watch.interval_seconds),
        Rounds(
            "deliver",
            lambda: deliver_round(alerts, receivers, now=clock.now()),
            seconds=DELIVER_SECONDS,
        ),
    ]


def watched_budgets(
    budgets: BudgetRepository, now: datetime, *, days: DaysSpent
) -> Sequence[WatchedBudget]:
    """Return every budget with where its money is now."""
    days.forget_before(now)
    active = budgets.active()
    balances = budgets.balances(active, at=now)
    return [
        WatchedBudget(
            tenant=budget.tenant,
            name=budget.name,
            owner=budget.owner,
            thresholds=budget.thresholds,
            forecast_thresholds=budget.forecast_thresholds,
            standing=standing(budget, balances[budget.id], now),
            forecast=_forecast(budget, balances[budget.id], now, days=days),
            burns=_burns(budgets, budget, balances[budget.id], now=now),
            is_rolling=budget.is_rolling,
        )
        for budget in active
    ]


def _forecast(
    budget: Budget, amounts: Amounts, now: datetime, *, days: DaysSpent
) -> Forecast | None:
    if not is_forecast_by_days(budget, now):
        return None
    left = (budget.window(now).end - now) / timedelta(days=1)
    used = amounts.total_nusd - amounts.leased_nusd
    return forecast(used, days.last(budget, now), days_left=left, day_part=day_part(now))


def _burns(
    budgets: BudgetRepository, budget: Budget, amounts: Amounts, *, now: datetime
) -> tuple[Burn, ...]:
    """Look at the pace of a budget; one with too little spent to burn is not asked about."""
    window, limit = budget.counted_window(now), budget.limit_at(now)
    period = window.end - window.start
    rules = rules_for(period)
    if not rules or amounts.total_nusd * PERMILLE < min(r.share_permille for r in rules) * limit:
        return ()
    paces = []
    for rule in rules:
        ends = (now, *(now - back for back in USUAL_AFTER))
        lengths = (rule.window, rule.short)
        spans = [Window(end - length, end) for length in lengths for end in ends]
        long, *usual_long = budgets.spent(budget.id, spans[: len(ends)])
        short, *usual_short = budgets.spent(budget.id, spans[len(ends) :])
        paces.append(
            Pace(
                rule,
                long,
                short,
                tuple(one.amount for one in usual_long),
                tuple(one.amount for one in usual_short),
            )
        )
    least = LEAST_BURN_NUSD if budget.unit is BudgetUnit.USD else 0
    return burns(paces, limit=limit, period=period, least_amount=least)
