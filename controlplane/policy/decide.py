"""What a policy says of one request: pure but for the quota counters it is handed.

Of each action the matching rule of the highest priority decides; at equal priority the order of
the document does (compile refuses rules that could tie). Annotations add up. A refusal beats every
other action.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TypeVar

import msgspec

from controlplane.policy.assign import assign, share_hits
from controlplane.policy.document import (
    Annotate,
    BudgetClause,
    Canary,
    Cap,
    Deny,
    Downgrade,
    Experiment,
    Failover,
    PolicyDocument,
    Route,
    Rule,
    Slo,
    Strip,
    Throttle,
    When,
)
from controlplane.policy.match import matches
from controlplane.policy.quota import ThrottleState

_Action = TypeVar(
    "_Action", Deny, Throttle, Route, Downgrade, Cap, Strip, Failover, Canary, Annotate, Experiment
)


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a request beyond its facts; None is unknown."""

    unit: str = ""
    """What falls to a share where the rule's sticky fact is unknown: the request's own id."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    """Its output limit, all choices together."""
    tools: bool | None = None
    stream: bool | None = None

    @property
    def tokens(self) -> int:
        """What a quota of tokens counts when it is admitted."""
        return (self.input_tokens or 0) + (self.output_tokens or 0)


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment did of late, as its agent saw it."""

    calls: int
    error_ratio: float
    latency_p95_ms: float


UNSHAPED = Shape()


class RuleIndex:
    """The rules of a document by action, the highest priority first; worked out once."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._by_action: dict[type, list[Rule]] = {}
        for rule in sorted(rules, key=lambda rule: -rule.priority):
            self._by_action.setdefault(type(rule), []).append(rule)

    def of(self, action: type[_Action]) -> Iterator[_Action]:
        """Yield the rules of an action."""
        for rule in self._by_action.get(action, ()):
            if isinstance(rule, action):
                yield rule


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer; `refused_by` set means that nothing else matters."""

    refused_by: Deny | Throttle | None = None
    retry_after_seconds: int | None = None
    throttle: Throttle | None = None
    """The quota that the request was counted against; `release` it when the call has ended."""
    downgrade: Downgrade | None = None
    experiment: Experiment | None = None
    arm: str | None = None
    canary: Canary | None = None
    """Set when the request is of the canary's share."""
    model: str | None = None
    """The model to call instead of the one that was asked for."""
    cap: Cap | None = None
    strip: Strip | None = None
    route: Route | None = None
    weights: Mapping[str, int] | None = None
    """The route's, without the deployments that are outside its objectives."""
    failover: Failover | None = None
    headers: Mapping[str, str] = {}
    attributes: Mapping[str, str] = {}
    budgets: tuple[BudgetClause, ...] = ()
    """Every budget that the call counts against, after its model was replaced."""
    rules: tuple[str, ...] = ()
    """Ids of the rules that had a say, in the order they were applied."""


def decide(  # noqa: PLR0913 - a request, the policy, and all the state it may depend on
    document: PolicyDocument,
    facts: Mapping[str, str],
    now: datetime,
    *,
    throttle: ThrottleState | None,
    used_ratio: Mapping[str, float],
    shape: Shape = UNSHAPED,
    health: Mapping[str, Health] | None = None,
    index: RuleIndex | None = None,
) -> Decision:
    """Apply the rules to a request; counts it against the throttle that let it through.

    A downgrade, an experiment and a canary change the fact `model`; deny, cap, route and budgets
    then see the new model, so that none of them is a way around a rule.

    Args:
        document: the policy in force.
        facts: selector key → value; absent is unknown and matches no selector.
        now: aware UTC.
        throttle: the process's quota counters; None for a later attempt at another model, which
            uses no quota and begins no trial.
        used_ratio: budget id → the part of its limit that is spent.
        shape: what else is known of the request.
        health: deployment → what it did of late.
        index: of the document's rules, where it is kept between requests.
    """
    asking = _Asking(index or RuleIndex(document.rules), facts, shape)
    deny = asking.first(Deny)
    if deny is None:
        asking.replace_model(used_ratio, begins_trials=throttle is not None)
        deny = asking.first(Deny) if asking.model else None
    if deny:
        return Decision(refused_by=deny, rules=(deny.id,))
    quota = asking.first(Throttle) if throttle is not None else None
    if quota and throttle is not None:
        wait = throttle.take(quota, now, tokens=shape.tokens)
        if wait is not None:
            return Decision(refused_by=quota, retry_after_seconds=wait, rules=(quota.id,))
    cap, route, failover = asking.first(Cap), asking.first(Route), asking.first(Failover)
    strip = asking.first(Strip)
    notes = tuple(asking.matching(Annotate))
    applied = (
        quota,
        asking.downgrade,
        asking.experiment,
        asking.canary,
        cap,
        strip,
        route,
        failover,
        *notes,
    )
    return Decision(
        throttle=quota,
        downgrade=asking.downgrade,
        experiment=asking.experiment,
        arm=asking.arm,
        canary=asking.canary,
        model=asking.model,
        cap=cap,
        strip=strip,
        route=route,
        weights=healthy_weights(route, health or {}) if route else None,
        failover=failover,
        headers=_merged(note.headers for note in notes),
        attributes=_merged(note.attributes for note in notes),
        budgets=tuple(each for each in document.budgets if matches(each.match, asking.facts)),
        rules=tuple(rule.id for rule in applied if rule),
    )


def healthy_weights(route: Route, health: Mapping[str, Health]) -> Mapping[str, int]:
    """Return the weights of the deployments within the objectives; all when none is."""
    slo = route.slo
    if slo is None:
        return route.weights
    kept = {
        name: weight for name, weight in route.weights.items() if is_within(slo, health.get(name))
    }
    return kept if any(kept.values()) else route.weights


def is_within(slo: Slo, seen: Health | None) -> bool:
    """Whether a deployment keeps the objectives, or too little is known to say."""
    if seen is None or seen.calls < slo.min_calls:
        return True
    if slo.latency_p95_ms is not None and seen.latency_p95_ms > slo.latency_p95_ms:
        return False
    return slo.error_ratio is None or seen.error_ratio <= slo.error_ratio


def holds(when: When, shape: Shape) -> bool:
    """Whether a request is of the shape that a rule is for."""
    if when.tools is not None and when.tools != shape.tools:
        return False
    if when.stream is not None and when.stream != shape.stream:
        return False
    if when.min_input_tokens is None and when.max_input_tokens is None:
        return True
    size = shape.input_tokens
    if size is None:
        return False
    is_long_enough = when.min_input_tokens is None or size >= when.min_input_tokens
    return is_long_enough and (when.max_input_tokens is None or size <= when.max_input_tokens)


class _Asking:
    """One request on its way through the rules: its facts change when its model does."""

    def __init__(self, index: RuleIndex, facts: Mapping[str, str], shape: Shape) -> None:
        self._index = index
        self._shape = shape
        self.facts = facts
        self.model: str | None = None
        self.downgrade: Downgrade | None = None
        self.experiment: Experiment | None = None
        self.arm: str | None = None
        self.canary: Canary | None = None

    def first(self, action: type[_Action]) -> _Action | None:
        """Return the rule of this action that decides."""
        return next(self.matching(action), None)

    def matching(self, action: type[_Action]) -> Iterator[_Action]:
        """Yield the rules of this action that select the request, the highest priority first."""
        for rule in self._index.of(action):
            if matches(rule.match, self.facts) and holds(rule.when, self._shape):
                yield rule

    def replace_model(self, used_ratio: Mapping[str, float], *, begins_trials: bool) -> None:
        """Apply downgrade, experiment and canary, in this order."""
        self.downgrade = next(self._downgrades(used_ratio), None)
        if self.downgrade:
            self._call(self.downgrade.to)
        if self.downgrade or not begins_trials:
            return  # a budget is short, or a model is closed: no time for trials
        self.experiment = next(self._experiments(), None)
        if self.experiment:
            weights = {name: arm.weight for name, arm in self.experiment.arms.items()}
            unit = self.facts[self.experiment.sticky]
            self.arm = assign(self.experiment.id, unit, weights)
            self._call(self.experiment.arms[self.arm].model)
        self.canary = next(self._canaries(), None)
        if self.canary:
            self._call(self.canary.to)

    def _call(self, model: str | None) -> None:
        if model is not None and model != self.facts.get("model"):
            self.model = model
            self.facts = {**self.facts, "model": model}

    def _downgrades(self, used_ratio: Mapping[str, float]) -> Iterator[Downgrade]:
        """Yield the downgrades in force: those tied to a budget only above their ratio of it."""
        for rule in self.matching(Downgrade):
            if rule.to == self.facts.get("model"):
                continue
            if rule.budget is None or used_ratio.get(rule.budget, 0.0) > (rule.above_ratio or 0.0):
                yield rule

    def _experiments(self) -> Iterator[Experiment]:
        """Yield the experiments that can name an arm: without the sticky fact there is none."""
        for rule in self.matching(Experiment):
            if rule.sticky in self.facts:
                yield rule

    def _canaries(self) -> Iterator[Canary]:
        for rule in self.matching(Canary):
            unit = self.facts.get(rule.sticky) if rule.sticky else None
            unit = unit or self._shape.unit
            if (
                unit
                and rule.to != self.facts.get("model")
                and share_hits(rule.id, unit, rule.share_percent or 0)
            ):
                yield rule


def _merged(maps: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return all of them in one; of two values the rule of the higher priority has its way."""
    found: dict[str, str] = {}
    for each in maps:
        for name, value in each.items():
            found.setdefault(name, value)
    return found
