"""Canaries of every scope: their calls so far → the next share → published, or ended."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from controlplane.core.calendar import Window
from controlplane.pipelines.publish import PublishTools, publish
from controlplane.policy.canary import NextShare, SideNow, next_share
from controlplane.policy.document import Canary
from controlplane.policy.history import Cause, Change, PolicyStore, SignedGeneration
from controlplane.policy.match import value_matches
from controlplane.policy.rollout import RolloutState
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CostQuery
from controlplane.usage.dimensions import CALLS_ONLY, CUBE_DIMENSIONS

HISTORY: Final = 500
MODEL: Final = "model"
WILDCARD: Final = "*"
_DIMENSIONS: Final = frozenset(dimension.name for dimension in CUBE_DIMENSIONS)


def canary_tick(
    now: datetime, *, tools: PublishTools, reader: SpanReader
) -> list[SignedGeneration]:
    """Look at every canary under way; returns what was published.

    A scope whose rules are being rolled out is left alone: one change at a time.

    Raises:
        ConflictError: somebody published meanwhile.
        UnavailableError: try again.
    """
    published = []
    for scope in tools.policies.scopes():
        rollout = tools.policies.rollout(scope)
        if rollout is not None and rollout.state is RolloutState.ROLLING:
            continue
        rules = tools.policies.rules(scope)
        moves: dict[str, NextShare] = {}
        for rule in rules.rules:
            if isinstance(rule, Canary) and not rule.shadow:
                move = _look(rule, scope, now, policies=tools.policies, reader=reader)
                if move is not None:
                    moves[rule.id] = move
        if not moves:
            continue
        moved = msgspec.structs.replace(
            rules,
            rules=tuple(
                msgspec.structs.replace(rule, share_percent=moves[rule.id].percent)
                if isinstance(rule, Canary) and rule.id in moves
                else rule
                for rule in rules.rules
            ),
        )
        message = "; ".join(f"{name}: {move.reason}" for name, move in moves.items())
        change = Change(author="canary", message=message, cause=Cause.CANARY)
        published.append(publish(scope, now, tools=tools, rules=moved, change=change, at_once=True))
    return published


def _look(
    rule: Canary, scope: str, now: datetime, *, policies: PolicyStore, reader: SpanReader
) -> NextShare | None:
    if not 0 < (rule.share_percent or 0) < 100:  # noqa: PLR2004 - percent
        return None
    since = _since(rule, scope, policies)
    if since is None or since >= now:
        return None
    sides = _sides(rule, Window(since, now), reader)
    canary = sides.pop(rule.to, SideNow())
    patterns = rule.match.get(MODEL, (WILDCARD,))
    replaced = [
        side
        for model, side in sides.items()
        if any(value_matches(pattern, model) for pattern in patterns)
    ]
    return next_share(rule, canary, _together(replaced), since=since, now=now)


def _since(rule: Canary, scope: str, policies: PolicyStore) -> datetime | None:
    """Return when the rule's share became what it is."""
    since = None
    for each in policies.history(scope, limit=HISTORY):
        known = each.rules.rules if each.rules else ()
        if rule not in known:
            break
        since = each.issued_at
    return since


def _sides(rule: Canary, window: Window, reader: SpanReader) -> dict[str, SideNow]:
    """Return what each model did; selectors that a cost can be filtered by narrow it."""
    filters: dict[str, tuple[str | None, ...]] = {
        key: tuple(values)
        for key, values in rule.match.items()
        if key != MODEL
        and key in _DIMENSIONS
        and not any(value.endswith(WILDCARD) for value in values)
    }
    query = CostQuery(
        tenants=reader.tenants(),
        window=window,
        group_by=(MODEL,),
        filters={**filters, **CALLS_ONLY},
    )
    sides = {
        row[MODEL] or "": SideNow(
            calls=row["calls"],
            errors=row["errors"],
            cost_nusd=row["cost_nusd"],
            priced_calls=row["calls"] - row["unpriced_calls"],
        )
        for row in reader.costs(query).to_pylist()
    }
    for row in reader.latencies(query).to_pylist():
        side = sides.get(row[MODEL] or "")
        if side is not None:
            sides[row[MODEL] or ""] = msgspec.structs.replace(
                side,
                duration_us=side.duration_us + row["duration_us"],
                timed_calls=side.timed_calls + row["calls"],
            )
    return sides


def _together(sides: list[SideNow]) -> SideNow:
    def total(name: str) -> int:
        return sum(int(getattr(side, name)) for side in sides)

    sums: Mapping[str, int] = {name: total(name) for name in SideNow.__struct_fields__}
    return msgspec.convert(sums, SideNow)
