"""What proposed budgets have spent while recorded calls are replayed, in each budget's own unit."""

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from controlplane.budgets.budget import Budget
from controlplane.policy.document import Mode
from controlplane.policy.match import matches
from controlplane.policy.units import Amount


class Spending:
    """What counts against one budget as time goes on; a rolling one forgets its oldest parts."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._parts: deque[tuple[datetime, int]] = deque()
        self._total = 0

    def at(self, at: datetime) -> int:
        """Return what counts then; asked for in the order of time."""
        start = self.budget.counted_window(at).start
        while self._parts and self._parts[0][0] < start:
            self._total -= self._parts.popleft()[1]
        return self._total

    def add(self, at: datetime, amount: int) -> None:
        """Spend in the window that `at` is charged to."""
        self._parts.append((self.budget.window(at).start, amount))
        self._total += amount


class ProposedBudgets:
    """The budgets of a replay; a call is spent on all that count it, or on none."""

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self._spending = [Spending(budget) for budget in budgets]

    def refusing(
        self, call: Mapping[str, Any], facts: Mapping[str, str], amount: Amount
    ) -> str | None:
        """Spend a call, or return the name of the budget that is full; unknown counts as nothing."""
        at = call["start_time"]
        counting = [
            (one, amount.of(one.budget.unit) or 0)
            for one in self._spending
            if one.budget.tenant == call["tenant"] and matches(one.budget.match, facts)
        ]
        for one, used in counting:
            if one.budget.mode is Mode.HARD and one.at(at) + used > one.budget.limit_nusd:
                return one.budget.name
        for one, used in counting:
            one.add(at, used)
        return None

    def ratios(self, at: datetime) -> dict[str, float]:
        """Return by budget id the part of the limit that is spent."""
        return {
            one.budget.id: one.at(at) / one.budget.limit_nusd
            for one in self._spending
            if one.budget.limit_nusd
        }
