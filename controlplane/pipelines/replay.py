"""What would have been: recorded calls → decided by proposed rules, budgets and prices → a report.

Dry: nothing is kept. A call is decided with the code that decides live calls; what can not be known
from a record is an assumption, and the report states it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
import pyarrow as pa

from controlplane.budgets.budget import Budget
from controlplane.core.errors import LimitExceededError
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.pipelines.recorded_calls import COLUMNS, Batches, PriceCall, model_of
from controlplane.pipelines.replay_budgets import ProposedBudgets
from controlplane.pipelines.replay_report import ReplayedCall, ReplayReport, Tally
from controlplane.policy.assign import assign
from controlplane.policy.decide import Decision, RuleIndex, Shape, decide
from controlplane.policy.document import CALL_FACTS, PolicyDocument
from controlplane.policy.quota import ThrottleState
from controlplane.policy.rules import Deployment
from controlplane.policy.units import Amount, used_tokens

MAX_CALLS: Final = 1_000_000
OUTPUT_BUCKETS: Final = ("output_text", "output_reasoning")


class Proposed(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be tried; each part alone or together."""

    document: PolicyDocument | None = None
    deployments: Mapping[str, Deployment] = {}
    budgets: tuple[Budget, ...] = ()
    price: PriceCall | None = None
    """Proposed prices; None: every call keeps the cost it has while its model is the same."""


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
            found = sums[model_of(call)]
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
        self.tally = Tally()

    def play(self, call: Mapping[str, Any]) -> None:
        """Decide one call as the proposal would."""
        model, before = model_of(call), call["cost_nusd"]
        facts = {name: call[name] for name in CALL_FACTS if call[name] is not None} | {
            "model": model
        }
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
        is_other = new_model != model_of(call)
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
        usual = self._latencies.get(model_of(call))
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


def _listed(call: Mapping[str, Any], *, effect: str, by: str, new_cost: int | None) -> ReplayedCall:
    return ReplayedCall(
        call_id=call["call_id"],
        start_time=call["start_time"],
        tenant=call["tenant"],
        team=call["team"],
        model=model_of(call),
        effect=effect,
        by=by,
        new_model=None,
        cost_nusd=call["cost_nusd"],
        new_cost_nusd=new_cost,
    )
