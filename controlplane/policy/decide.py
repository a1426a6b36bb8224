"""What the rules of a document say of one request: pure, first match wins per action."""

from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

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

_R = TypeVar("_R", bound=Rule)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with the request; `refused_by` set means it must not be sent.

    `facts` are the request's own with the model it will have; `budgets` are those that match them.
    """

    facts: Mapping[str, str]
    refused_by: Deny | Throttle | None = None
    retry_after_seconds: int | None = None
    downgrade: Downgrade | None = None
    cap: Cap | None = None
    route: Route | None = None
    budgets: tuple[BudgetClause, ...] = ()

    @property
    def rules(self) -> tuple[str, ...]:
        """Ids of the rules that spoke."""
        spoke = (self.refused_by, self.downgrade, self.cap, self.route)
        return tuple(rule.id for rule in spoke if rule)


class ThrottleState:
    """Requests admitted in the current minute, per throttle rule, in this process."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}  # rule id → (minute, admitted)

    def admitted(self, rule_id: str, minute: int) -> int:
        """Return how many this minute has had."""
        seen, count = self._counts.get(rule_id, (minute, 0))
        return count if seen == minute else 0

    def count(self, rule_id: str, minute: int) -> None:
        """Count one more."""
        self._counts[rule_id] = (minute, self.admitted(rule_id, minute) + 1)


def decide(
    document: PolicyDocument,
    facts: Mapping[str, str],
    now: datetime,
    *,
    throttle: ThrottleState,
    used_ratio: Mapping[str, float],
) -> Decision:
    """Apply the document to a request.

    Rules are looked at by falling priority, then as written; of each action the first match
    counts, and any deny refuses. Every matching throttle must have room, and only a request that
    is not refused uses it up. Rules see the model that was asked for, budgets and routes the one
    that will be used. A budget applies beyond its window's end too: windows roll in the ledger,
    and a document that is late must not open the gate.

    Args:
        used_ratio: budget id → part of its limit already spent, for `Downgrade.above_ratio`.
    """
    ordered = sorted(document.rules, key=lambda rule: -rule.priority)
    spoken = [rule for rule in ordered if matches(rule.match, facts)]
    deny = _first(spoken, Deny)
    if deny:
        return Decision(facts=facts, refused_by=deny)
    throttles = [rule for rule in spoken if isinstance(rule, Throttle)]
    minute = int(now.timestamp()) // 60
    for rule in throttles:
        if throttle.admitted(rule.id, minute) >= rule.rpm:
            wait = 60 - int(now.timestamp()) % 60
            return Decision(facts=facts, refused_by=rule, retry_after_seconds=wait)
    for rule in throttles:
        throttle.count(rule.id, minute)
    downgrade = next(
        (r for r in spoken if isinstance(r, Downgrade) and _is_due(r, used_ratio)), None
    )
    after = {**facts, "model": downgrade.to} if downgrade else facts
    routed = [r for r in ordered if isinstance(r, Route) and matches(r.match, after)]
    return Decision(
        facts=after,
        downgrade=downgrade,
        cap=_first(spoken, Cap),
        route=routed[0] if routed else None,
        budgets=tuple(b for b in document.budgets if matches(b.match, after)),
    )


def _is_due(rule: Downgrade, used_ratio: Mapping[str, float]) -> bool:
    if rule.budget is None or rule.above_ratio is None:
        return True
    return used_ratio.get(rule.budget, 0.0) >= rule.above_ratio


def _first(rules: list[Rule], kind: type[_R]) -> _R | None:
    return next((rule for rule in rules if isinstance(rule, kind)), None)
