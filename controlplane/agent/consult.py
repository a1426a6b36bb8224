"""Ask the policy about one request, and put its answer in an agent's words."""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from controlplane.agent.admit import Refusal
from controlplane.core.clock import Clock
from controlplane.policy.decide import Decision, decide
from controlplane.policy.document import BudgetClause, Deny, PolicyDocument, Throttle
from controlplane.policy.quota import ThrottleState, limits_of
from controlplane.policy.wire import Standing


class Consulted(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy says; `refusal` set means that the rest does not matter."""

    document: PolicyDocument
    refusal: Refusal | None = None
    model: str | None = None
    cap_tokens: int | None = None
    weights: Mapping[str, int] | None = None
    sticky: str | None = None
    budgets: tuple[BudgetClause, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def nothing(cls) -> "Consulted":
        """No policy, and the operator chose to let calls through without one."""
        return cls(document=PolicyDocument(issued_at=datetime.min.replace(tzinfo=UTC)))


class Desk:
    """The policy's answers in this process: quota counters and what was refused, by code."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._throttle = ThrottleState()
        self.refusals: dict[str, int] = {}

    def consult(
        self,
        document: PolicyDocument,
        facts: Mapping[str, str],
        *,
        standings: Mapping[str, Standing],
    ) -> Consulted:
        """Decide on one request; counts it against its quotas unless it is refused."""
        used = {standing.budget_id: used_ratio(standing) for standing in standings.values()}
        decision = decide(
            document, facts, self._clock.now(), throttle=self._throttle, used_ratio=used
        )
        route = decision.route
        return Consulted(
            document=document,
            refusal=_refusal(decision),
            model=decision.model,
            cap_tokens=decision.cap.max_tokens if decision.cap else None,
            weights=decision.weights,
            sticky=facts.get(route.sticky) if route and route.sticky else None,
            budgets=decision.budgets,
            notes=decision.rules,
        )


def used_ratio(standing: Standing) -> float:
    """Return the part of the limit that is spent, promised leases not counted."""
    spent = (
        standing.settled_enforced_nusd
        + standing.settled_unproven_nusd
        + standing.observed_unenforced_nusd
    )
    return spent / standing.limit_nusd if standing.limit_nusd else 1.0


def _refusal(decision: Decision) -> Refusal | None:
    rule = decision.refused_by
    if isinstance(rule, Deny):
        reason = rule.reason or f"denied by rule {rule.id}"
        return Refusal(code="policy_denied", reason=reason, status=rule.status, rule=rule.id)
    if isinstance(rule, Throttle):
        return Refusal(
            code="rate_limited",
            reason=f"rule {rule.id} allows {limits_of(rule)}",
            rule=rule.id,
            retry_after_seconds=decision.retry_after_seconds,
        )
    return None
