"""Where alerts are kept and how they leave: the outbox and its receivers."""

from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from controlplane.alerts.alert import Alert


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one receiver; `id` stays the same over every retry."""

    id: str
    receiver: str
    at: datetime
    alerts: tuple[Alert, ...]
    attempts: int = 0


class Verdict(StrEnum):
    """What a receiver did with a message."""

    DELIVERED = "delivered"
    RETRY = "retry"
    DEAD = "dead"


class Delivery(msgspec.Struct, frozen=True):
    """A receiver's answer, in a sentence for people."""

    verdict: Verdict
    detail: str = ""


class Receiver(Protocol):
    """A way out."""

    def deliver(self, message: Notification, *, now: datetime) -> Delivery:
        """Hand the message over; at least once, so a receiver dedupes by `message.id`.

        Never raises for what the other side did: an answer of any kind is a Delivery.
        """
        ...


class AlertStore(Protocol):
    """Alert states and the outbox, changed together."""

    def alerts(self) -> list[Alert]:
        """Return every alert that is not forgotten."""
        ...

    def save_round(self, alerts: list[Alert], messages: list[Notification]) -> None:
        """Replace the alert states and append to the outbox in one transaction."""
        ...

    def due(self, *, now: datetime, limit: int) -> list[Notification]:
        """Return undelivered messages whose next attempt is due, oldest first."""
        ...

    def settle(self, message_id: str, delivery: Delivery, *, next_attempt: datetime) -> None:
        """Record an attempt: delivered, dead, or due again at `next_attempt`."""
        ...
