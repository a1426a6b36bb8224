"""What is wrong with one rule, and with rules beside each other; the compiler asks, here are answers.

A problem is (field, what is wrong, what to do): the compiler puts the rule's name before the field.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import singledispatch
from itertools import combinations
from typing import Final

from controlplane.core.errors import PolicyError
from controlplane.policy.document import (
    RULE_KEYS,
    STRIPPABLE,
    AbortIf,
    Annotate,
    Breaker,
    Canary,
    Cap,
    Deny,
    Downgrade,
    Experiment,
    Failover,
    Route,
    Rule,
    Slo,
    Strip,
    Throttle,
    When,
)
from controlplane.policy.match import covers, overlap

HTTP_ERRORS: Final = range(400, 600)
FAILURES: Final = frozenset({"5xx", "timeout", "connect"})
MAX_ARMS: Final = 20
ARM_KEYS: Final = ("user_id", "customer", "team", "project", "feature", "api_key", "tenant")
"""What a call is stored with, so that its arm can be worked out again from the call alone."""
WHOLE_PERCENT: Final = 100

Problem = tuple[str, str, str]


def problem_of(rule: Rule, budget_ids: set[str]) -> Problem | None:
    """Return the first value that can not be meant."""
    return _when_problem(rule.when) or _action_problem(rule, budget_ids)


@singledispatch
def _action_problem(_rule: Rule, _budget_ids: set[str]) -> Problem | None:
    return None


@_action_problem.register
def _deny_problem(rule: Deny, _budget_ids: set[str]) -> Problem | None:
    if rule.status not in HTTP_ERRORS:
        return "status", f"{rule.status} is not an HTTP error", "Use 400 to 599"
    return None


def _when_problem(when: When) -> Problem | None:
    least, most = when.min_input_tokens, when.max_input_tokens
    if (least is not None and least < 0) or (most is not None and most < 0):
        return "when", "has a negative number of tokens", "Use 0 or more"
    if least is not None and most is not None and least > most:
        return "when", f"no prompt has {least} to {most} tokens", "Turn them round"
    return None


@_action_problem.register
def _throttle_problem(rule: Throttle, _budget_ids: set[str]) -> Problem | None:
    limits = {
        name: value
        for name in ("rpm", "rps", "tpm", "concurrency")
        if (value := getattr(rule, name)) is not None
    }
    if not limits:
        return "rpm", "and rps, tpm, concurrency are all absent", "Set at least one"
    for name, value in limits.items():
        if value <= 0:
            return name, f"{value} lets nothing through", "Use deny, or more than 0"
        if not math.isfinite(value):  # a document in JSON has no number for it
            return name, f"{value} is no limit", "Use a number, or leave it out"
    if rule.burst is not None and (rule.rps is None or rule.burst < 1):
        return "burst", "needs rps, and is at least 1", "Set rps, or leave burst out"
    return None


@_action_problem.register
def _cap_problem(rule: Cap, _budget_ids: set[str]) -> Problem | None:
    if rule.max_tokens is None and rule.n is None:
        return "max_tokens", "and n are both absent", "Set at least one"
    for name, value in (("max_tokens", rule.max_tokens), ("n", rule.n)):
        if value is not None and value < 1:
            return name, f"{value} is no answer", "Use deny, or at least 1"
    return None


@_action_problem.register
def _strip_problem(rule: Strip, _budget_ids: set[str]) -> Problem | None:
    if not rule.features:
        return "features", "is empty", "Name at least one"
    for feature in rule.features:
        if feature not in STRIPPABLE:
            return "features", f"{feature!r} can not be stripped", f"Use {', '.join(STRIPPABLE)}"
    return None


@_action_problem.register
def _route_problem(rule: Route, _budget_ids: set[str]) -> Problem | None:
    return (
        _weights_problem(rule.weights)
        or _sticky_problem(rule.sticky)
        or (_slo_problem(rule.slo) if rule.slo else None)
    )


def _weights_problem(weights: Mapping[str, int]) -> Problem | None:
    shares = weights.values()
    if not shares or min(shares) < 0 or sum(shares) == 0:
        return "weights", "give no deployment a share", "Use positive integers"
    return None


def _sticky_problem(sticky: str | None) -> Problem | None:
    if sticky is not None and sticky not in RULE_KEYS:
        return "sticky", f"{sticky!r} is not a dimension", "Use a selector's name"
    return None


def _slo_problem(slo: Slo) -> Problem | None:
    if slo.latency_p95_ms is None and slo.error_ratio is None:
        return "slo", "has no objective", "Set latency_p95_ms, error_ratio or both"
    if slo.error_ratio is not None and not 0 <= slo.error_ratio <= 1:
        return "slo.error_ratio", "is no ratio", "Use 0 to 1"
    latency_ms = 1 if slo.latency_p95_ms is None else slo.latency_p95_ms
    if min(slo.min_calls, slo.window_seconds, latency_ms) < 1:
        return "slo", "has a number below 1", "Use 1 or more"
    return None


@_action_problem.register
def _downgrade_problem(rule: Downgrade, budget_ids: set[str]) -> Problem | None:
    if not rule.to:
        return "to", "is empty", "Name a model"
    if rule.budget is not None and rule.budget not in budget_ids:
        return "budget", f"{rule.budget!r} is not in this policy", "Name one of its budgets"
    if rule.above_ratio is not None and (rule.budget is None or not 0 <= rule.above_ratio < 1):
        return "above_ratio", "needs a budget and a ratio from 0 to 1", "Set both"
    return None


@_action_problem.register
def _failover_problem(rule: Failover, _budget_ids: set[str]) -> Problem | None:
    if not rule.order or len(set(rule.order)) < len(rule.order):
        return "order", "names none, or one twice", "Name each deployment once, the first first"
    for failure in rule.on:
        is_status = failure.isdigit() and int(failure) in HTTP_ERRORS
        if not is_status and failure not in FAILURES:
            return "on", f"{failure!r} is no failure", "Use 5xx, timeout, connect or a status"
    if not rule.on:
        return "on", "is empty, so nothing ever fails over", "Name at least one failure"
    if rule.timeout_ms is not None and rule.timeout_ms < 1:
        return "timeout_ms", "is no time", "Use 1 or more, or leave it out"
    return _breaker_problem(rule.breaker)


def _breaker_problem(breaker: Breaker) -> Problem | None:
    if min(breaker.failures, breaker.window_seconds, breaker.open_seconds) < 1:
        return "breaker", "has a number below 1", "Use 1 or more"
    return None


@_action_problem.register
def _canary_problem(rule: Canary, _budget_ids: set[str]) -> Problem | None:
    if not rule.to:
        return "to", "is empty", "Name a model"
    steps = rule.steps
    if not steps or list(steps) != sorted(set(steps)) or steps[0] < 1 or steps[-1] > WHOLE_PERCENT:
        return "steps", f"{list(steps)} do not grow from 1 to 100", "Write [1, 5, 25, 100]"
    if not 0 <= (rule.share_percent or 0) <= WHOLE_PERCENT:
        return "share_percent", "is no percentage", "Leave it out: the server sets it"
    if rule.step_seconds < 1 or rule.min_calls < 1:
        return "step_seconds", "or min_calls is below 1", "Use 1 or more"
    return _abort_problem(rule.abort_if) or _sticky_problem(rule.sticky)


def _abort_problem(limits: AbortIf) -> Problem | None:
    if limits.error_ratio is not None and not 0 <= limits.error_ratio <= 1:
        return "abort_if.error_ratio", "is no ratio", "Use 0 to 1"
    for name, value in (("cost", limits.cost_ratio), ("latency", limits.latency_ratio)):
        if value is not None and not 0 < value < math.inf:
            return f"abort_if.{name}_ratio", "is not above 0", "1.3 is thirty percent more"
    return None


@_action_problem.register
def _annotate_problem(rule: Annotate, _budget_ids: set[str]) -> Problem | None:
    if not (rule.headers or rule.attributes):
        return "headers", "and attributes are empty", "Give at least one"
    for name, value in rule.headers.items():
        if not name or not name.replace("-", "").isalnum() or not name.isascii():
            return "headers", f"{name!r} is no header's name", "Use letters, digits and -"
        if not value.isascii() or not value.isprintable():
            return f"headers.{name}", "is not printable ASCII", "Write plain text"
    return None


@_action_problem.register
def _experiment_problem(rule: Experiment, _budget_ids: set[str]) -> Problem | None:
    if not 2 <= len(rule.arms) <= MAX_ARMS:  # noqa: PLR2004 - a comparison has two sides
        return "arms", f"are {len(rule.arms)}", f"Give 2 to {MAX_ARMS}"
    if any(arm.weight < 1 for arm in rule.arms.values()):
        return "arms", "have one without a share", "Give each a weight of 1 or more"
    models = [arm.model for arm in rule.arms.values()]
    if len(set(models)) < len(models):
        return "arms", "have two of the same model", "Let them differ"
    if rule.sticky not in ARM_KEYS:
        return "sticky", f"{rule.sticky!r} is not kept with a call", f"Use {', '.join(ARM_KEYS)}"
    return None


def deployments_of(rule: Rule) -> Iterator[tuple[str, str]]:
    """Yield (field, name) of every deployment or model that a rule sends requests to."""
    match rule:
        case Route():
            yield from ((f"weights.{name}", name) for name in rule.weights)
        case Failover():
            yield from (("order", name) for name in rule.order)
        case Downgrade() | Canary():
            yield "to", rule.to
        case Experiment():
            for name, arm in rule.arms.items():
                if arm.model is not None:
                    yield f"arms.{name}.model", arm.model
        case _:
            return


def refuse_conflicts(rules: Sequence[Rule]) -> None:
    """Pass rules of which each can have its say, and never two at once.

    Raises:
        PolicyError: two rules tie, or one is never reached; names the rule and the other.
    """
    for left, right in combinations(rules, 2):
        if _ties(left, right):
            raise PolicyError(
                f"rules.{right.id}.priority",
                f"ties with rule {left.id!r}: both match some request at {right.priority}",
                "Give one a higher priority",
            )
    for rule in rules:
        above = next(_hiders(rule, rules), None)
        if above is not None:
            raise PolicyError(
                f"rules.{rule.id}",
                f"is never reached: rule {above.id!r} decides every request it selects",
                "Remove it, narrow the other, or turn their priorities round",
            )


def _ties(left: Rule, right: Rule) -> bool:
    return (
        type(left) is type(right)
        and left.shadow == right.shadow
        and not isinstance(left, Annotate)
        and left.priority == right.priority
        and overlap(left.match, right.match)
        and _shapes_meet(left.when, right.when)
    )


def _hiders(rule: Rule, rules: Iterable[Rule]) -> Iterator[Rule]:
    """Yield the rules that decide whatever this one selects."""
    for other in rules:
        if other is rule or other.shadow or not _always_decides(other):
            continue
        beats = isinstance(other, Deny) and not isinstance(rule, Deny)
        outranks = type(other) is type(rule) and other.priority > rule.priority
        if (
            (beats or outranks)
            and covers(other.match, rule.match)
            and _shape_covers(other.when, rule.when)
        ):
            yield other


def _always_decides(rule: Rule) -> bool:
    """Whether a rule has its say on every request it selects."""
    match rule:
        case Annotate() | Canary() | Experiment() | Downgrade():
            return False  # they add up, share, or step back when there is nothing to change
        case Deny():
            return not rule.emergency  # a brake is pulled over rules that come back after it
        case _:
            return True


def _shapes_meet(left: When, right: When) -> bool:
    for name in ("tools", "stream"):
        mine, theirs = getattr(left, name), getattr(right, name)
        if mine is not None and theirs is not None and mine != theirs:
            return False
    return max(_least(left), _least(right)) <= min(_most(left), _most(right))


def _shape_covers(wide: When, narrow: When) -> bool:
    for name in ("tools", "stream"):
        mine = getattr(wide, name)
        if mine is not None and mine != getattr(narrow, name):
            return False
    if (wide.min_input_tokens, wide.max_input_tokens) == (None, None):
        return True
    if (narrow.min_input_tokens, narrow.max_input_tokens) == (None, None):
        return False
    return _least(wide) <= _least(narrow) and _most(narrow) <= _most(wide)


def _least(when: When) -> float:
    return 0 if when.min_input_tokens is None else when.min_input_tokens


def _most(when: When) -> float:
    return float("inf") if when.max_input_tokens is None else when.max_input_tokens
