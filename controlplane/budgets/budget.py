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
MAX_INCREASES: Final = 20


class Unpriced(StrEnum):
    """What a hard budget does with a model that has no price."""

    BLOCK = "block"
    CEILING = "ceiling"
    """Hold the dearest price of the provider; an agent that has no ceiling for it blocks."""
    ALLOW = "allow"


class Unattributed(StrEnum):
    """What a hard budget does with a request that lacks a fact it selects by."""

    BLOCK = "block"
    CEILING = "ceiling"
    """Hold it as if it matched."""
    ALLOW = "allow"


class Stale(StrEnum):
    """What a hard budget does when an agent's policy is too old."""

    POLICY = "policy"
    """What `on_stale` of the policy says."""
    BLOCK = "block"
    CEILING = "ceiling"
    """Go on with the leases there are."""
    ALLOW = "allow"


class Increase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """More money until a moment; then the limit is what it was."""

    amount_nusd: int
    until: datetime
    reason: str = ""


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit over calls.

    What it counts (`tenant`, `match`, `period`, `zone`, `calendar`, `counts_from`, `parent`) never
    changes after it is made: posting compares a call before and after a change, and both must fall to the same budgets.
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
    unattributed: Unattributed = Unattributed.ALLOW
    stale: Stale = Stale.POLICY
    parent: str | None = None
    """The budget above: what counts here counts there, and is held at both or neither."""
    increases: tuple[Increase, ...] = ()
    thresholds: tuple[int, ...] = (50, 80, 100)
    """Percent of the limit that is told about, once per window each."""
    forecast_thresholds: tuple[int, ...] = (100,)
    """Percent of the limit that the window is on its way to; told once per window each."""
    archived_at: datetime | None = None

    def window(self, at: datetime) -> Window:
        """Return the window that `at` falls in."""
        return window_at(self.period, at, zone=self.zone, calendar=self.calendar)

    def limit_at(self, at: datetime) -> int:
        """Return the limit with the increases that hold then."""
        return self.limit_nusd + sum(one.amount_nusd for one in self.increases if at < one.until)

    def clause(self, at: datetime) -> BudgetClause:
        """Return what agents are told of it, its tenant among the selectors."""
        window = self.window(at)
        return BudgetClause(
            id=self.id,
            name=self.name,
            owner=self.owner,
            match={**self.match, TENANT: (self.tenant,)},
            limit_nusd=self.limit_at(at),
            window_start=window.start,
            window_end=window.end,
            mode=self.mode,
            unpriced=self.unpriced.value,
            unattributed=self.unattributed.value,
            stale=self.stale.value,
            parent=self.parent,
        )


COUNTED: Final = ("tenant", "match", "period", "zone", "calendar", "counts_from", "parent")
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
    for field in ("thresholds", "forecast_thresholds"):
        if any(percent < 1 for percent in getattr(budget, field)):
            raise InvalidInputError(field, "holds a percentage below 1", "Use 1 or more")
    if budget.parent == budget.id:
        raise InvalidInputError("parent", "is the budget itself", "Name the budget above it")
    _check_increases(budget.increases)


def _check_increases(increases: tuple[Increase, ...]) -> None:
    if len(increases) > MAX_INCREASES:
        raise InvalidInputError("increases", f"are more than {MAX_INCREASES}", "Raise the limit")
    for increase in increases:
        if not 0 < increase.amount_nusd <= MAX_NUSD or increase.until.tzinfo is None:
            raise InvalidInputError(
                "increases", "one has no amount, or no offset", "Give more than 0, and RFC 3339"
            )


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
