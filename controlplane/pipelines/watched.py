"""A budget as the watch sees it."""

import msgspec

from controlplane.alerts.burn import Burn
from controlplane.alerts.forecast import Forecast
from controlplane.core.money import round_usd
from controlplane.policy.units import BudgetUnit, say_amount
from controlplane.policy.wire import Standing


class WatchedBudget(msgspec.Struct, frozen=True):
    """What an alert says of a budget, beside its standing."""

    tenant: str
    name: str
    owner: str
    standing: Standing
    thresholds: tuple[int, ...] = (50, 80, 100)
    forecast_thresholds: tuple[int, ...] = (100,)
    burns: tuple[Burn, ...] = ()
    """Where it is spent much faster than planned."""
    forecast: Forecast | None = None
    """Of the end of its window, from its last whole days; None: they are too few."""
    is_rolling: bool = False
    """It has no period to tell once in: an alert fires while the threshold is passed."""

    @property
    def used_nusd(self) -> int:
        """What is spent, in its unit; what is promised to proxies not counted."""
        return (
            self.standing.settled_enforced_nusd
            + self.standing.settled_unproven_nusd
            + self.standing.observed_unenforced_nusd
            + self.standing.restated_nusd
        )

    def say(self, amount: int) -> str:
        """Write an amount of its unit, money to the cent: the budget itself has it exactly."""
        if self.standing.unit is BudgetUnit.USD:
            return round_usd(amount)
        return say_amount(self.standing.unit, amount)
