"""Rules, budgets and rates → one document, or a sentence that says why not.

Whatever an agent could apply only half is refused here, before it is signed: a selector whose fact
the agent can not read would silently match nothing (algorithms L7).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

import msgspec

from controlplane.core.errors import PolicyError
from controlplane.policy.check_rules import deployments_of, problem_of, refuse_conflicts
from controlplane.policy.document import (
    RULE_KEYS,
    Annotate,
    BudgetClause,
    Canary,
    Cap,
    Deny,
    Downgrade,
    Experiment,
    Failover,
    Mode,
    PolicyDocument,
    RatePerMillion,
    Route,
    Rule,
    Strip,
    Throttle,
)
from controlplane.policy.match import check_selectors
from controlplane.policy.reach import reachable_ceilings, reachable_rates
from controlplane.policy.rules import PolicyRules
from controlplane.policy.units import say_amount
from controlplane.policy.velocity import Quota, check_limits, quota_rules

NO_RATES: Final[Mapping[str, RatePerMillion]] = MappingProxyType({})
ALWAYS_KNOWN: Final = frozenset({"provider", "model", "operation"})
"""Facts that every request carries; all others come through the dimension map."""
TENANT: Final = "tenant"
KEY_SOURCES: Final = "key."
"""The proxy's own word on who is calling; every other source is the sender's until it is trusted."""
LEASE: Final = "lease"
CAPABILITIES: Final[dict[type[Rule], str]] = {
    Deny: "deny",
    Throttle: "throttle",
    Route: "route",
    Downgrade: "downgrade",
    Cap: "cap",
    Failover: "failover",
    Canary: "canary",
    Annotate: "annotate",
    Strip: "strip",
    Experiment: "experiment",
}
_SOURCE: Final = re.compile(r"user|key\.(alias|team)|(metadata|header)\.[A-Za-z0-9_.-]{1,128}")


def compile_policy(
    rules: PolicyRules,
    budgets: Sequence[BudgetClause],
    *,
    rate_card: Mapping[str, RatePerMillion],
    provider_ceilings: Mapping[str, RatePerMillion] = NO_RATES,
    price_book_version: str,
    issued_at: datetime,
) -> PolicyDocument:
    """Build the document of a scope; its generation is for the publisher to set.

    Soft and shadow budgets that this scope can not tell apart are left out: traces count them.

    Args:
        rules: as authored.
        budgets: every budget, with its tenant among its selectors.
        rate_card: ceiling rates by model.
        provider_ceilings: the dearest rates of each provider.
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
    _check_parents(budgets)
    for rule in rules.rules:
        _check_rule(rule, rules, known=known, budget_ids={budget.id for budget in kept})
    refuse_conflicts(rules.rules)
    check_limits(rules.velocity, rules.rules, known)
    needed = {CAPABILITIES[type(rule)] for rule in rules.rules if not rule.shadow}
    # Before any quota begins: who lacks it is seen when the limit is published.
    needed |= {CAPABILITIES[Throttle if one.is_throttle else Deny] for one in rules.velocity}
    if any(budget.mode is Mode.HARD for budget in kept):
        needed.add(LEASE)
    return PolicyDocument(
        scope=rules.scope,
        issued_at=issued_at,
        capabilities_required=tuple(sorted(needed)),
        on_stale=rules.on_stale,
        budgets=kept,
        rules=tuple(rule for rule in rules.rules if not rule.shadow),
        rate_card=reachable_rates(rules, kept, rate_card),
        provider_ceilings=reachable_ceilings(rules, kept, provider_ceilings),
        price_book_version=price_book_version,
        tenant=rules.tenant,
        dimension_map=rules.dimension_map,
        annotations=rules.annotations,
    )


def with_quotas(
    document: PolicyDocument, rules: PolicyRules, quotas: Sequence[Quota]
) -> PolicyDocument:
    """Add to a document of these rules what began by itself and is in force when it is issued."""
    automatic = quota_rules(
        rules.velocity,
        quotas,
        document.rules,
        tenant=document.tenant,
        maps_tenant=TENANT in document.dimension_map,
        now=document.issued_at,
    )
    return msgspec.structs.replace(document, rules=(*document.rules, *automatic))


def _check_map(dimension_map: Mapping[str, str]) -> None:
    for dimension, source in dimension_map.items():
        field = f"dimension_map.{dimension}"
        if dimension not in RULE_KEYS:
            raise PolicyError(field, "is not a selector", f"Known: {', '.join(RULE_KEYS)}")
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
        if budget.mode is Mode.HARD:
            _refuse_untrusted(field, match, rules)
        return msgspec.structs.replace(budget, match=match)
    if budget.mode is Mode.HARD:
        raise PolicyError(
            f"{field}.{missing[0]}",
            f"scope {rules.scope!r} can not read it from a request, so the budget can not be hard",
            f"Map {missing[0]} in dimension_map, or make the budget soft",
        )
    return None


def _refuse_untrusted(field: str, match: Mapping[str, object], rules: PolicyRules) -> None:
    """Refuse to bind a hard limit to what the sender of a request may write there (L7)."""
    for key in sorted(match.keys() & rules.dimension_map.keys()):
        source = rules.dimension_map[key]
        if not source.startswith(KEY_SOURCES) and source not in rules.trusted_sources:
            raise PolicyError(
                f"{field}.{key}",
                f"is read from {source!r}, which a sender may write as it likes, so the budget "
                "can not be hard",
                f"Map {key} from key.alias or key.team, or list {source!r} in trusted_sources once "
                "the proxy itself sets it",
            )


def _check_rule(
    rule: Rule, rules: PolicyRules, *, known: frozenset[str], budget_ids: set[str]
) -> None:
    field = f"rules.{rule.id}"
    check_selectors(rule.match, field=f"{field}.match", known=RULE_KEYS)
    for key in sorted(rule.match.keys() - known):
        raise PolicyError(
            f"{field}.match.{key}", "can not be read from a request", f"Map {key} in dimension_map"
        )
    problem = problem_of(rule, budget_ids)
    if problem:
        name, wrong, fix = problem
        raise PolicyError(f"{field}.{name}", wrong, fix)
    for name, deployment in deployments_of(rule) if rules.deployments else ():
        if deployment not in rules.deployments:
            raise PolicyError(
                f"{field}.{name}",
                f"{deployment!r} is no deployment of this scope",
                f"Known: {', '.join(sorted(rules.deployments))}",
            )
    sticky: str | None = getattr(rule, "sticky", None)
    if sticky is not None and sticky not in known:
        raise PolicyError(
            f"{field}.sticky", "can not be read from a request", f"Map {sticky} in dimension_map"
        )


def _check_parents(budgets: Sequence[BudgetClause]) -> None:
    """Refuse a parent that is not there, and rings."""
    by_id = {budget.id: budget for budget in budgets}
    for budget in budgets:
        field = f"budgets.{budget.id}"
        seen = {budget.id}
        parent = by_id.get(budget.parent) if budget.parent is not None else None
        if budget.parent is not None and parent is None:
            raise PolicyError(f"{field}.parent", f"{budget.parent!r} is not there", "Name a budget")
        while parent is not None:
            if parent.id in seen:
                raise PolicyError(f"{field}.parent", "is its own parent in the end", "Cut the ring")
            seen.add(parent.id)
            parent = by_id.get(parent.parent) if parent.parent is not None else None


def refuse_above_parent(budgets: Sequence[BudgetClause], changed: str) -> None:
    """Refuse a budget that promises more than one above it can give, in a window within its own.

    Asked when a budget is made or changed, of it, those above and those below. Not when policy is
    published: an increase ends and a week leaves its month by themselves, and that must stop
    nobody; what is above its parent is never spent, for holds are taken at every level or none.

    Args:
        budgets: all there are, without rings.
        changed: id of the one that was made or changed.

    Raises:
        PolicyError: names the lower one's limit.
    """
    by_id = {budget.id: budget for budget in budgets}
    for budget in budgets:
        parent = by_id.get(budget.parent or "")
        while parent is not None:
            if changed in {budget.id, parent.id} and _is_above(budget, parent):
                raise PolicyError(
                    f"budgets.{budget.id}.limit",
                    f"{say_amount(budget.unit, budget.limit_nusd)} of {budget.name!r} is more than "
                    f"{say_amount(parent.unit, parent.limit_nusd)} of its parent {parent.name!r}",
                    "Lower it, or raise the parent",
                )
            parent = by_id.get(parent.parent or "")


def _is_above(budget: BudgetClause, parent: BudgetClause) -> bool:
    return (
        budget.limit_nusd > parent.limit_nusd
        and parent.unit is budget.unit
        and not parent.rolling
        and parent.window_start <= budget.window_start
        and budget.window_end <= parent.window_end
    )
