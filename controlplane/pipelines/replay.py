"""What would have been: recorded calls → decided by proposed rules, budgets and prices → a report.

Dry: nothing is kept. A call is decided with the code that decides live calls; what can not be known
from a record is an assumption, and the report states it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec
import pyarrow as pa

from controlplane.budgets.budget import Budget
from controlplane.core.errors import LimitExceededError
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.pipelines.replay_budgets import ProposedBudgets
from controlplane.policy.assign import assign
from controlplane.policy.decide import Decision, RuleIndex, Shape, decide
from controlplane.policy.document import PolicyDocument
from controlplane.policy.quota import ThrottleState
from controlplane.policy.rules import Deployment
from controlplane.policy.units import Amount, used_tokens

MAX_CALLS: Final = 1_000_000
MAX_LISTED: Final = 10_000
OUTPUT_BUCKETS: Final = ("output_text", "output_reasoning")
ASSUMPTIONS: Final = (
    "Calls that were refused at the time are not in the records, so nothing is known of them.",
    "A call on another model uses the tokens it used on its own, and its answer is as good.",
    "A call on another model takes as long as that model's recorded calls took on average.",
    "A lowered output limit cuts the answer there; nothing is asked again.",
    "A blocked call is not retried, and costs nothing.",
    "A hard budget admits a call while what was spent before it, and it, fit the limit.",
)
FACTS: Final = (
    "tenant",
    "team",
    "project",
    "feature",
    "customer",
    "user_id",
    "api_key",
    "environment",
    "provider",
    "operation",
)
COLUMNS: Final = (
    "call_id",
    "start_time",
    "duration_us",
    "billing_model",
    "response_model",
    "request_model",
    "service_tier",
    "is_stream",
    "input_tokens",
    "output_tokens",
    "cost_nusd",
    *FACTS,
    *BUCKET_NAMES,
)


class PriceCall(Protocol):
    """The prices a replay asks."""

    def __call__(
        self,
        *,
        provider: str | None,
        model: str,
        at: datetime,
        usage: Mapping[str, int],
        service_tier: str,
    ) -> int | None:
        """Return nano-USD; None: no price is known."""
        ...


Batches = Callable[[], Iterator[pa.Table]]
"""Every recorded call of the window, oldest first; asked for twice."""


class Proposed(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be tried; each part alone or together."""

    document: PolicyDocument | None = None
    deployments: Mapping[str, Deployment] = {}
    budgets: tuple[Budget, ...] = ()
    price: PriceCall | None = None
    """Proposed prices; None: every call keeps the cost it has while its model is the same."""


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


class _Tally:
    """Sums of a replay in the making."""

    def __init__(self) -> None:
        self.calls = self.before = self.after = self.changed = self.unknown = 0
        self.blocked: dict[str | None, list[int]] = defaultdict(lambda: [0, 0])
        self.listed: list[ReplayedCall] = []
        self.not_listed = self.latency_us = self.timed = self.untimed = 0

    def add(self, call: ReplayedCall | None, *, before: int | None, after: int | None) -> None:
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


def replay(batches: Batches, proposed: Proposed, *, price: PriceCall) -> ReplayReport:
    """Run a proposal over recorded calls, in the order they were made.

    Args:
        batches: the calls.
        proposed: what to try.
        price: the prices in force, for calls whose model or length changes.

    Raises:
        LimitExceededError: more than MAX_CALLS calls.
    """
    latencies = _mean_latencies(batches())
    player = _Player(proposed, price=price, latencies=latencies)
    for table in batches():
        for call in table.select(list(COLUMNS)).to_pylist():
            player.play(call)
    return player.tally.report()


def _mean_latencies(tables: Iterator[pa.Table]) -> dict[str, float]:
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    calls = 0
    for table in tables:
        calls += table.num_rows
        if calls > MAX_CALLS:
            raise LimitExceededError("calls of a replay", MAX_CALLS)
        columns = ("billing_model", "response_model", "request_model", "duration_us")
        for call in table.select(list(columns)).to_pylist():
            found = sums[_model(call)]
            found[0] += call["duration_us"]
            found[1] += 1
    return {model: total / count for model, (total, count) in sums.items()}


class _Player:
    """The state that calls share: quotas, and what budgets have spent."""

    def __init__(
        self, proposed: Proposed, *, price: PriceCall, latencies: Mapping[str, float]
    ) -> None:
        self._proposed = proposed
        self._price = proposed.price or price
        self._latencies = latencies
        self._throttle = ThrottleState()
        self._index = RuleIndex(proposed.document.rules if proposed.document else ())
        self._budgets = ProposedBudgets(proposed.budgets)
        self.tally = _Tally()

    def play(self, call: Mapping[str, Any]) -> None:
        """Decide one call as the proposal would."""
        model, before = _model(call), call["cost_nusd"]
        facts = {name: call[name] for name in FACTS if call[name] is not None} | {"model": model}
        decision = self._decide(call, facts)
        if decision.refused_by:
            self._blocked(call, decision.refused_by.id)
            return
        new_model = self._new_model(decision, call, model)
        after, effect, by = self._cost(call, decision, new_model=new_model)
        facts["model"] = new_model
        refusing = self._budgets.refusing(call, facts, _amount(call, decision, after))
        if refusing:
            self._blocked(call, refusing)
            return
        changed = None
        if effect:
            changed = _listed(call, effect=effect, by=by, new_cost=after)
            if new_model != model:
                changed = msgspec.structs.replace(changed, new_model=new_model)
                self._time(call, new_model)
        self.tally.add(changed, before=before, after=after)

    def _decide(self, call: Mapping[str, Any], facts: Mapping[str, str]) -> Decision:
        document = self._proposed.document
        if document is None:
            return Decision()
        return decide(
            document,
            facts,
            call["start_time"],
            throttle=self._throttle,
            used_ratio=self._ratios(document, call["start_time"]),
            shape=Shape(
                unit=call["call_id"],
                input_tokens=call["input_tokens"],
                output_tokens=call["output_tokens"],
                stream=call["is_stream"],
            ),
            index=self._index,
        )

    def _ratios(self, document: PolicyDocument, at: datetime) -> dict[str, float]:
        """Return how much of each budget is spent: in the replay where it is proposed there."""
        own = self._budgets.ratios(at)
        return {each.id: own[each.id] for each in document.budgets if each.id in own}

    def _new_model(self, decision: Decision, call: Mapping[str, Any], model: str) -> str:
        chosen = decision.model or model
        if decision.route and decision.weights:
            sticky = decision.route.sticky
            unit = (call.get(sticky) if sticky else None) or call["call_id"]
            chosen = assign(decision.route.id, str(unit), decision.weights)
        deployment = self._proposed.deployments.get(chosen)
        return deployment.model if deployment else chosen

    def _cost(
        self, call: Mapping[str, Any], decision: Decision, *, new_model: str
    ) -> tuple[int | None, str, str]:
        """Return the cost, what changed, and who says so."""
        usage, cut = _usages(call, decision)
        is_other = new_model != _model(call)
        if not is_other and cut == usage and self._proposed.price is None:
            return call["cost_nusd"], "", ""
        deployment = next(
            (each for each in self._proposed.deployments.values() if each.model == new_model), None
        )
        provider = deployment.provider if deployment and is_other else None
        if not is_other:
            provider = call["provider"]
        cost = self._price(
            provider=provider,
            model=new_model,
            at=call["start_time"],
            usage=cut,
            service_tier=call["service_tier"] or "",
        )
        if is_other:
            rules = (decision.route, decision.downgrade, decision.experiment, decision.canary)
            by = next((rule.id for rule in rules if rule), "")
            return cost, "model", by
        if cut != usage:
            return cost, "cap", decision.cap.id if decision.cap else ""
        return cost, "price" if cost != call["cost_nusd"] else "", ""

    def _blocked(self, call: Mapping[str, Any], by: str) -> None:
        listed = _listed(call, effect="blocked", by=by, new_cost=0)
        self.tally.add(listed, before=call["cost_nusd"], after=0)

    def _time(self, call: Mapping[str, Any], new_model: str) -> None:
        expected = self._latencies.get(new_model)
        usual = self._latencies.get(_model(call))
        if expected is None or not usual:
            self.tally.untimed += 1
            return
        self.tally.timed += 1
        self.tally.latency_us += round(call["duration_us"] * expected / usual - call["duration_us"])


def _usages(
    call: Mapping[str, Any], decision: Decision
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Return what a call used, and what it would have used."""
    usage = {name: call[name] for name in BUCKET_NAMES if call[name]}
    return usage, _cut(usage, decision.cap.max_tokens if decision.cap else None)


def _amount(call: Mapping[str, Any], decision: Decision, cost_nusd: int | None) -> Amount:
    """Return what a call would have come to in every unit."""
    return Amount(cost_nusd, used_tokens(_usages(call, decision)[1]), 1)


def _cut(usage: Mapping[str, int], cap: int | None) -> dict[str, int]:
    """Return the buckets with at most `cap` tokens of output; thoughts come before words."""
    if cap is None:
        return dict(usage)
    kept = dict(usage)
    left = cap
    for name in reversed(OUTPUT_BUCKETS):
        if name in kept:
            kept[name] = min(kept[name], left)
            left -= kept[name]
    return {name: quantity for name, quantity in kept.items() if quantity}


def _model(call: Mapping[str, Any]) -> str:
    return call["billing_model"] or call["response_model"] or call["request_model"] or ""


def _listed(call: Mapping[str, Any], *, effect: str, by: str, new_cost: int | None) -> ReplayedCall:
    return ReplayedCall(
        call_id=call["call_id"],
        start_time=call["start_time"],
        tenant=call["tenant"],
        team=call["team"],
        model=_model(call),
        effect=effect,
        by=by,
        new_model=None,
        cost_nusd=call["cost_nusd"],
        new_cost_nusd=new_cost,
    )


class Rerouted(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that asked for one model and were served by another."""

    team: str | None
    asked_model: str
    served_model: str
    calls: int
    cost_nusd: int
    counterfactual_nusd: int
    saved_nusd: int


class SavingsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What routing has saved against the models that were asked for."""

    calls: int
    rerouted_calls: int
    saved_nusd: int
    unknown_calls: int
    """Rerouted calls without a price for one of the two models."""
    rows: tuple[Rerouted, ...]
    assumptions: tuple[str, ...] = (
        "The counterfactual: the same tokens at the asked model's price at the time of the call.",
        "The other model would have used as many tokens, and its answer would have been as good.",
        "Names that are priced alike (a version and its alias) count as rerouted with no saving.",
        "Calls that were refused or whose output was capped are not in it.",
    )


def savings(tables: Iterator[pa.Table], *, price: PriceCall) -> SavingsReport:
    """Compare what calls cost with what they would have on the model that was asked for."""
    found: dict[tuple[str | None, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    calls = unknown = rerouted = 0
    for table in tables:
        calls += table.num_rows
        for call in table.select(list(COLUMNS)).to_pylist():
            asked, served = call["request_model"], _model(call)
            if not asked or asked == served:
                continue
            rerouted += 1
            usage = {name: call[name] for name in BUCKET_NAMES if call[name]}
            other = price(
                provider=None,
                model=asked,
                at=call["start_time"],
                usage=usage,
                service_tier=call["service_tier"] or "",
            )
            if other is None or call["cost_nusd"] is None:
                unknown += 1
                continue
            row = found[call["team"], asked, served]
            row[0] += 1
            row[1] += call["cost_nusd"]
            row[2] += other
    rows = [
        Rerouted(
            team=team,
            asked_model=asked,
            served_model=served,
            calls=count,
            cost_nusd=cost,
            counterfactual_nusd=other,
            saved_nusd=other - cost,
        )
        for (team, asked, served), (count, cost, other) in found.items()
    ]
    rows.sort(key=lambda row: (-row.saved_nusd, row.team or "", row.asked_model, row.served_model))
    return SavingsReport(
        calls=calls,
        rerouted_calls=rerouted,
        saved_nusd=sum(row.saved_nusd for row in rows),
        unknown_calls=unknown,
        rows=tuple(rows),
    )
