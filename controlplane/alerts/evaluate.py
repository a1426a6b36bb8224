"""One round: findings and the alerts of the last round in, alerts and what to tell out.

Time is an argument, so a week of alerting is tested in a millisecond.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import msgspec

from controlplane.alerts.alert import Alert, AlertState, Finding, clean_labels, fingerprint

HOLD_ROUNDS: Final = 1
"""Rounds a finding is seen before it fires; detectors already ask for sustained evidence."""
CLEAR_ROUNDS: Final = 3
"""Rounds without it before it resolves: a flapping series tells once, not each time (AL-27)."""


class Round(msgspec.Struct, frozen=True):
    """The new state, and the alerts whose change somebody must hear of."""

    alerts: list[Alert]
    changed: list[Alert]


def evaluate(
    before: Iterable[Alert],
    findings: Iterable[Finding],
    *,
    now: datetime,
    is_unheard: Callable[[Alert], bool] = lambda _: False,
) -> Round:
    """Advance every alert by one round; pure, so replaying a round gives the same answer.

    Args:
        before: the alerts of the last round.
        findings: what is seen now.
        now: aware UTC.
        is_unheard: whether an alert that is not seen may be unseen for want of data: it stays as
            it is, and its calm rounds are not counted (AL-26).
    """
    known = {alert.fingerprint: alert for alert in before}
    seen = {fingerprint(finding.labels): finding for finding in findings}
    alerts: list[Alert] = []
    changed: list[Alert] = []
    for key in sorted(known.keys() | seen.keys()):
        old, finding = known.get(key), seen.get(key)
        new = _seen(key, old, finding, now) if finding else _unseen(old, now, is_unheard)
        if new is None:
            continue
        alerts.append(new)
        if new.state is not AlertState.PENDING and (old is None or old.state is not new.state):
            changed.append(new)
    return Round(alerts, changed)


def _seen(key: str, old: Alert | None, finding: Finding, now: datetime) -> Alert:  # noqa: PLR0917 - one transition
    if old is None or (old.state is AlertState.RESOLVED and not old.once):
        old = Alert(
            fingerprint=key,
            labels=clean_labels(finding.labels),
            annotations=finding.annotations,
            state=AlertState.PENDING,
            since=now,
            once=finding.once,
        )
    rounds = old.seen_rounds + 1
    fires = old.state is AlertState.PENDING and rounds >= HOLD_ROUNDS
    return msgspec.structs.replace(
        old,
        annotations=finding.annotations,
        seen_rounds=rounds,
        clear_rounds=0,
        state=AlertState.FIRING if fires else old.state,
        since=now if fires else old.since,
        starts_at=now if fires else old.starts_at,
    )


def _unseen(old: Alert | None, now: datetime, is_unheard: Callable[[Alert], bool]) -> Alert | None:
    if old is None or old.state is AlertState.PENDING:
        return None
    if old.state is AlertState.RESOLVED or old.once or is_unheard(old):
        return old
    rounds = old.clear_rounds + 1
    if rounds < CLEAR_ROUNDS:
        return msgspec.structs.replace(old, clear_rounds=rounds)
    return msgspec.structs.replace(
        old, clear_rounds=rounds, state=AlertState.RESOLVED, since=now, ends_at=now
    )
