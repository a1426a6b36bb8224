"""Who spends too fast → quotas that begin, go on and end by themselves → published."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from controlplane.core.calendar import Window
from controlplane.core.errors import ConflictError, NotFoundError
from controlplane.pipelines.publish import PublishTools, publish, rules_in_use
from controlplane.policy.history import Cause, Change, SignedGeneration
from controlplane.policy.rules import PolicyRules
from controlplane.policy.velocity import (
    TENANT,
    Excess,
    Quota,
    Subject,
    Turn,
    VelocityLimit,
    can_be_selected,
    forgiven,
    selects,
    turn,
)
from controlplane.signals.ports import SpanReader

AHEAD: Final = timedelta(minutes=5)
"""Emitters whose clocks run ahead are heard too."""
AUTHOR: Final = "velocity guard"
MAX_NAMED: Final = 5
"""Quotas that a generation's message names; of more it says how many."""
ATTEMPTS: Final = 3
DIMENSION_OF: Final = {"user_id": "user"}
"""Selector → the dimension of calls, where they are not called alike."""

NameOf = Callable[[Subject], str]
"""A keyed hash of a subject: who holds no key can not tell whom it names."""


class Guarded(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at one scope did."""

    scope: str
    begun: tuple[Quota, ...]
    ended: tuple[Quota, ...]
    left_out: int
    published: SignedGeneration | None = None


def velocity_tick(
    now: datetime, *, tools: PublishTools, reader: SpanReader, name_of: NameOf
) -> list[Guarded]:
    """Look at every scope that has limits, or quotas still; agents are told of what changed.

    Calls count when they have ended and were settled. Safe with several workers: a quota has one
    id, and a generation is kept once.

    Raises:
        ConflictError: others kept publishing meanwhile; the quotas are kept, and are published
            with the next generation, within a minute.
        UnavailableError: try again.
    """
    looked = []
    for scope in tools.policies.scopes():
        lines = rules_in_use(scope, tools.policies)
        has_quotas = bool(tools.quotas.quotas(scope))
        if not has_quotas and not any(rules.velocity for rules in lines):
            continue
        above = [excess for rules in lines for excess in _above(rules, now, reader)]
        done, signed = Turn(kept=()), None
        if above or has_quotas:
            done = tools.quotas.change(scope, _turning(above, scope, name_of, now=now))
        if done.begun or done.ended:
            signed = _publish(scope, now, tools=tools, message=_message(done))
        looked.append(
            Guarded(
                scope=scope,
                begun=done.begun,
                ended=done.ended,
                left_out=done.left_out,
                published=signed,
            )
        )
    return looked


def lift(
    scope: str, quota_id: str, now: datetime, *, tools: PublishTools, change: Change
) -> SignedGeneration:
    """End a quota by hand; its subject gets no other for the length of its window.

    Raises:
        NotFoundError: none of that id is in force.
        ConflictError: others kept publishing meanwhile; it is ended with the next generation.
    """

    def end(before: Sequence[Quota]) -> Turn:
        found = next((one for one in before if one.id == quota_id and one.is_active(now)), None)
        if found is None:
            raise NotFoundError("quota", quota_id)
        others = tuple(one for one in before if one.id != quota_id)
        return Turn(kept=(*others, forgiven(found, now)), ended=(found,))

    tools.quotas.change(scope, end)
    told = msgspec.structs.replace(
        change, cause=Cause.VELOCITY, message=f"{quota_id} ended by {change.author}"
    )
    return _publish_as(scope, now, tools=tools, change=told)


def _above(rules: PolicyRules, now: datetime, reader: SpanReader) -> list[Excess]:
    found = []
    for limit in rules.velocity:
        spent = _spent(limit, rules, now=now, reader=reader)
        found += [
            Excess(limit, subject, nusd)
            for subject, nusd in spent.items()
            if nusd > limit.limit_nusd
        ]
    return found


def _spent(
    limit: VelocityLimit, rules: PolicyRules, *, now: datetime, reader: SpanReader
) -> Mapping[Subject, int]:
    """Return what each subject of a limit spent on calls that ended within its window."""
    tenants = reader.tenants() if TENANT in rules.dimension_map else (rules.tenant,)
    keys = tuple(dict.fromkeys((TENANT, limit.per, *limit.match)))
    columns = tuple(DIMENSION_OF.get(key, key) for key in keys)
    table = reader.ended_costs(tenants, Window(now - limit.window, now + AHEAD), columns)
    spent: dict[Subject, int] = {}
    for row in table.to_pylist():
        facts = {
            key: row[column]
            for key, column in zip(keys, columns, strict=True)
            if row[column] is not None
        }
        if limit.per in facts and selects(limit, facts):
            subject = facts[TENANT], facts[limit.per]
            spent[subject] = spent.get(subject, 0) + row["cost_nusd"]
    return spent


def _turning(
    above: Sequence[Excess], scope: str, name_of: NameOf, *, now: datetime
) -> Callable[[Sequence[Quota]], Turn]:
    names: dict[Subject, str] = {
        one.subject: name_of(one.subject) for one in above if can_be_selected(one.subject[1])
    }
    return lambda before: turn(before, above, scope=scope, names=names, now=now)


def _publish(scope: str, now: datetime, *, tools: PublishTools, message: str) -> SignedGeneration:
    change = Change(author=AUTHOR, message=message, cause=Cause.VELOCITY)
    return _publish_as(scope, now, tools=tools, change=change)


def _publish_as(
    scope: str, now: datetime, *, tools: PublishTools, change: Change
) -> SignedGeneration:
    for _ in range(ATTEMPTS - 1):
        try:
            return publish(scope, now, tools=tools, change=change)
        except ConflictError:
            continue  # somebody else did at the same moment; the next one sees their state
    return publish(scope, now, tools=tools, change=change)


def _message(done: Turn) -> str:
    """Say what changed by the ids alone: a scope's history is not one tenant's to read."""
    parts = [f"{quota.id} began" for quota in done.begun]
    parts += [f"{quota.id} ended" for quota in done.ended]
    more = [f"and {len(parts) - MAX_NAMED} more"] if len(parts) > MAX_NAMED else []
    return "; ".join([*parts[:MAX_NAMED], *more])
