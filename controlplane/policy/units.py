"""What a budget is counted in: USD, tokens or requests; amounts of two units are never added.

Amounts are integers of the unit: nano-USD, tokens, requests. Names that end in `_nusd` in the
ledger, in leases and on the wire hold amounts in the unit of the budget that they belong to
(ADR 045).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from controlplane.core.money import format_usd
from controlplane.core.tokens import BUCKETS, Unit

TOKEN_BUCKETS: Final = tuple(bucket.name for bucket in BUCKETS if bucket.unit is Unit.TOKEN)


class BudgetUnit(StrEnum):
    """What a limit is a number of."""

    USD = "usd"
    TOKENS = "tokens"
    REQUESTS = "requests"


class Amount(msgspec.Struct, frozen=True):
    """What one call came to in every unit; None: not known."""

    cost_nusd: int | None
    tokens: int | None
    requests: int | None

    def of(self, unit: BudgetUnit) -> int | None:
        """Return the amount in one unit."""
        match unit:
            case BudgetUnit.USD:
                return self.cost_nusd
            case BudgetUnit.TOKENS:
                return self.tokens
            case BudgetUnit.REQUESTS:
                return self.requests


NOTHING: Final = Amount(0, 0, 0)
"""A call that its upstream refused."""


def used_tokens(usage: Mapping[str, int]) -> int:
    """Return the tokens of a bucket vector, input and output together; buckets are exclusive."""
    return sum(usage.get(name, 0) for name in TOKEN_BUCKETS)


def write_amount(unit: BudgetUnit, amount: int) -> str:
    """Write an amount as the API does: a decimal of USD, else a whole number."""
    return format_usd(amount) if unit is BudgetUnit.USD else str(amount)


def say_amount(unit: BudgetUnit, amount: int) -> str:
    """Write an amount in a sentence."""
    if unit is BudgetUnit.USD:
        return f"${format_usd(amount)}"
    return f"{amount} {unit.value if amount != 1 else unit.value[:-1]}"
