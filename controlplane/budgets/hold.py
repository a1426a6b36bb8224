"""What a settled hold is charged, and how a trace corrects it later."""

from datetime import datetime
from enum import StrEnum

import msgspec

from controlplane.budgets.ledger import Amounts, WindowKey
from controlplane.policy.units import Amount, BudgetUnit


class ChargeReason(StrEnum):
    """Why a hold is charged what it is."""

    PRICED = "priced"
    REFUSED_UPSTREAM = "refused_upstream"
    UNKNOWN_USAGE = "unknown_usage"
    UNPRICED = "unpriced"


class Outcome(msgspec.Struct, frozen=True):
    """How a call ended for its holds; what is not known is charged in full."""

    amount: Amount
    reason: ChargeReason

    def charge(self, unit: BudgetUnit, held_nusd: int) -> Amounts:
        """Return what a budget of that unit is charged for a hold of `held_nusd` in it."""
        used = self.amount.of(unit)
        if used is None:
            return Amounts(unproven_nusd=held_nusd)
        return Amounts(enforced_nusd=used)


class HoldLine(msgspec.Struct, frozen=True, kw_only=True):
    """What one budget window is charged for a hold now: its settle and every correction."""

    window: WindowKey
    lease_id: str
    charge: Amounts


class SettledHold(msgspec.Struct, frozen=True, kw_only=True):
    """A hold that has ended; there is one per id, whatever is resent."""

    id: str
    holder: str
    held_nusd: int
    started_at: datetime
    settled_at: datetime
    reason: ChargeReason
    response_id: str | None = None
    call_id: str | None = None
    lines: tuple[HoldLine, ...] = ()


def corrected(line: HoldLine, used_nusd: int) -> tuple[HoldLine, Amounts]:
    """Charge what a trace proves instead; returns the line and the difference to post."""
    proven = Amounts(enforced_nusd=used_nusd)
    change = Amounts(
        enforced_nusd=used_nusd - line.charge.enforced_nusd,
        unproven_nusd=-line.charge.unproven_nusd,
    )
    return msgspec.structs.replace(line, charge=proven), change
