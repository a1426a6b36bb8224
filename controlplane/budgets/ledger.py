"""Where a budget window's money is; pure arithmetic on immutable entries.

`limit + debt = enforced + unproven + unenforced + restated + leased + free`, with free >= 0 and
debt >= 0, at most one of them above zero. A balance is the sum of entries and nothing else. All
amounts are in the unit of the budget.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

MAX_ACCOUNT_NUSD: Final = 2**62 - 1
"""Where an account stops (4.6 billion USD): from end to end a change still fits 64 bits."""


class Amounts(msgspec.Struct, frozen=True):
    """What is in each of the five accounts, in the budget's unit, or a change of them."""

    enforced_nusd: int = 0
    """Calls that were held before they were made, at what they cost."""
    unproven_nusd: int = 0
    """Charged in full because nobody has shown yet what was really spent (L2)."""
    unenforced_nusd: int = 0
    """Calls seen in telemetry that never asked (L5)."""
    leased_nusd: int = 0
    """Promised to a holder and not yet settled or given back."""
    restated_nusd: int = 0
    """What re-rates and invoices moved after the fact; the only account that may be below zero."""

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(
            self.enforced_nusd + other.enforced_nusd,
            self.unproven_nusd + other.unproven_nusd,
            self.unenforced_nusd + other.unenforced_nusd,
            self.leased_nusd + other.leased_nusd,
            self.restated_nusd + other.restated_nusd,
        )

    @property
    def total_nusd(self) -> int:
        """All five together."""
        return self.promised_nusd + self.restated_nusd

    @property
    def promised_nusd(self) -> int:
        """All but what was restated: what the bound of a hard budget is about (L4)."""
        return self.enforced_nusd + self.unproven_nusd + self.unenforced_nusd + self.leased_nusd


class Balance(msgspec.Struct, frozen=True):
    """A window's limit and what is taken from it."""

    limit_nusd: int
    amounts: Amounts = Amounts()

    @property
    def free_nusd(self) -> int:
        """What is left of the limit."""
        return max(0, self.limit_nusd - self.amounts.total_nusd)

    @property
    def grantable_nusd(self) -> int:
        """What may still be promised: a re-rate that lowers the past does not lift the bound.

        Calls were admitted at the prices known then, and those stay within the limit. One that
        raises it is taken off like everything else that was spent.
        """
        return max(0, self.limit_nusd - max(self.amounts.total_nusd, self.amounts.promised_nusd))

    @property
    def debt_nusd(self) -> int:
        """What is taken beyond the limit: calls that never asked, or a limit lowered since."""
        return max(0, self.amounts.total_nusd - self.limit_nusd)


class EntryKind(StrEnum):
    """Why money moved."""

    GRANT = "grant"
    SETTLE = "settle"
    RETURN = "return"
    EXPIRE = "expire"
    CALLS = "calls"
    CORRECT = "correct"
    RESTATE = "restate"
    """A re-rate or an invoice moved money after the fact; outside the bound of a hard budget (L4)."""


class WindowKey(msgspec.Struct, frozen=True, order=True):
    """One budget window; it is part of every entry's key, so nothing is ever reset."""

    budget_id: str
    start: datetime


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable movement; `key` is unique within its window, so it can not be posted twice."""

    window: WindowKey
    key: str
    kind: EntryKind
    at: datetime
    """When it was posted."""
    change: Amounts
    called_at: datetime | None = None
    """The minute in which the calls began that it counts; None: near `at`, or no call's."""


def within_range(entries: Iterable[Entry], amounts: Mapping[WindowKey, Amounts]) -> list[Entry]:
    """Cut changes that would take an account out of the range that databases hold.

    Only nonsense gets there. It must neither stop the ledger nor become a float in SQLite; and a
    balance stays the sum of its entries.
    """
    standing_now = dict(amounts)
    kept = []
    for entry in entries:
        before = standing_now.get(entry.window, Amounts())
        after = _bounded(before + entry.change)
        standing_now[entry.window] = after
        kept.append(msgspec.structs.replace(entry, change=_difference(after, before)))
    return kept


def _bounded(amounts: Amounts) -> Amounts:
    parts = msgspec.structs.astuple(amounts)
    return Amounts(*(max(-MAX_ACCOUNT_NUSD, min(MAX_ACCOUNT_NUSD, part)) for part in parts))


def _difference(after: Amounts, before: Amounts) -> Amounts:
    pairs = zip(msgspec.structs.astuple(after), msgspec.structs.astuple(before), strict=True)
    return Amounts(*(one - other for one, other in pairs))
