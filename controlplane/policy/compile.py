"""Rules, budgets and rates → one document, or a sentence that says why not.

Whatever an agent could apply only half is refused here, before it is signed: a selector whose fact
the agent can not read would silently match nothing (algorithms L7).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import combinations
from typing import Final

import msgspec

from controlplane.core.errors import PolicyError
from controlplane.policy.document import (
    SELECTOR_KEYS,
    BudgetClause,
    Cap,
    Deny,
    Downgrade,
    Mode,
    PolicyDocument,
    RatePerMillion,
    Route,
    Rule,
    Throttle,
)
from controlplane.policy.match import check_selectors, overlap
from controlplane.policy.rules import PolicyRules

ALWAYS_KNOWN: Final = frozenset({"provider", "model", "operation"})
"""Facts that every request carries; all others come through the dimension map."""
TENANT: Final = "tenant"
LEASE: Final = "lease"
CAPABILITIES: Final[dict[type[Rule], str]] = {
    Deny: "deny",
    Throttle: "throttle",
    Route: "route",
    Downgrade: "downgrade",
    Cap: "cap",
}
HTTP_ERRORS: Final = range(400, 600)
_SOURCE: Final = re.compile(r"user|key\.(alias|team)|(metadata|header)\.[A-Za-z0-9_.-]{1,128}")


def compile_policy(
    rules: PolicyRules,
    budgets: Sequence[BudgetClause],
    *,
    rate_card: Mapping[str, RatePerMillion],
    price_book_version: str,
    issued_at: datetime,
) -> PolicyDocument:
    """Build the document of a scope; its generation is for the publisher to set.

    Soft and shadow budgets that this scope can not tell apart are left out: traces count them.

    Args:
        rules: as authored.
        budgets: every budget, with its tenant among its selectors.
        rate_card: ceiling rates by model.
        price_book_version: where the rates are from.
        issued_at: aware UTC.

    Raises:
        PolicyError: names the field and what would be accepted.
    """
    _check_map(rules.dimension_map)
    _refuse_twice("rules", (rule.id for rule in rules.rules))
    _refuse_twice("budgets", (budget.id for budget in budgets))
    known = ALWAYS_KNOWN | rules.dimension_map.keys()
    kept = tuple(
        clause for budget in budgets if (clause := _tell_apart(budget, rules, known)) is not None
    )
    for rule in rules.rules:
        _check_rule(rule, known, {budget.id for budget in kept})
    _refuse_ties(rules.rules)
    needed = {CAPABILITIES[type(rule)] for rule in rules.rules}
    if any(budget.mode is Mode.HARD for budget in kept):
        needed.add(LEASE)
    return PolicyDocument(
        scope=rules.scope,
        issued_at=issued_at,
        capabilities_required=tuple(sorted(needed)),
        on_stale=rules.on_stale,
        budgets=kept,
        rules=rules.rules,
        rate_card=dict(rate_card),
        price_book_version=price_book_version,
        tenant=rules.tenant,
        dimension_map=rules.dimension_map,
        annotations=rules.annotations,
    )


def _check_map(dimension_map: Mapping[str, str]) -> None:
    for dimension, source in dimension_map.items():
        field = f"dimension_map.{dimension}"
        if dimension not in SELECTOR_KEYS:
            raise PolicyError(field, "is not a selector", f"Known: {', '.join(SELECTOR_KEYS)}")
        if not _SOURCE.fullmatch(source):
            raise PolicyError(
                field,
                f"{source!r} is nowhere in a request",
                "Write user, metadata.<key>, header.<name>, key.alias or key.team",
            )


def _refuse_twice(field: str, ids: Iterable[str]) -> None:
    for name, times in Counter(ids).items():
        if times > 1:
            raise PolicyError(f"{field}.{name}", f"is there {times} times", "Give each its own id")
        if not name:
            raise PolicyError(field, "one has no id", "Name it")


def _tell_apart(
    budget: BudgetClause, rules: PolicyRules, known: frozenset[str]
) -> BudgetClause | None:
    """Return the budget as this scope can match it; None when only traces can count it.

    Without a mapped tenant every request is of `rules.tenant`, so that selector is dropped.
    """
    field = f"budgets.{budget.id}.match"
    check_selectors(budget.match, field=field)
    match = dict(budget.match)
    if TENANT not in known and tuple(match.get(TENANT, ())) == (rules.tenant,):
        del match[TENANT]
    missing = sorted(match.keys() - known)
    if not missing:
        return msgspec.structs.replace(budget, match=match)
    if budget.mode is Mode.HARD:
        raise PolicyError(
            f"{field}.{missing[0]}",
            f"scope {rules.scope!r} can not read it from a request, so the budget can not be hard",
            f"Map {missing[0]} in dimension_map, or make the budget soft",
        )
    return None


def _check_rule(rule: Rule, known: frozenset[str], budget_ids: set[str]) -> None:
    field = f"rules.{rule.id}"
    check_selectors(rule.match, field=f"{field}.match")
    for key in sorted(rule.match.keys() - known):
        raise PolicyError(
            f"{field}.match.{key}", "can not be read from a request", f"Map {key} in dimension_map"
        )
    problem = _problem(rule, budget_ids)
    if problem:
        name, wrong, fix = problem
        raise PolicyError(f"{field}.{name}", wrong, fix)


def _problem(rule: Rule, budget_ids: set[str]) -> tuple[str, str, str] | None:
    """Return field, problem and fix of the first value that can not be meant."""
    match rule:
        case Deny() if rule.status not in HTTP_ERRORS:
            return "status", f"{rule.status} is not an HTTP error", "Use 400 to 599"
        case Throttle() if rule.rpm < 1:
            return "rpm", f"{rule.rpm} lets nothing through", "Use deny, or at least 1"
        case Cap() if rule.max_tokens < 1:
            return "max_tokens", f"{rule.max_tokens} is no answer", "Use deny, or at least 1"
        case Route():
            return _route_problem(rule)
        case Downgrade():
            return _downgrade_problem(rule, budget_ids)
        case _:
            return None


def _route_problem(rule: Route) -> tuple[str, str, str] | None:
    weights = rule.weights.values()
    if not weights or min(weights) < 0 or sum(weights) == 0:
        return "weights", "give no deployment a share", "Use positive integers"
    if rule.sticky is not None and rule.sticky not in SELECTOR_KEYS:
        return "sticky", f"{rule.sticky!r} is not a dimension", "Use a selector's name"
    return None


def _downgrade_problem(rule: Downgrade, budget_ids: set[str]) -> tuple[str, str, str] | None:
    if not rule.to:
        return "to", "is empty", "Name a model"
    if rule.budget is not None and rule.budget not in budget_ids:
        return "budget", f"{rule.budget!r} is not in this policy", "Name one of its budgets"
    if rule.above_ratio is not None and (rule.budget is None or not 0 <= rule.above_ratio < 1):
        return "above_ratio", "needs a budget and a ratio from 0 to 1", "Set both"
    return None


def _refuse_ties(rules: Sequence[Rule]) -> None:
    for left, right in combinations(rules, 2):
        if (
            type(left) is type(right)
            and left.priority == right.priority
            and overlap(left.match, right.match)
        ):
            raise PolicyError(
                f"rules.{right.id}.priority",
                f"ties with rule {left.id!r}: both match some request at {right.priority}",
                "Give one a higher priority",
            )
