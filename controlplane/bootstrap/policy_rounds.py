"""The hub's workers that publish policies: what time changes, roll-outs, canaries, quotas."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from controlplane import telemetry
from controlplane.bootstrap.places import SUBJECT_KEY
from controlplane.bootstrap.system import SystemClock, secret_file
from controlplane.core.errors import ConflictError
from controlplane.ingest.subjects import Subject, subject_hash
from controlplane.pipelines.canaries import canary_tick
from controlplane.pipelines.publish import PublishTools, republish_due
from controlplane.pipelines.rollout import rollout_tick
from controlplane.pipelines.velocity import NameOf, velocity_tick
from controlplane.policy.rollout import RolloutState
from controlplane.policy.velocity import Quota
from controlplane.settings import Settings
from controlplane.signals.ports import SpanReader
from controlplane.workers.rounds import Rounds

log = structlog.stdlib.get_logger()
REPUBLISH_SECONDS: Final = 30.0
ROLLOUT_SECONDS: Final = 1.0
CANARY_SECONDS: Final = 10.0
SUBJECT_DIGITS: Final = 16


def policy_rounds(
    settings: Settings,
    publishing: PublishTools,
    reader: SpanReader,
    *,
    clock: SystemClock,
    published: Callable[[], None],
) -> list[Rounds]:
    """Return the workers that publish: what time changes, roll-outs, canaries, quotas."""
    name_of = subject_names(secret_file(settings.secrets_dir / SUBJECT_KEY))
    return [
        Rounds(
            "republish",
            lambda: republish_due(clock.now(), tools=publishing),
            seconds=REPUBLISH_SECONDS,
        ),
        Rounds(
            "rollout",
            lambda: roll_out(clock.now(), publishing=publishing, published=published),
            seconds=ROLLOUT_SECONDS,
        ),
        Rounds(
            "canaries",
            lambda: move_canaries(
                clock.now(), publishing=publishing, reader=reader, published=published
            ),
            seconds=CANARY_SECONDS,
        ),
        Rounds(
            "velocity",
            lambda: guard_velocity(
                clock.now(),
                publishing=publishing,
                reader=reader,
                name_of=name_of,
                published=published,
            ),
            seconds=settings.policy.velocity_seconds,
        ),
    ]


def all_quotas(publishing: PublishTools) -> list[Quota]:
    """Return the quotas of every scope."""
    return [
        one for scope in publishing.policies.scopes() for one in publishing.quotas.quotas(scope)
    ]


def roll_out(now: datetime, *, publishing: PublishTools, published: Callable[[], None]) -> None:
    """Move roll-outs on and tell the waiting agents; another replica may have been faster."""
    try:
        moved = rollout_tick(now, tools=publishing)
    except ConflictError:
        return  # the next round sees what the other did
    for rollout in moved:
        log.info(
            "policy_rollout_moved",
            scope=rollout.scope,
            state=rollout.state.value,
            stage=rollout.stage,
            reason=rollout.reason,
        )
        if rollout.state is not RolloutState.ROLLING:
            telemetry.POLICY_ROLLOUTS.labels(rollout.state.value).inc()
    if moved:
        published()


def subject_names(key: bytes) -> NameOf:
    """Return what names a tenant's key or user; only who holds the key can tell whom."""
    return lambda subject: subject_hash(key, Subject(*subject))[:SUBJECT_DIGITS]


def guard_velocity(
    now: datetime,
    *,
    publishing: PublishTools,
    reader: SpanReader,
    name_of: NameOf,
    published: Callable[[], None],
) -> None:
    """Hold back who spends too fast, and tell the waiting agents."""
    try:
        looked = velocity_tick(now, tools=publishing, reader=reader, name_of=name_of)
    except ConflictError:
        return  # what was decided is kept; the next generation says it
    for one in looked:
        telemetry.VELOCITY_LEFT_OUT.labels(one.scope).set(one.left_out)
        for quota in one.begun:
            telemetry.VELOCITY_QUOTAS.labels(one.scope, quota.limit_id).inc()
        if one.published is not None:
            log.warning("velocity_quotas", scope=one.scope, says=one.published.change.message)
    if any(one.published for one in looked):
        published()


def move_canaries(
    now: datetime,
    *,
    publishing: PublishTools,
    reader: SpanReader,
    published: Callable[[], None],
) -> None:
    """Move canaries on, or end them, and tell the waiting agents."""
    try:
        moved = canary_tick(now, tools=publishing, reader=reader)
    except ConflictError:
        return  # somebody published meanwhile; the next round sees it
    for signed in moved:
        log.info("canary_moved", scope=signed.scope, says=signed.change.message)
    if moved:
        published()
