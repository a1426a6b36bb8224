"""A budget: whose calls it counts, how much they may come to, over which windows."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from controlplane.budgets.windows import (
    MAX_FIXED,
    MAX_ROLLING,
    WindowKind,
    fixed_window,
    parse_every,
    rolling_window,
    sub_window,
)
from controlplane.core.calendar import Period, Window, window_at
from controlplane.core.errors import InvalidInputError
from controlplane.core.fiscal import GREGORIAN, FiscalCalendar
from controlplane.core.money import MAX_NUSD
from controlplane.policy.document import BudgetClause, Mode
from controlplane.policy.match import check_selectors
from controlplane.policy.units import BudgetUnit

TENANT: Final = "tenant"
MAX_TEXT: Final = 200
MAX_INCREASES: Final = 20
NEVER: Final = datetime(2500, 1, 1, tzinfo=UTC)
"""When a rolling window starts anew."""


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
    """More of the budget's unit until a moment; then the limit is what it was."""

    amount_nusd: int
    until: datetime
    reason: str = ""


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit over calls.

    What it counts (COUNTED) never changes after it is made: posting compares a call before and
    after a change, and both must fall to the same budgets, windows and units.
    """

    id: str
    name: str
    owner: str
    tenant: str
    limit_nusd: int
    """In `unit`: nano-USD, tokens or requests."""
    counts_from: datetime
    unit: BudgetUnit = BudgetUnit.USD
    window_kind: WindowKind = WindowKind.CALENDAR
    period: Period | None = None
    """Of a calendar window."""
    every: str | None = None
    """Length of a fixed or rolling window: `6h`, `30d`."""
    anchor: datetime | None = None
    """Where the fixed windows start; else at `counts_from`."""
    zone: str = "UTC"
    calendar: FiscalCalendar = GREGORIAN
    match: dict[str, tuple[str, ...]] = {}
    mode: Mode = Mode.HARD
    unpriced: Unpriced = Unpriced.BLOCK
    unattributed: Unattributed = Unattributed.ALLOW
    stale: Stale = Stale.POLICY
    escrow_nusd: int = 0
    """What each agent holds beside, to spend while it can not reach the server (ADR 054)."""
    parent: str | None = None
    """The budget above: what counts here counts there, and is held at both or neither."""
    increases: tuple[Increase, ...] = ()
    thresholds: tuple[int, ...] = (50, 80, 100)
    """Percent of the limit that is told about, once per window each."""
    forecast_thresholds: tuple[int, ...] = (100,)
    """Percent of the limit that the window is on its way to; told once per window each. A rolling
    window never ends, so it has none."""
    archived_at: datetime | None = None

    @property
    def is_rolling(self) -> bool:
        """Whether more than one window of the ledger counts at once."""
        return self.window_kind is WindowKind.ROLLING

    def window(self, at: datetime) -> Window:
        """Return the window that `at` is charged to; of a rolling one, the quarter hour."""
        if self.is_rolling:
            return sub_window(at)
        if self.every is not None:
            anchor = self.anchor or self.counts_from
            return fixed_window(parse_every(self.every), anchor=anchor, at=at, zone=self.zone)
        return window_at(self.period or Period.MONTH, at, zone=self.zone, calendar=self.calendar)

    def counted_window(self, at: datetime) -> Window:
        """Return all that counts against the limit at `at`; a rolling one is many of `window`."""
        if self.is_rolling and self.every is not None:
            return rolling_window(parse_every(self.every), at)
        return self.window(at)

    def limit_at(self, at: datetime) -> int:
        """Return the limit with the increases that hold then."""
        return self.limit_nusd + sum(one.amount_nusd for one in self.increases if at < one.until)

    def clause(self, at: datetime) -> BudgetClause:
        """Return what agents are told of it, its tenant among the selectors."""
        window = self.window(at)
        rolling = self.every if self.is_rolling else None
        if rolling is not None:  # a generation every quarter hour would say nothing new
            window = Window(self.counts_from, NEVER)
        return BudgetClause(
            id=self.id,
            name=self.name,
            owner=self.owner,
            match={**self.match, TENANT: (self.tenant,)},
            limit_nusd=self.limit_at(at),
            unit=self.unit,
            window_start=window.start,
            window_end=window.end,
            rolling=rolling,
            mode=self.mode,
            unpriced=self.unpriced.value,
            unattributed=self.unattributed.value,
            stale=self.stale.value,
            parent=self.parent,
            escrow_nusd=self.escrow_nusd,
        )


COUNTED: Final = (
    *("tenant", "match", "unit", "window_kind", "period", "every", "anchor", "zone", "calendar"),
    *("counts_from", "parent"),
)
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
    _check_escrow(budget)
    _check_windows(budget)
    _check_increases(budget.increases)


def _check_escrow(budget: Budget) -> None:
    if not 0 <= budget.escrow_nusd <= budget.limit_nusd:
        raise InvalidInputError("escrow", "is below 0 or above the limit", "A part of the limit")
    if budget.escrow_nusd and (budget.mode is not Mode.HARD or budget.is_rolling):
        raise InvalidInputError(
            "escrow",
            "is for hard budgets whose windows do not roll",
            "Others refuse nothing, or free it again within a quarter of an hour",
        )


def _check_windows(budget: Budget) -> None:
    """Refuse a length where the calendar has one, and the other way round."""
    if budget.window_kind is WindowKind.CALENDAR:
        if budget.period is None:
            raise InvalidInputError("period", "is missing", "Name a period of the calendar")
        if budget.every is not None or budget.anchor is not None:
            raise InvalidInputError(
                "every", "is for fixed and rolling windows", "Set window_kind, or leave it out"
            )
        return
    if budget.period is not None:
        raise InvalidInputError("period", "is for calendar windows", "Leave it out")
    if budget.every is None:
        raise InvalidInputError("every", "is missing", 'Write hours or days: "6h", "3d"')
    longest = MAX_ROLLING if budget.is_rolling else MAX_FIXED
    if parse_every(budget.every).length > longest:
        raise InvalidInputError("every", "is too long", f"At most {longest.days}d")
    if budget.anchor is not None and (budget.is_rolling or budget.anchor.tzinfo is None):
        raise InvalidInputError(
            "anchor", "has no offset, or is of a rolling window", "RFC 3339, for fixed windows only"
        )
    if budget.is_rolling and budget.forecast_thresholds:
        raise InvalidInputError(
            "forecast_thresholds",
            "mean nothing to a rolling window, which has no end to forecast",
            "Leave them out: thresholds fire while they are passed",
        )


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
