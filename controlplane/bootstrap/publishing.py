"""What the hub publishes and settles with: ceiling rates, prices of settles, new keys."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import structlog

from controlplane import telemetry
from controlplane.api.services import KeyOrder
from controlplane.auth.api_key import KeyText
from controlplane.bootstrap.metadata import make_key
from controlplane.core.errors import ConflictError
from controlplane.ingest.subjects import Subject, subject_hash
from controlplane.pipelines.canaries import canary_tick
from controlplane.pipelines.publish import PublishTools, RateCard
from controlplane.pipelines.rollout import rollout_tick
from controlplane.pipelines.velocity import NameOf, velocity_tick
from controlplane.policy.rollout import RolloutState
from controlplane.policy.wire import Settle
from controlplane.pricing.ceiling import ceiling_rates, provider_ceilings
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.quote import quote
from controlplane.signals.ports import SpanReader
from controlplane.store.metadata.keys import KeyRepository, NewKey

log = structlog.stdlib.get_logger()
SUBJECT_DIGITS = 16
MAX_CALL = timedelta(minutes=15)
"""A ceiling covers every price that can start to apply while a call runs."""


class RateCards:
    """Ceiling rates keyed `provider/model` and, for the maker's own models, by the bare name."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book
        self._at_hour = lru_cache(maxsize=2)(self._compile)

    def __call__(self, now: datetime) -> RateCard:
        """Return the card that holds for the hour of `now` and as long as a call may run after."""
        hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return self._at_hour(hour, self._book.version)

    def _compile(self, hour: datetime, version: str) -> RateCard:
        names = self._book.names()
        horizon = timedelta(hours=1) + MAX_CALL
        rates = ceiling_rates(self._book, names, at=hour, horizon=horizon)
        ceilings = provider_ceilings(rates)
        for provider, model in names:
            own = rates.get(f"{provider}/{model}")
            if own is not None and self._book.is_makers(provider, model):
                rates.setdefault(model, own)
        return RateCard(rates, version, ceilings)


def price_settle(book: PriceBook, settle: Settle) -> int | None:
    """Return nano-USD of what a settle used, at its own start; None when no price is known."""
    answer = quote(
        book,
        provider=settle.provider or None,
        model=settle.model,
        at=settle.started_at,
        usage=settle.usage or {},
    )
    return answer.total_nusd


class KeyMaker:
    """Makes the keys that are asked for over HTTP."""

    def __init__(self, keys: KeyRepository) -> None:
        self._keys = keys

    def __call__(self, order: KeyOrder, _now: datetime) -> KeyText:
        """Draw an id and a secret, and keep the key."""
        wanted = NewKey(
            kind=order.kind,
            role=order.role,
            name=order.name,
            tenant=order.tenant,
            all_tenants=order.all_tenants,
            tenant_map=order.tenant_map,
            dimensions=order.dimensions,
            policy_scopes=order.policy_scopes,
            expires_at=order.expires_at,
        )
        return make_key(self._keys, wanted)


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
