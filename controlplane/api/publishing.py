"""Budgets and rules to agents, from the API's side: checked first, then published everywhere."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from controlplane.budgets.budget import Budget
from controlplane.core.errors import ConflictError
from controlplane.pipelines.publish import PublishTools, publish, rules_in_use
from controlplane.policy.compile import compile_policy, refuse_above_parent

DEFAULT_SCOPE: Final = "default"
ATTEMPTS: Final = 3
"""Publishing again after somebody else did at the same moment; the next one sees their state."""


def check_compiles(
    budgets: Sequence[Budget], *, tools: PublishTools, now: datetime, changed: str | None = None
) -> None:
    """Pass a set of budgets that every scope could publish, before it is kept.

    A hard budget that agents can not tell apart would block every later publish.

    Args:
        budgets: as they would be.
        tools: as for `publish`.
        now: aware UTC.
        changed: id of the one that is new or changed, also judged against those above and below.

    Raises:
        PolicyError: names the budget's field and the fix.
    """
    card = tools.rate_card(now)
    clauses = [budget.clause(now) for budget in budgets]
    for scope in _scopes(tools):
        for rules in rules_in_use(scope, tools.policies):
            compile_policy(
                rules,
                clauses,
                rate_card=card.rates,
                price_book_version=card.price_book_version,
                issued_at=now,
            )
    if changed is not None:
        refuse_above_parent(clauses, changed)


def publish_everywhere(now: datetime, *, tools: PublishTools) -> None:
    """Publish every scope again; one whose document stays the same keeps its generation.

    Raises:
        PolicyError: a scope does not compile; scopes before it are published.
        ConflictError: others kept publishing meanwhile, or a node is ahead of this database.
    """
    for scope in _scopes(tools):
        for attempt in range(ATTEMPTS):
            try:
                publish(scope, now, tools=tools)
                break
            except ConflictError:
                if attempt == ATTEMPTS - 1:
                    raise


def _scopes(tools: PublishTools) -> list[str]:
    return sorted({DEFAULT_SCOPE, *tools.policies.scopes()})
