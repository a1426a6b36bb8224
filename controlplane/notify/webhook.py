"""Signed webhooks as the Standard Webhooks specification says them (version 1.0)."""

from datetime import datetime

import httpx
import msgspec
from standardwebhooks import Webhook

from controlplane.alerts.alert import Alert
from controlplane.alerts.ports import Delivery, Notification, Verdict

TIMEOUT_SECONDS = 15.0
MAX_BODY_BYTES = 20_000
GONE = 410


class WebhookReceiver:
    """POST each message to one URL; only a 2xx is success and a redirect is a failure."""

    def __init__(self, url: str, secret: str, *, client: httpx.Client) -> None:
        self._url = url
        self._signer = Webhook(secret)
        self._client = client

    def deliver(self, message: Notification, *, now: datetime) -> Delivery:
        """Send; `webhook-id` is the message's id on every attempt, the timestamp is the attempt's."""
        body = _body(message)
        headers = {
            "content-type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message.id, now, body.decode()),
        }
        try:
            answer = self._client.post(
                self._url,
                content=body,
                headers=headers,
                timeout=TIMEOUT_SECONDS,
                follow_redirects=False,
            )
        except httpx.HTTPError as wrong:
            return Delivery(Verdict.RETRY, f"no answer: {type(wrong).__name__}")
        if answer.is_success:
            return Delivery(Verdict.DELIVERED)
        verdict = Verdict.DEAD if answer.status_code == GONE else Verdict.RETRY
        return Delivery(verdict, f"answered {answer.status_code}")


def _body(message: Notification) -> bytes:
    alerts = list(message.alerts)
    while True:
        body = msgspec.json.encode(
            {
                "type": "alert.changed",
                "timestamp": message.at,
                "data": {
                    "alerts": [to_wire(alert) for alert in alerts],
                    "truncated": len(message.alerts) - len(alerts),
                },
            }
        )
        if len(body) <= MAX_BODY_BYTES or not alerts:
            return body
        alerts.pop()


def to_wire(alert: Alert) -> dict[str, object]:
    """Return what a person or another program is told of an alert."""
    return {
        "status": alert.state.value,
        "labels": alert.labels,
        "annotations": alert.annotations,
        "startsAt": alert.starts_at,
        "endsAt": alert.ends_at,
    }
