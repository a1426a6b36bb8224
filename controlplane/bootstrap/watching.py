"""The watch of the hub: what is looked at, how often, and where it is told."""

from collections.abc import Sequence
from datetime import datetime

import httpx

from controlplane.alerts.ports import AlertStore, Receiver
from controlplane.bootstrap.system import SystemClock, UlidIds
from controlplane.budgets.standing import standing
from controlplane.notify.alertmanager import AlertmanagerReceiver
from controlplane.notify.webhook import WebhookReceiver
from controlplane.pipelines.watch import WatchedBudget, deliver_round, keep_alive, watch_round
from controlplane.settings import Settings
from controlplane.signals.ports import SpanReader
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.workers.rounds import Rounds

DELIVER_SECONDS = 1.0


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
    reader: SpanReader,
    budgets: BudgetRepository,
    *,
    alerts: AlertStore,
    clock: SystemClock,
    ids: UlidIds,
) -> list[Rounds]:
    """Return the two workers: one that looks, one that tells."""
    receivers = receivers_of(settings)

    def watch() -> None:
        now = clock.now()
        firing = watch_round(
            reader,
            watched_budgets(budgets, now),
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


def watched_budgets(budgets: BudgetRepository, now: datetime) -> Sequence[WatchedBudget]:
    """Return every budget with where its money is now."""
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
            is_rolling=budget.is_rolling,
        )
        for budget in active
    ]
