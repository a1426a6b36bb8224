"""Why a call was not admitted, as its sender is told."""

from datetime import datetime

import msgspec

from controlplane.core.money import format_usd
from controlplane.policy.document import BudgetClause
from controlplane.policy.units import BudgetUnit
from controlplane.policy.wire import Standing


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call was not admitted, in the words that its sender needs."""

    code: str
    reason: str
    status: int = 429
    rule: str | None = None
    budget: BudgetClause | None = None
    standing: Standing | None = None
    retry_after_seconds: int | None = None

    def body(self, *, request_id: str, policy: str) -> dict[str, object]:
        """Write the machine-readable answer; money in USD decimal strings."""
        body: dict[str, object] = {
            "code": self.code,
            "message": self.reason,
            "request_id": request_id,
            "policy_generation": policy,
        }
        if self.rule:
            body["rule"] = self.rule
        if self.budget:
            body["budget"] = _budget_body(self.budget, self.standing)
        return body


def _budget_body(budget: BudgetClause, standing: Standing | None) -> dict[str, object]:
    unit = budget.unit

    def written(amount: int) -> object:
        return format_usd(amount) if unit is BudgetUnit.USD else amount

    body: dict[str, object] = {
        "id": budget.id,
        "name": budget.name,
        "owner": budget.owner,
        "unit": unit.value,
        f"limit_{unit.value}": written(budget.limit_nusd),
        "resets_at": resets_at(budget, standing).isoformat(),
    }
    if budget.rolling:
        body["rolling"] = budget.rolling
    if standing:
        spent = (
            standing.settled_enforced_nusd
            + standing.settled_unproven_nusd
            + standing.observed_unenforced_nusd
            + standing.restated_nusd
        )
        body[f"spent_{unit.value}"] = written(spent)
        body[f"held_{unit.value}"] = written(standing.leased_nusd)
        body[f"free_{unit.value}"] = written(standing.free_nusd)
    return body


def resets_at(budget: BudgetClause, standing: Standing | None) -> datetime:
    """Return when the budget starts anew; a rolling one, when something may come free next."""
    return standing.window_end if budget.rolling and standing else budget.window_end
