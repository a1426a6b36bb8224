"""How fast a key or a user may spend, and the quotas that begin when one spends faster.

A limit is authored and stays on the server: agents are told of the quotas, as deny and throttle
rules that every agent understands. A quota is not of the rules: going back to older rules, or
rolling new ones out, neither ends it nor brings it back.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, Protocol

import msgspec

from controlplane.core.errors import PolicyError
from controlplane.core.money import format_usd, parse_usd
from controlplane.policy.document import SELECTOR_KEYS, Closed, Deny, Rule, Throttle
from controlplane.policy.match import WILDCARD, check_selectors, matches, overlap

AUTOMATIC: Final = "velocity."
"""What the ids of automatic rules begin with; no authored rule's does."""
MAX_LIMITS: Final = 20
"""Of a scope: each is a question to the span store every few seconds."""
MAX_QUOTAS: Final = 200
"""In force in a scope at once: every agent looks through them for every request."""
TENANT: Final = "tenant"
MATCH_KEYS: Final = tuple(key for key in SELECTOR_KEYS if key != "model")
"""What a limit may select calls by; a call's model is not always the one that was asked for."""
MONEY: Final = r"^\d{1,9}(\.\d{1,9})?$"

Whole = Annotated[int, msgspec.Meta(ge=1)]
Subject = tuple[str, str]
"""A tenant, and a value of the limit's `per` within it."""


class VelocityLimit(Closed, frozen=True, kw_only=True):
    """More than `limit_usd` within the window, by one key or user: a quota begins."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    per: Literal["user_id", "api_key"]
    limit_usd: Annotated[str, msgspec.Meta(pattern=MONEY)]
    window_seconds: Annotated[int, msgspec.Meta(ge=60, le=3_600)] = 600
    hold_seconds: Annotated[int, msgspec.Meta(ge=120, le=86_400)] = 900
    """How long a quota stays after its subject was last above the limit."""
    match: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Whose calls it is about; the quota is of the same."""
    rpm: Whole | None = None
    rps: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    burst: Whole | None = None
    tpm: Whole | None = None
    concurrency: Whole | None = None
    """What is let through meanwhile, as of a throttle; without any, nothing is."""

    @property
    def limit_nusd(self) -> int:
        """The limit in nano-USD."""
        return parse_usd(self.limit_usd, field="limit_usd")

    @property
    def window(self) -> timedelta:
        """How far back is looked."""
        return timedelta(seconds=self.window_seconds)

    @property
    def is_throttle(self) -> bool:
        """Whether something is let through."""
        return any(x is not None for x in (self.rpm, self.rps, self.tpm, self.concurrency))


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What began by itself for one key or user of a tenant, and when it ends by itself."""

    id: str
    """Of the rule that agents are told."""
    scope: str
    limit_id: str
    per: str
    tenant: str
    value: str
    name: str
    """What is said of it where user ids are not: the key's alias, or a keyed hash."""
    spent_nusd: int
    """Within the window, when it was last above the limit."""
    limit_nusd: int
    window_seconds: int
    since: datetime
    until: datetime
    forgiven_until: datetime | None = None
    """A person ended it: what was spent before is not held against its subject."""

    def is_active(self, now: datetime) -> bool:
        """Whether it is in force; half-open."""
        return now < self.until

    def is_over(self, now: datetime) -> bool:
        """Whether nothing of it matters any more."""
        return not self.is_active(now) and not self.is_forgiven(now)

    def is_forgiven(self, now: datetime) -> bool:
        """Whether its subject can not get another yet."""
        return self.forgiven_until is not None and now < self.forgiven_until


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one look changes."""

    kept: tuple[Quota, ...]
    """All that are kept from now on."""
    begun: tuple[Quota, ...] = ()
    ended: tuple[Quota, ...] = ()
    left_out: int = 0
    """Subjects above a limit for whom there was no quota left."""


class QuotaStore(Protocol):
    """Where quotas are kept."""

    def quotas(self, scope: str) -> Sequence[Quota]:
        """Return the quotas of a scope, by id; those too that ended and are not removed yet."""
        ...

    def change(self, scope: str, fold: Callable[[Sequence[Quota]], Turn]) -> Turn:
        """Replace the quotas of a scope by what `fold` keeps of them; nobody changes them meanwhile.

        What `fold` raises is raised, and nothing is changed.
        """
        ...


class NoQuotas:
    """Implements `QuotaStore` where nothing is guarded."""

    def quotas(self, scope: str) -> Sequence[Quota]:
        """Return none."""
        del scope
        return ()

    def change(self, scope: str, fold: Callable[[Sequence[Quota]], Turn]) -> Turn:
        """Keep nothing."""
        del scope
        return msgspec.structs.replace(fold(()), kept=(), begun=())


class Excess(msgspec.Struct, frozen=True):
    """A subject above a limit."""

    limit: VelocityLimit
    subject: Subject
    spent_nusd: int


def turn(
    before: Iterable[Quota],
    above: Iterable[Excess],
    *,
    scope: str,
    names: Mapping[Subject, str],
    now: datetime,
) -> Turn:
    """Begin, prolong and end the quotas of a scope; pure.

    A quota lasts until its subject was within the limit for `hold_seconds`: one that comes and
    goes at the limit is told once. Those in force go before new ones, the dearest of these first.

    Args:
        before: as kept.
        above: who spends too fast now.
        scope: whose.
        names: subject → a keyed hash of it; who is not there can not be told apart by an agent.
        now: aware UTC.
    """
    kept = {quota.id: quota for quota in before if not quota.is_over(now)}
    ended = tuple(quota for quota in before if quota.id not in kept)
    active = {name for name, quota in kept.items() if quota.is_active(now)}
    begun: dict[str, Quota] = {}
    left_out: set[Subject] = set()
    for excess in sorted(above, key=lambda one: (-one.spent_nusd, one.subject, one.limit.id)):
        name = names.get(excess.subject)
        if name is None:
            left_out.add(excess.subject)
            continue
        quota = _quota(excess, scope=scope, subject=name, now=now)
        known = kept.get(quota.id)
        if known is not None and known.is_active(now):
            until = max(known.until, quota.until)
            kept[quota.id] = msgspec.structs.replace(quota, since=known.since, until=until)
        elif known is None:
            if len(active) >= MAX_QUOTAS:
                left_out.add(excess.subject)
                continue
            active.add(quota.id)
            kept[quota.id] = begun[quota.id] = quota
    return Turn(
        kept=tuple(kept[name] for name in sorted(kept)),
        begun=tuple(begun.values()),
        ended=tuple(quota for quota in ended if quota.forgiven_until is None),
        left_out=len(left_out),
    )


def can_be_selected(value: str) -> bool:
    """Whether a selector means this value alone: one that ends in `*` would mean others too."""
    return bool(value) and not value.endswith(WILDCARD)


def forgiven(quota: Quota, now: datetime) -> Quota:
    """End a quota by hand; for the length of its window its subject gets no other."""
    window = timedelta(seconds=quota.window_seconds)
    return msgspec.structs.replace(quota, until=min(now, quota.until), forgiven_until=now + window)


def quota_rules(
    limits: Sequence[VelocityLimit],
    quotas: Iterable[Quota],
    authored: Sequence[Rule],
    *,
    tenant: str,
    maps_tenant: bool,
    now: datetime,
) -> tuple[Rule, ...]:
    """Return the rules that the quotas in force are for agents, by id.

    Of throttles the highest priority decides alone, so that of a quota is as strict as every
    authored one that its subject may meet.

    Args:
        limits: of the scope; quotas of others are not in force here.
        quotas: of the scope.
        authored: the rules that agents are told beside them.
        tenant: whose the requests are that name none.
        maps_tenant: whether agents read the tenant from a request.
        now: aware UTC.
    """
    by_id = {limit.id: limit for limit in limits}
    throttles = [rule for rule in authored if isinstance(rule, Throttle)]
    priority = 1 + max((rule.priority for rule in authored), default=0)
    found: list[Rule] = []
    for quota in sorted(quotas, key=lambda one: one.id):
        limit = by_id.get(quota.limit_id)
        is_here = maps_tenant or quota.tenant == tenant
        if limit is None or limit.per != quota.per or not (is_here and quota.is_active(now)):
            continue
        match = {quota.per: (quota.value,), **_beside(limit, quota.per)}
        if maps_tenant:
            match[TENANT] = (quota.tenant,)
        reason = _reason(limit)
        if not limit.is_throttle:
            found.append(Deny(id=quota.id, priority=priority, match=match, reason=reason))
            continue
        own = Throttle(
            id=quota.id,
            priority=priority,
            match=match,
            rpm=limit.rpm,
            rps=limit.rps,
            burst=limit.burst,
            tpm=limit.tpm,
            concurrency=limit.concurrency,
        )
        found.append(_strictest(own, [one for one in throttles if overlap(one.match, match)]))
    return tuple(found)


def check_limits(
    limits: Sequence[VelocityLimit], authored: Sequence[Rule], known: Collection[str]
) -> None:
    """Pass limits that agents can keep; `known` are the facts that they read from a request.

    Raises:
        PolicyError: names the limit's field, or a rule whose id is an automatic rule's.
    """
    if len(limits) > MAX_LIMITS:
        raise PolicyError("velocity", f"has {len(limits)} limits", f"At most {MAX_LIMITS}")
    seen: set[str] = set()
    for limit in limits:
        field = f"velocity.{limit.id}"
        if limit.id in seen:
            raise PolicyError(field, "is there twice", "Give each its own id")
        seen.add(limit.id)
        _check_limit(limit, field, known)
    for rule in authored:
        if rule.id.startswith(AUTOMATIC):
            raise PolicyError(
                f"rules.{rule.id}", f"begins with {AUTOMATIC!r}, as automatic rules do", "Rename it"
            )


def _check_limit(limit: VelocityLimit, field: str, known: Collection[str]) -> None:
    if limit.limit_nusd <= 0:
        raise PolicyError(f"{field}.limit_usd", "is no limit", "Write more than 0")
    if limit.burst is not None and limit.rps is None:
        raise PolicyError(f"{field}.burst", "needs rps", "Set rps, or leave burst out")
    check_selectors(limit.match, field=f"{field}.match", known=MATCH_KEYS)
    for key in (limit.per, *sorted(limit.match)):
        if key not in known:
            place = "per" if key == limit.per else f"match.{key}"
            raise PolicyError(
                f"{field}.{place}",
                f"{key} can not be read from a request",
                f"Map {key} in dimension_map",
            )


def selects(limit: VelocityLimit, facts: Mapping[str, str]) -> bool:
    """Whether a limit is about calls of these facts."""
    return matches(limit.match, facts)


def _quota(excess: Excess, *, scope: str, subject: str, now: datetime) -> Quota:
    limit, (tenant, value) = excess.limit, excess.subject
    return Quota(
        id=f"{AUTOMATIC}{limit.id}.{subject}",
        scope=scope,
        limit_id=limit.id,
        per=limit.per,
        tenant=tenant,
        value=value,
        name=value if limit.per == "api_key" else f"user_{subject}",
        spent_nusd=excess.spent_nusd,
        limit_nusd=limit.limit_nusd,
        window_seconds=limit.window_seconds,
        since=now,
        until=now + timedelta(seconds=limit.hold_seconds),
    )


def _beside(limit: VelocityLimit, per: str) -> dict[str, tuple[str, ...]]:
    return {key: values for key, values in limit.match.items() if key != per}


def _reason(limit: VelocityLimit) -> str:
    what = "key" if limit.per == "api_key" else "user"
    return (
        f"this {what} spent more than ${format_usd(limit.limit_nusd)} within "
        f"{limit.window_seconds} s (limit {limit.id!r}); it may call again once it was below that "
        f"for {limit.hold_seconds} s"
    )


def _strictest(own: Throttle, others: Sequence[Throttle]) -> Throttle:
    """Return a throttle with the lowest of each limit."""
    every = (own, *others)
    return msgspec.structs.replace(
        own,
        rpm=min((one.rpm for one in every if one.rpm is not None), default=None),
        rps=min((one.rps for one in every if one.rps is not None), default=None),
        burst=min((_burst(one.rps, one.burst) for one in every if one.rps), default=None),
        tpm=min((one.tpm for one in every if one.tpm is not None), default=None),
        concurrency=min(
            (one.concurrency for one in every if one.concurrency is not None), default=None
        ),
    )


def _burst(rps: float, burst: int | None) -> int:
    """Return what a rate lets through at once, as `quota.ThrottleState` has it."""
    return burst or max(1, math.ceil(rps))
