"""What a policy says of one request: pure but for the quota counters it is handed.

Of each action the matching rule of the highest priority decides; at equal priority the order of
the document does (compile refuses rules that could tie). A refusal beats every other action.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, TypeVar

import msgspec

from controlplane.policy.document import (
    BudgetClause,
    Cap,
    Deny,
    Downgrade,
    PolicyDocument,
    Route,
    Rule,
    Throttle,
)
from controlplane.policy.match import matches

MINUTE_SECONDS: Final = 60

_Action = TypeVar("_Action", Deny, Throttle, Route, Downgrade, Cap)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer; `refused_by` set means that nothing else matters."""

    refused_by: Deny | Throttle | None = None
    retry_after_seconds: int | None = None
    downgrade: Downgrade | None = None
    cap: Cap | None = None
    route: Route | None = None
    budgets: tuple[BudgetClause, ...] = ()
    """Every budget that the call counts against, after a downgrade."""
    rules: tuple[str, ...] = ()
    """Ids of the rules that had a say, in the order they were applied."""


class ThrottleState:
    """Requests admitted per rule in the current minute of the clock; one per process."""

    def __init__(self) -> None:
        self._minute = 0
        self._admitted: dict[str, int] = {}

    def admitted(self, rule_id: str, now: datetime) -> int:
        """Return how many requests the rule has let through in this minute."""
        return self._admitted.get(rule_id, 0) if self._minute == _minute(now) else 0

    def count(self, rule_id: str, now: datetime) -> None:
        """Count one request against the rule."""
        if self._minute != _minute(now):
            self._minute = _minute(now)
            self._admitted.clear()
        self._admitted[rule_id] = self._admitted.get(rule_id, 0) + 1


def _minute(now: datetime) -> int:
    return int(now.timestamp()) // MINUTE_SECONDS


def decide(
    document: PolicyDocument,
    facts: Mapping[str, str],
    now: datetime,
    *,
    throttle: ThrottleState,
    used_ratio: Mapping[str, float],
) -> Decision:
    """Apply the rules to a request; counts it against the throttle that let it through.

    A downgrade changes the fact `model`; deny, cap, route and budgets then see the new model, so
    that a downgrade is no way around a rule.

    Args:
        document: the policy in force.
        facts: selector key → value; absent is unknown and matches no selector.
        now: aware UTC.
        throttle: the process's quota counters.
        used_ratio: budget id → the part of its limit that is spent.
    """
    ordered = sorted(document.rules, key=lambda rule: -rule.priority)
    deny = _first(ordered, Deny, facts)
    downgrade = next(_downgrades(ordered, facts, used_ratio), None)
    if downgrade and deny is None:
        facts = {**facts, "model": downgrade.to}
        deny = _first(ordered, Deny, facts)
    if deny:
        return Decision(refused_by=deny, rules=(deny.id,))
    quota = _first(ordered, Throttle, facts)
    if quota and throttle.admitted(quota.id, now) >= quota.rpm:
        wait = MINUTE_SECONDS - int(now.timestamp()) % MINUTE_SECONDS
        return Decision(refused_by=quota, retry_after_seconds=wait, rules=(quota.id,))
    if quota:
        throttle.count(quota.id, now)
    cap, route = _first(ordered, Cap, facts), _first(ordered, Route, facts)
    applied = (quota, downgrade, cap, route)
    return Decision(
        downgrade=downgrade,
        cap=cap,
        route=route,
        budgets=tuple(budget for budget in document.budgets if matches(budget.match, facts)),
        rules=tuple(rule.id for rule in applied if rule),
    )


def _first(rules: list[Rule], action: type[_Action], facts: Mapping[str, str]) -> _Action | None:
    return next(_matching(rules, action, facts), None)


def _matching(
    rules: list[Rule], action: type[_Action], facts: Mapping[str, str]
) -> Iterator[_Action]:
    for rule in rules:
        if isinstance(rule, action) and matches(rule.match, facts):
            yield rule


def _downgrades(
    rules: list[Rule], facts: Mapping[str, str], used_ratio: Mapping[str, float]
) -> Iterator[Downgrade]:
    """Yield the downgrades in force: those tied to a budget only above their ratio of it."""
    for rule in _matching(rules, Downgrade, facts):
        if rule.to == facts.get("model"):
            continue
        if rule.budget is None or used_ratio.get(rule.budget, 0.0) > (rule.above_ratio or 0.0):
            yield rule
