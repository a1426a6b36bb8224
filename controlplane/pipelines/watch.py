"""Rollups → detection → alert → outbox → notified."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from controlplane.alerts.alert import Alert, AlertState, Finding, Severity
from controlplane.alerts.evaluate import evaluate
from controlplane.alerts.ports import AlertStore, Delivery, Notification, Receiver, Verdict
from controlplane.core.calendar import Window
from controlplane.core.ids import IdFactory
from controlplane.core.instants import align_down
from controlplane.core.money import round_usd
from controlplane.detection.baseline import Series
from controlplane.detection.drift import MAX_BINS, Counts, Drift, drifted
from controlplane.detection.heads import Excess, cost_excess
from controlplane.pipelines.watch_silent import Unheard, emitters_of, silent_findings
from controlplane.pipelines.watch_unpriced import unpriced_findings
from controlplane.pipelines.watch_velocity import velocity_findings
from controlplane.pipelines.watched import WatchedBudget
from controlplane.policy.velocity import Quota
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CostQuery, Granularity
from controlplane.signals.signal_ports import SignalReader
from controlplane.usage.dimensions import CALLS_ONLY

BUCKET: Final = timedelta(minutes=15)
HISTORY: Final = timedelta(days=15)
DRIFT_REFERENCE: Final = timedelta(days=7)
DRIFT_CURRENT: Final = timedelta(hours=6)
FORECAST_AFTER_RATIO: Final = 0.2
"""Of a window: before that, one busy hour would be a forecast."""
P90_PERCENT: Final = 110
"""Of the limit: what one window in ten will pass has to be this much to be told."""
MAX_DUE: Final = 100
RETRY_SECONDS: Final = (5, 30, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
UNATTRIBUTED: Final = "unattributed"


class Sources(msgspec.Struct, frozen=True):
    """What is looked at: calls, who sends them, and what began by itself."""

    calls: SpanReader
    signals: SignalReader
    quotas: Sequence[Quota] = ()


def watch_round(
    sources: Sources,
    budgets: Sequence[WatchedBudget],
    store: AlertStore,
    *,
    receivers: Sequence[str],
    ids: IdFactory,
    now: datetime,
) -> list[Alert]:
    """Evaluate everything once and append what changed to the outbox; return what is firing.

    Raises:
        StoreUnavailableError: nothing was evaluated; the states are as they were.
    """
    reader = sources.calls
    tenants = reader.tenants()
    emitters = emitters_of(sources.signals, {*tenants, *(one.tenant for one in budgets)}, now)
    findings = silent_findings(emitters, now)
    findings += [
        finding
        for tenant in tenants
        for finding in (
            *_costs(reader, tenant, now),
            *_drifts(reader, tenant, now),
            *unpriced_findings(reader, tenant, now),
        )
    ]
    findings += [
        finding
        for budget in budgets
        for finding in (
            *budget_findings(budget),
            *forecast_findings(budget, now),
            *burn_findings(budget),
        )
    ]
    findings += velocity_findings(sources.quotas, now)
    unheard = Unheard(emitters, now)
    done = evaluate(store.alerts(), findings, now=now, is_unheard=unheard)
    messages = [
        Notification(id=ids.new("msg"), receiver=name, at=now, alerts=tuple(done.changed))
        for name in receivers
        if done.changed
    ]
    store.save_round(done.alerts, messages)
    return [alert for alert in done.alerts if alert.state is AlertState.FIRING]


def deliver_round(store: AlertStore, receivers: Mapping[str, Receiver], *, now: datetime) -> int:
    """Try what is due once; return how many messages were delivered.

    A message of a receiver that is no longer configured is dead, and says so.
    """
    delivered = 0
    for message in store.due(now=now, limit=MAX_DUE):
        receiver = receivers.get(message.receiver)
        answer = (
            receiver.deliver(message, now=now)
            if receiver
            else Delivery(Verdict.DEAD, "the receiver is no longer configured")
        )
        if answer.verdict is Verdict.RETRY and message.attempts >= len(RETRY_SECONDS):
            answer = Delivery(Verdict.DEAD, f"gave up: {answer.detail}")
        wait = RETRY_SECONDS[min(message.attempts, len(RETRY_SECONDS) - 1)]
        store.settle(message.id, answer, next_attempt=now + timedelta(seconds=wait))
        delivered += answer.verdict is Verdict.DELIVERED
    return delivered


def keep_alive(
    firing: Sequence[Alert], receiver: Receiver, *, now: datetime, new_id: Callable[[], str]
) -> Delivery | None:
    """Tell Alertmanager again what still fires: it resolves by itself what it stops hearing of."""
    if not firing:
        return None
    message = Notification(id=new_id(), receiver="alertmanager", at=now, alerts=tuple(firing))
    return receiver.deliver(message, now=now)


def budget_findings(budget: WatchedBudget) -> list[Finding]:
    """Return the thresholds that actual spend has reached; each is told once per window."""
    standing, used = budget.standing, budget.used_nusd
    # A rolling window moves every quarter hour, and would be another alert each time.
    window = {} if budget.is_rolling else {"window_start": standing.window_start.isoformat()}
    return [
        Finding(
            labels={
                "alertname": "BudgetThreshold",
                "tenant": budget.tenant,
                "budget_id": standing.budget_id,
                "threshold": str(percent),
                **window,
                "severity": Severity.PAGE if percent >= 100 else Severity.TICKET,  # noqa: PLR2004 - percent of the limit
            },
            annotations={
                "summary": (
                    f"Budget {budget.name}: {budget.say(used)} of "
                    f"{budget.say(standing.limit_nusd)} used ({percent} % reached)"
                ),
                "owner": budget.owner,
                "window_end": standing.window_end.isoformat(),
            },
            once=not budget.is_rolling,
        )
        for percent in budget.thresholds
        if standing.limit_nusd > 0 and 100 * used >= percent * standing.limit_nusd
    ]


def forecast_findings(budget: WatchedBudget, now: datetime) -> list[Finding]:
    """Return the thresholds that the window is on its way to; each once per window.

    The median of the last days where there are some, else the run rate, used / elapsed; and P90
    beyond 110 %, which leaves time to act. What the alert says is how it was reached.
    """
    standing = budget.standing
    whole = (standing.window_end - standing.window_start).total_seconds()
    elapsed = (now - standing.window_start).total_seconds()
    if standing.limit_nusd <= 0 or budget.is_rolling or elapsed <= 0:
        return []  # a rolling window never ends: what it is on its way to is what it has
    by_days, limit = budget.forecast, standing.limit_nusd
    expected = by_days.p50 if by_days else int(budget.used_nusd * whole / elapsed)
    method = "last_days" if by_days else "run_rate"
    found = []
    if by_days or elapsed >= FORECAST_AFTER_RATIO * whole:
        found = [
            _forecast_finding(budget, percent, expected, method=method)
            for percent in budget.forecast_thresholds
            if 100 * expected > percent * limit
        ]
    if by_days and budget.forecast_thresholds and 100 * by_days.p90 > P90_PERCENT * limit:
        p90 = _forecast_finding(budget, P90_PERCENT, by_days.p90, method=method, quantile="p90")
        found.append(p90)
    return found


def _forecast_finding(
    budget: WatchedBudget, percent: int, expected: int, *, method: str, quantile: str = ""
) -> Finding:
    standing = budget.standing
    verb = "may be reached" if quantile else "expected"
    return Finding(
        labels={
            "alertname": "BudgetForecast",
            "tenant": budget.tenant,
            "budget_id": standing.budget_id,
            "threshold": str(percent),
            "quantile": quantile,
            "window_start": standing.window_start.isoformat(),
            "severity": Severity.TICKET,
        },
        annotations={
            "summary": (
                f"Budget {budget.name}: {budget.say(expected)} {verb} by the end of the "
                f"window, {percent} % of {budget.say(standing.limit_nusd)} exceeded; "
                f"{budget.say(budget.used_nusd)} used so far"
            ),
            "method": method,
            "owner": budget.owner,
            "window_end": standing.window_end.isoformat(),
        },
        once=True,
    )


def burn_findings(budget: WatchedBudget) -> list[Finding]:
    """Return where a budget is spent much faster than planned; clears when its short window is calm."""
    return [
        Finding(
            labels={
                "alertname": "BudgetBurn",
                "tenant": budget.tenant,
                "budget_id": budget.standing.budget_id,
                "window": f"{burn.rule.window // timedelta(hours=1)}h",
                "severity": burn.rule.severity,
            },
            annotations={
                "summary": (
                    f"Budget {budget.name}: {budget.say(burn.amount)} within "
                    f"{burn.rule.window // timedelta(hours=1)} h, {budget.say(burn.expected)} "
                    f"expected of {budget.say(budget.standing.limit_nusd)}"
                ),
                "owner": budget.owner,
                "window_end": budget.standing.window_end.isoformat(),
            },
        )
        for burn in budget.burns
    ]


def _costs(reader: SpanReader, tenant: str, now: datetime) -> list[Finding]:
    end = align_down(now, BUCKET)
    window = Window(end - HISTORY, end)  # the open bucket would always look cheap
    query = CostQuery(
        tenants=(tenant,),
        window=window,
        granularity=Granularity.QUARTER_HOUR,
        group_by=("team",),
        filters=CALLS_ONLY,  # a correction of a closed month is no spike of today
    )
    teams, costs = _matrix(reader.costs(query), window)
    return [
        _cost_finding(reader, tenant, teams[excess.series], window=window, excess=excess)
        for excess in cost_excess(costs, costs.shape[1] - 1)
    ]


def _matrix(table: pa.Table, window: Window) -> tuple[list[str | None], Series]:
    rows = table.select(["bucket_start", "team", "cost_nusd"]).to_pylist()
    teams = sorted({row["team"] for row in rows}, key=lambda team: (team is None, team))
    index = {team: number for number, team in enumerate(teams)}
    costs = np.zeros((len(teams), int((window.end - window.start) / BUCKET)), dtype=np.float64)
    for row in rows:
        bucket = int((row["bucket_start"] - window.start) / BUCKET)
        costs[index[row["team"]], bucket] += row["cost_nusd"]
    before_first = np.logical_not(np.logical_or.accumulate(costs > 0, axis=1))
    costs[before_first] = np.nan
    return teams, costs


def _cost_finding(
    reader: SpanReader, tenant: str, team: str | None, *, window: Window, excess: Excess
) -> Finding:
    since = window.start + excess.since * BUCKET
    top = reader.costs(
        CostQuery(
            tenants=(tenant,),
            window=Window(since, window.end),
            group_by=("model",),
            filters={"team": (team,), **CALLS_ONLY},
        )
    )
    blame = ", ".join(
        f"{row['model'] or UNATTRIBUTED} {round_usd(row['cost_nusd'])}"
        for row in top.slice(0, 3).to_pylist()
    )
    name = team or UNATTRIBUTED
    return Finding(
        labels={
            "alertname": "CostAnomaly",
            "tenant": tenant,
            "team": name,
            "severity": Severity.PAGE,
            "detector_id": "cost_excess",
        },
        annotations={
            "summary": (
                f"Team {name}: {round_usd(excess.actual_nusd)} in 15 min, "
                f"{round_usd(excess.expected_nusd)} expected"
            ),
            "score": f"{excess.score:.1f}",
            "since": since.isoformat(),
            "top_models": blame,
        },
    )


def _drifts(reader: SpanReader, tenant: str, now: datetime) -> list[Finding]:
    boundary = now - DRIFT_CURRENT
    reference = reader.output_lengths((tenant,), Window(boundary - DRIFT_REFERENCE, boundary))
    current = reader.output_lengths((tenant,), Window(boundary, now))
    found = drifted(_histograms(reference), _histograms(current))
    return [_drift_finding(tenant, drift) for drift in found]


def _histograms(table: pa.Table) -> dict[str, Counts]:
    histograms: dict[str, Counts] = {}
    for row in table.to_pylist():
        model = row["model"] or UNATTRIBUTED
        counts = histograms.setdefault(model, np.zeros(MAX_BINS, dtype=np.int64))
        counts[row["bin"]] += row["calls"]
    return histograms


def _drift_finding(tenant: str, drift: Drift) -> Finding:
    return Finding(
        labels={
            "alertname": "OutputLengthDrift",
            "tenant": tenant,
            "model": drift.group,
            "severity": Severity.TICKET,
            "detector_id": "output_length",
        },
        annotations={
            "summary": (
                f"Model {drift.group}: median output {drift.current_median:.0f} tokens, "
                f"{drift.reference_median:.0f} before"
            ),
            "statistic": f"{drift.statistic:.3f}",
            "p_value": f"{drift.p_value:.2e}",
            "rows": f"{drift.current_rows} against {drift.reference_rows}",
        },
    )
