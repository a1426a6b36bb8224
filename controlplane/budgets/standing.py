"""What agents, alerts and the API are told of a budget."""

from datetime import datetime

from controlplane.budgets.budget import Budget
from controlplane.budgets.ledger import Amounts, Balance
from controlplane.policy.wire import Standing


def standing(budget: Budget, amounts: Amounts, now: datetime) -> Standing:
    """Cross to the wire.

    Args:
        budget: as it is now.
        amounts: of `budget.counted_window(now)`.
        now: aware UTC.
    """
    window = budget.counted_window(now)
    balance = Balance(budget.limit_at(now), amounts)
    return Standing(
        budget_id=budget.id,
        window_start=window.start,
        window_end=window.end,
        limit_nusd=balance.limit_nusd,
        debt_nusd=balance.debt_nusd,
        settled_enforced_nusd=amounts.enforced_nusd,
        settled_unproven_nusd=amounts.unproven_nusd,
        observed_unenforced_nusd=amounts.unenforced_nusd,
        leased_nusd=amounts.leased_nusd,
        free_nusd=balance.free_nusd,
        restated_nusd=amounts.restated_nusd,
        unit=budget.unit,
    )
