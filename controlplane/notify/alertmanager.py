"""Alertmanager's API v2: post, keep alive, resolve; one bad alert never blocks the others."""

from datetime import datetime, timedelta

import httpx

from controlplane.alerts.alert import Alert, AlertState
from controlplane.alerts.ports import Delivery, Notification, Verdict

TIMEOUT_SECONDS = 10.0
BAD_REQUEST = 400
KEEP_ALIVE_ROUNDS = 4
"""A firing alert ends this many resend intervals from now, so a missed send does not resolve it."""


class AlertmanagerReceiver:
    """Send to one Alertmanager; peers of a cluster tell each other."""

    def __init__(self, url: str, *, resend_seconds: float, client: httpx.Client) -> None:
        self._url = url.rstrip("/") + "/api/v2/alerts"
        self._keep_alive = timedelta(seconds=KEEP_ALIVE_ROUNDS * resend_seconds)
        self._client = client

    def deliver(self, message: Notification, *, now: datetime) -> Delivery:
        """Post the alerts; a batch refused for one alert is halved until the culprit is alone."""
        alerts = [self._to_wire(alert, now) for alert in message.alerts]
        try:
            refused = self._post(alerts)
        except httpx.HTTPError as wrong:
            return Delivery(Verdict.RETRY, f"no answer: {type(wrong).__name__}")
        if refused is None:
            return Delivery(Verdict.RETRY, "answered with a server error")
        if refused:
            return Delivery(Verdict.DEAD, f"{len(refused)} alerts refused: {refused[0]}")
        return Delivery(Verdict.DELIVERED)

    def _post(self, alerts: list[dict[str, object]]) -> list[str] | None:
        """Return why alerts were refused, or None when the server could not take any."""
        answer = self._client.post(self._url, json=alerts, timeout=TIMEOUT_SECONDS)
        if answer.is_success:
            return []
        if answer.status_code != BAD_REQUEST:
            return None
        if len(alerts) <= 1:
            return [answer.text[:200]]
        middle = len(alerts) // 2
        halves = (self._post(alerts[:middle]), self._post(alerts[middle:]))
        return None if None in halves else [why for half in halves if half for why in half]

    def _to_wire(self, alert: Alert, now: datetime) -> dict[str, object]:
        starts = alert.starts_at or now
        ends = alert.ends_at if alert.state is AlertState.RESOLVED else now + self._keep_alive
        return {
            "labels": alert.labels,
            "annotations": alert.annotations,
            "startsAt": starts.isoformat(),
            "endsAt": max(ends or now, starts + timedelta(milliseconds=1)).isoformat(),
        }
