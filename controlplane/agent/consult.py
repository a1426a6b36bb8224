"""Ask the policy about one request, and put its answer in an agent's words."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import msgspec

from controlplane.agent.admit import count_unattributed
from controlplane.agent.health import Deployments
from controlplane.agent.lease import Instant
from controlplane.agent.log import say
from controlplane.agent.refusal import Refusal
from controlplane.agent.slots import Slot, Slots, trial_of
from controlplane.agent.ticket import Request
from controlplane.core.clock import Clock
from controlplane.policy.decide import Decision, decide, holds
from controlplane.policy.document import (
    BudgetClause,
    Canary,
    Deny,
    PolicyDocument,
    RatePerMillion,
    Throttle,
)
from controlplane.policy.match import matches
from controlplane.policy.quota import ThrottleState, limits_of
from controlplane.policy.wire import Standing


class Consulted(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy says; `refusal` set means that the rest does not matter."""

    document: PolicyDocument
    decision: Decision = Decision()
    refusal: Refusal | None = None
    sticky: str | None = None
    trial: Canary | None = None

    @property
    def budgets(self) -> tuple[BudgetClause, ...]:
        """Every budget that the call counts against."""
        return self.decision.budgets

    @property
    def cap_tokens(self) -> int | None:
        """The most output that the policy lets a choice have."""
        return self.decision.cap.max_tokens if self.decision.cap else None

    @property
    def cap_choices(self) -> int | None:
        """The most choices that the policy lets a request have."""
        return self.decision.cap.n if self.decision.cap else None

    @property
    def stripped(self) -> tuple[str, ...]:
        """The features that are taken out of the request."""
        return self.decision.strip.features if self.decision.strip else ()

    @classmethod
    def nothing(cls) -> "Consulted":
        """No policy, and the operator chose to let calls through without one."""
        return cls(document=PolicyDocument(issued_at=datetime.min.replace(tzinfo=UTC)))


class Desk:
    """The policy's answers in this process: quotas, canaries, deployments, refusals by code."""

    def __init__(self, clock: Clock, *, max_call_seconds: float) -> None:
        self._clock = clock
        self._max_call_seconds = max_call_seconds
        self._throttle = ThrottleState()
        self.slots = Slots(self._throttle)
        self.deployments = Deployments()
        self.refusals: dict[str, int] = {}
        self.demoted: set[tuple[str, str, str]] = set()
        """Operation, provider and model of calls that used more than their bound (L3)."""

    def overran(self, operation: str, provider: str, model: str) -> None:
        """A bound did not hold: such calls have none from now on, until this process ends."""
        self.demoted.add((operation, provider, model))
        say("bound_exceeded", operation=operation, provider=provider, model=model)

    def consult(
        self, document: PolicyDocument, request: Request, *, standings: Mapping[str, Standing]
    ) -> Consulted:
        """Decide on one request; counts it against its quotas unless it is refused."""
        self.slots.expire(Instant.of(self._clock), self._max_call_seconds)
        (document, index), facts = self.slots.governed(document), request.facts
        decision = decide(
            document,
            facts,
            self._clock.now(),
            throttle=self._throttle,
            used_ratio=_Used(standings),
            shape=msgspec.structs.replace(request.bound.shape, unit=request.request_id),
            health=self.deployments.health(document, self._clock.monotonic()),
            index=index,
        )
        refusal = _refusal(decision)
        unattributed = count_unattributed(document, facts) if refusal is None else ()
        if isinstance(unattributed, Refusal):
            refusal = unattributed
        elif unattributed:
            budgets = (*decision.budgets, *unattributed)
            decision = msgspec.structs.replace(decision, budgets=budgets)
        route = decision.route
        return Consulted(
            document=document,
            decision=decision,
            refusal=refusal,
            sticky=facts.get(route.sticky) if route and route.sticky else None,
            trial=trial_of(decision, document, facts),
        )

    def consult_again(
        self, document: PolicyDocument, request: Request, *, standings: Mapping[str, Standing]
    ) -> Consulted:
        """Decide on a later attempt at another model; no quota is used, no trial begun."""
        (document, index), facts = self.slots.governed(document), request.facts
        decision = decide(
            document,
            facts,
            self._clock.now(),
            throttle=None,
            used_ratio=_Used(standings),
            shape=request.bound.shape,
            health=self.deployments.health(document, self._clock.monotonic()),
            index=index,
        )
        route = decision.route
        return Consulted(
            document=document,
            decision=decision,
            refusal=_refusal(decision),
            sticky=facts.get(route.sticky) if route and route.sticky else None,
        )

    def denied(self, document: PolicyDocument, request: Request) -> Refusal | None:
        """Say which rule closes a model that a later attempt would call; None: none does."""
        _, index = self.slots.governed(document)
        for rule in index.of(Deny):
            if matches(rule.match, request.facts) and holds(rule.when, request.bound.shape):
                return _refusal(Decision(refused_by=rule))
        return None

    def take_back(self, consulted: Consulted, request: Request) -> None:
        """Uncount a request that was refused after its quota had let it through."""
        quota = consulted.decision.throttle
        if quota:
            self._throttle.untake(quota, self._clock.now(), tokens=request.bound.shape.tokens)

    def slot_for(
        self, consulted: Consulted, request: Request, rate: RatePerMillion | None
    ) -> Slot | None:
        """Return what the request counts against; None when nothing waits for its end."""
        quota, trial = consulted.decision.throttle, consulted.trial
        if quota is None and trial is None:
            return None
        return Slot(
            started=Instant.of(self._clock),
            throttle=quota,
            tokens=request.bound.shape.tokens,
            trial=trial,
            is_canary=consulted.decision.canary is not None,
            rate=rate,
        )


class _Used(Mapping[str, float]):
    """Budget id → used ratio, computed for the few budgets that a downgrade asks about."""

    def __init__(self, standings: Mapping[str, Standing]) -> None:
        self._standings = standings

    def __getitem__(self, budget_id: str) -> float:
        return used_ratio(self._standings[budget_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._standings)

    def __len__(self) -> int:
        return len(self._standings)


def used_ratio(standing: Standing) -> float:
    """Return the part of the limit that is spent, promised leases not counted."""
    spent = (
        standing.settled_enforced_nusd
        + standing.settled_unproven_nusd
        + standing.observed_unenforced_nusd
        + standing.restated_nusd
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
