"""What a replay answers, and its sums in the making."""

from collections import defaultdict
from datetime import datetime
from typing import Final

import msgspec

MAX_LISTED: Final = 10_000
ASSUMPTIONS: Final = (
    "Calls that were refused at the time are not in the records, so nothing is known of them.",
    "A call on another model uses the tokens it used on its own, and its answer is as good.",
    "A call on another model takes as long as that model's recorded calls took on average.",
    "A lowered output limit cuts the answer there; nothing is asked again.",
    "A blocked call is not retried, and costs nothing.",
    "A hard budget admits a call while what was spent before it, and it, fit the limit.",
)


class ReplayedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call that would have been another."""

    call_id: str
    start_time: datetime
    tenant: str
    team: str | None
    model: str
    effect: str  # blocked | model | cap | price
    by: str
    """Rule or budget that decides; empty for a price."""
    new_model: str | None
    cost_nusd: int | None
    new_cost_nusd: int | None


class TeamBlocked(msgspec.Struct, frozen=True):
    """Blocked calls of one team."""

    team: str | None
    calls: int
    cost_nusd: int


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """The answer; money counts calls whose cost is known before and after."""

    calls: int
    cost_before_nusd: int
    cost_after_nusd: int
    saved_nusd: int
    blocked_calls: int
    blocked_cost_nusd: int
    blocked_by_team: tuple[TeamBlocked, ...]
    changed_calls: int
    unknown_cost_calls: int
    latency_change_ms_mean: float | None
    """Of the calls whose model changes; None when there are none, or nothing is recorded."""
    latency_unknown_calls: int
    listed: tuple[ReplayedCall, ...]
    not_listed: int
    assumptions: tuple[str, ...] = ASSUMPTIONS


class Tally:
    """Sums of a replay in the making."""

    def __init__(self) -> None:
        self.calls = self.before = self.after = self.changed = self.unknown = 0
        self.blocked: dict[str | None, list[int]] = defaultdict(lambda: [0, 0])
        self.listed: list[ReplayedCall] = []
        self.not_listed = self.latency_us = self.timed = self.untimed = 0

    def add(self, call: ReplayedCall | None, *, before: int | None, after: int | None) -> None:
        """Count a call; `call` says how it would have been another, None that it would not."""
        self.calls += 1
        if before is None or after is None:
            self.unknown += 1
        else:
            self.before += before
            self.after += after
        if call is None:
            return
        self.changed += 1
        if call.effect == "blocked":
            self.blocked[call.team][0] += 1
            self.blocked[call.team][1] += before or 0
        if len(self.listed) < MAX_LISTED:
            self.listed.append(call)
        else:
            self.not_listed += 1

    def report(self) -> ReplayReport:
        """Return the sums so far."""
        teams = sorted(self.blocked.items(), key=lambda each: (-each[1][1], each[0] or ""))
        return ReplayReport(
            calls=self.calls,
            cost_before_nusd=self.before,
            cost_after_nusd=self.after,
            saved_nusd=self.before - self.after,
            blocked_calls=sum(calls for _, (calls, _) in teams),
            blocked_cost_nusd=sum(cost for _, (_, cost) in teams),
            blocked_by_team=tuple(TeamBlocked(team, *found) for team, found in teams),
            changed_calls=self.changed,
            unknown_cost_calls=self.unknown,
            latency_change_ms_mean=round(self.latency_us / self.timed / 1_000, 1)
            if self.timed
            else None,
            latency_unknown_calls=self.untimed,
            listed=tuple(self.listed),
            not_listed=self.not_listed,
        )
