"""Which rates a scope needs: those of the models that a call held against a budget can reach.

A rate is there for holds alone, and the whole book is hundreds of kilobytes that every agent would
fetch again whenever anything changes.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from controlplane.policy.check_rules import deployments_of
from controlplane.policy.document import BudgetClause, Mode, RatePerMillion
from controlplane.policy.match import value_matches
from controlplane.policy.rules import PolicyRules

PROVIDER: Final = "provider"
MODEL: Final = "model"


def reachable_rates(
    rules: PolicyRules, budgets: Sequence[BudgetClause], card: Mapping[str, RatePerMillion]
) -> dict[str, RatePerMillion]:
    """Return the part of a rate card that this scope can use.

    Nothing is held without a hard or shadow budget, so nothing is needed then. Declared deployments
    bound what can be called; without them the budgets' own selectors on provider and model do.

    Args:
        rules: the scope's rules, with its deployments.
        budgets: those of the document.
        card: rates by `provider/model` and bare model.
    """
    holding = [budget for budget in budgets if budget.mode is not Mode.SOFT]
    if not holding:
        return {}
    if rules.deployments:
        return _declared(rules, card)
    if all(PROVIDER in budget.match or MODEL in budget.match for budget in holding):
        targets = {name for rule in rules.rules for _, name in deployments_of(rule)}
        return {
            name: rate
            for name, rate in card.items()
            if _bare(name) in targets
            or name in targets
            or any(_may_count(budget, name) for budget in holding)
        }
    return dict(card)


def reachable_ceilings(
    rules: PolicyRules, budgets: Sequence[BudgetClause], ceilings: Mapping[str, RatePerMillion]
) -> dict[str, RatePerMillion]:
    """Return the ceilings of the providers that a call without a price can go to.

    None where no budget holds such calls at a ceiling. A scope that declares its deployments names
    their providers; without them it may be any.
    """
    if not any(one.mode is Mode.HARD and one.unpriced == "ceiling" for one in budgets):
        return {}
    declared = {deployment.provider for deployment in rules.deployments.values()}
    if declared and declared <= ceilings.keys():
        return {name: rate for name, rate in ceilings.items() if name in declared}
    return dict(ceilings)


def _declared(rules: PolicyRules, card: Mapping[str, RatePerMillion]) -> dict[str, RatePerMillion]:
    wanted: set[str] = set()
    for name, deployment in rules.deployments.items():
        wanted |= {name, deployment.model, f"{deployment.provider}/{deployment.model}"}
    return {name: rate for name, rate in card.items() if name in wanted}


def _may_count(budget: BudgetClause, name: str) -> bool:
    """Whether a call of this model could be of the budget; a bare name is of any provider."""
    provider, slash, _ = name.partition("/")
    for key, fact in ((MODEL, _bare(name)), (PROVIDER, provider if slash else None)):
        patterns = budget.match.get(key)
        if (
            patterns is not None
            and fact is not None
            and not any(value_matches(pattern, fact) for pattern in patterns)
            and not any(value_matches(pattern, name) for pattern in patterns)
        ):
            return False
    return True


def _bare(name: str) -> str:
    return name.partition("/")[2] or name
