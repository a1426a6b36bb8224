"""What a settled hold is charged, and how a trace corrects it later."""

from datetime import datetime
from enum import StrEnum

import msgspec

from controlplane.budgets.ledger import Amounts, WindowKey


class ChargeReason(StrEnum):
    """Why a hold is charged what it is."""

    PRICED = "priced"
    REFUSED_UPSTREAM = "refused_upstream"
    UNKNOWN_USAGE = "unknown_usage"
    UNPRICED = "unpriced"


class Outcome(msgspec.Struct, frozen=True):
    """How a call ended for its holds; `cost_nusd` None: not known, so charged in full."""

    cost_nusd: int | None
    reason: ChargeReason

    def charge(self, held_nusd: int) -> Amounts:
        """Return what one budget is charged for a hold of `held_nusd`."""
        if self.cost_nusd is None:
            return Amounts(unproven_nusd=held_nusd)
        return Amounts(enforced_nusd=self.cost_nusd)


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


def corrected(line: HoldLine, cost_nusd: int) -> tuple[HoldLine, Amounts]:
    """Charge what a trace proves instead; returns the line and the difference to post."""
    proven = Amounts(enforced_nusd=cost_nusd)
    change = Amounts(
        enforced_nusd=cost_nusd - line.charge.enforced_nusd,
        unproven_nusd=-line.charge.unproven_nusd,
    )
    return msgspec.structs.replace(line, charge=proven), change
