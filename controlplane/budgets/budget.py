"""A budget: whose calls it counts, how much they may cost, over which calendar period."""

from datetime import datetime
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from controlplane.core.calendar import Period, Window, window_at
from controlplane.core.errors import InvalidInputError
from controlplane.core.fiscal import GREGORIAN, FiscalCalendar
from controlplane.core.money import MAX_NUSD
from controlplane.policy.document import BudgetClause, Mode
from controlplane.policy.match import check_selectors

TENANT: Final = "tenant"
MAX_TEXT: Final = 200


class Unpriced(StrEnum):
    """What a hard budget does with a model that has no price."""

    BLOCK = "block"
    CEILING = "ceiling"
    """Hold the dearest price of the provider; an agent that has no ceiling for it blocks."""
    ALLOW = "allow"


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit over calls.

    What it counts (`tenant`, `match`, `period`, `zone`, `calendar`, `counts_from`) never changes after it is
    made: posting compares a call before and after a change, and both must fall to the same budgets.
    """

    id: str
    name: str
    owner: str
    tenant: str
    limit_nusd: int
    period: Period
    counts_from: datetime
    zone: str = "UTC"
    calendar: FiscalCalendar = GREGORIAN
    match: dict[str, tuple[str, ...]] = {}
    mode: Mode = Mode.HARD
    unpriced: Unpriced = Unpriced.BLOCK
    thresholds: tuple[int, ...] = (50, 80, 100)
    """Percent of the limit that is told about, once per window each."""
    archived_at: datetime | None = None

    def window(self, at: datetime) -> Window:
        """Return the window that `at` falls in."""
        return window_at(self.period, at, zone=self.zone, calendar=self.calendar)

    def clause(self, at: datetime) -> BudgetClause:
        """Return what agents are told of it, its tenant among the selectors."""
        window = self.window(at)
        return BudgetClause(
            id=self.id,
            name=self.name,
            owner=self.owner,
            match={**self.match, TENANT: (self.tenant,)},
            limit_nusd=self.limit_nusd,
            window_start=window.start,
            window_end=window.end,
            mode=self.mode,
            unpriced=self.unpriced.value,
        )


COUNTED: Final = ("tenant", "match", "period", "zone", "calendar", "counts_from")
"""Fields that say what a budget counts."""


def check_budget(budget: Budget) -> None:
    """Pass a budget that can be kept.

    Raises:
        InvalidInputError: names the field and what would be accepted.
    """
    for field in ("id", "name", "owner", TENANT):
        text: str = getattr(budget, field)
        if not 0 < len(text) <= MAX_TEXT:
            raise InvalidInputError(field, f"has {len(text)} characters", f"Give 1 to {MAX_TEXT}")
    if not 0 <= budget.limit_nusd <= MAX_NUSD:
        raise InvalidInputError("limit_nusd", f"{budget.limit_nusd} is no limit", "0 or more")
    if TENANT in budget.match:
        raise InvalidInputError("match.tenant", "is not a selector here", "Set `tenant`")
    check_selectors(budget.match, field="match")
    try:
        ZoneInfo(budget.zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise InvalidInputError(
            "zone", f"{budget.zone!r} is not an IANA zone", 'Write a name like "Europe/Madrid"'
        ) from None
    if any(percent < 1 for percent in budget.thresholds):
        raise InvalidInputError("thresholds", "holds a percentage below 1", "Use 1 or more")


def check_change(before: Budget, after: Budget) -> None:
    """Pass a change that leaves what is counted alone.

    Raises:
        InvalidInputError: names the field that can not change.
    """
    check_budget(after)
    for field in ("id", *COUNTED):
        if getattr(before, field) != getattr(after, field):
            raise InvalidInputError(
                field, "can not change: postings would no longer add up", "Make another budget"
            )
