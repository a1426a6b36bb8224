"""Alert states and the outbox: changed together, delivered apart."""

from datetime import datetime

import msgspec
from sqlalchemy import Engine, delete, insert, select, update

from controlplane.alerts.alert import Alert
from controlplane.alerts.ports import Delivery, Notification, Verdict
from controlplane.store.metadata.engine import reading, writing
from controlplane.store.metadata.tables import alert, outbox


class AlertRepository:
    """Implements `alerts.ports.AlertStore`; one watcher at a time writes rounds."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def alerts(self) -> list[Alert]:
        """Return every alert, newest change first."""
        with reading(self._engine) as connection:
            bodies = connection.scalars(
                select(alert.c.body).order_by(alert.c.since.desc(), alert.c.fingerprint)
            ).all()
        return [msgspec.json.decode(body, type=Alert) for body in bodies]

    def save_round(self, alerts: list[Alert], messages: list[Notification]) -> None:
        """Replace the states and append the messages: both or neither."""
        with writing(self._engine) as connection:
            connection.execute(delete(alert))
            if alerts:
                connection.execute(insert(alert), [_alert_row(one) for one in alerts])
            if messages:
                connection.execute(insert(outbox), [_message_row(one) for one in messages])

    def due(self, *, now: datetime, limit: int) -> list[Notification]:
        """Return what waits for its next attempt, oldest first."""
        query = (
            select(outbox.c.body, outbox.c.attempts)
            .where(outbox.c.verdict.is_(None), outbox.c.next_attempt <= now)
            .order_by(outbox.c.at, outbox.c.id)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        return [
            msgspec.structs.replace(
                msgspec.json.decode(row.body, type=Notification), attempts=row.attempts
            )
            for row in rows
        ]

    def settle(self, message_id: str, delivery: Delivery, *, next_attempt: datetime) -> None:
        """Record one attempt."""
        final = None if delivery.verdict is Verdict.RETRY else delivery.verdict.value
        with writing(self._engine) as connection:
            connection.execute(
                update(outbox)
                .where(outbox.c.id == message_id)
                .values(
                    verdict=final,
                    detail=delivery.detail,
                    attempts=outbox.c.attempts + 1,
                    next_attempt=next_attempt,
                )
            )


def _alert_row(one: Alert) -> dict[str, object]:
    return {
        "fingerprint": one.fingerprint,
        "state": one.state.value,
        "since": one.since,
        "body": msgspec.json.encode(one).decode(),
    }


def _message_row(one: Notification) -> dict[str, object]:
    return {
        "id": one.id,
        "receiver": one.receiver,
        "at": one.at,
        "body": msgspec.json.encode(one).decode(),
        "attempts": 0,
        "next_attempt": one.at,
    }
