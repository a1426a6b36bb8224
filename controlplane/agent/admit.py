"""The decision on one request: pure, told the time, the policy and what the lease book has.

A hold is the call's ceiling (algorithms L1). What does not fit is, in this order, granted more
lease, capped to fit, made to wait a little, refused with the budget's name.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from controlplane.agent.bounds import Bound
from controlplane.agent.refusal import Refusal, resets_at
from controlplane.core.tokens import MAX_QUANTITY
from controlplane.policy.ceiling import call_ceiling_nusd, output_tokens_within
from controlplane.policy.document import BudgetClause, Mode, PolicyDocument, RatePerMillion
from controlplane.policy.match import matches
from controlplane.policy.units import Amount, BudgetUnit, say_amount
from controlplane.policy.wire import Standing

USEFUL_OUTPUT_TOKENS: Final = 16
"""Fewer than this is no answer: a call is refused rather than capped below it."""
REFUND_SECONDS: Final = 5
"""When to come again while other calls run, or the server is late: not when the window ends."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a call must hold, and how far it may be cut; no budgets: nothing to hold."""

    amounts: dict[str, int] = {}  # budget id → its hold, in its unit
    least: dict[str, int] = {}  # the same with the output cut to what is still useful
    units: dict[str, BudgetUnit] = {}
    held_nusd: int = 0  # of budgets in USD
    output_tokens: int = 0
    is_own_limit: bool = False
    """`output_tokens` is what the model can write at most: nothing has to be told to it."""
    bound: Bound | None = None
    rate: RatePerMillion | None = None

    @property
    def budget_ids(self) -> tuple[str, ...]:
        """The budgets that it is held against."""
        return tuple(self.amounts)

    def cut_to(self, fits: Mapping[str, int]) -> "Claim | None":
        """Return the claim with the output lowered so that it fits; None when that is useless.

        Args:
            fits: by budget, the largest hold that it could take.
        """
        if self.bound is None:
            return None
        if any(fits.get(budget_id, 0) < least for budget_id, least in self.least.items()):
            return None
        within = [
            _output_within(unit, self.rate, self.bound, fits=fits[budget_id])
            for budget_id, unit in self.units.items()
        ]
        output = min(self.output_tokens, *within)
        held = _hold(self.units, self.rate, self.bound, output_tokens=output)
        money = [amount for key, amount in held.items() if self.units[key] is BudgetUnit.USD]
        return msgspec.structs.replace(
            self,
            amounts=held,
            held_nusd=max(money, default=0),
            output_tokens=output,
            is_own_limit=self.is_own_limit and output == self.output_tokens,
        )


def dearest_rate(
    rate_card: Mapping[str, RatePerMillion], candidates: tuple[tuple[str, ...], ...]
) -> RatePerMillion | None:
    """Return the ceiling over every deployment that may serve the call.

    Args:
        rate_card: the policy's ceiling rates by model.
        candidates: per deployment, the names its model may have in the card, most exact first.

    Returns:
        None when a deployment has no rate: the whole call is then unpriced.
    """
    found = [_first(rate_card, names) for names in candidates]
    rates = [rate for rate in found if rate is not None]
    if not rates or len(rates) < len(found):
        return None
    return RatePerMillion(
        input_nusd=max(rate.input_nusd for rate in rates),
        output_nusd=max(rate.output_nusd for rate in rates),
        request_nusd=max(rate.request_nusd for rate in rates),
        max_output_tokens=_most(rate.max_output_tokens for rate in rates),
        context_tokens=_most(rate.context_tokens for rate in rates),
    )


def _most(limits: Iterable[int]) -> int:
    """Return the largest of limits; 0 when one is not known."""
    known = list(limits)
    return max(known) if all(known) else 0


def dearest_of_provider(
    document: PolicyDocument, candidates: tuple[tuple[str, ...], ...]
) -> RatePerMillion | None:
    """Return the ceiling of everything that the candidates' providers have a price for.

    A candidate that names no provider with a price may be anybody's: then of all providers.
    """
    card = document.provider_ceilings
    named = [{name.partition("/")[0] for name in names if "/" in name} for names in candidates]
    known = [providers & card.keys() for providers in named]
    found = set().union(*known) if known and all(known) else card.keys()
    return dearest_rate(card, tuple((name,) for name in found))


def with_parents(
    document: PolicyDocument, budgets: tuple[BudgetClause, ...]
) -> tuple[BudgetClause, ...]:
    """Return budgets and every one above them: a call is held at all of these levels or none."""
    by_id = {budget.id: budget for budget in document.budgets}
    found = {budget.id: budget for budget in budgets}
    above = [budget.parent for budget in budgets]
    while above:
        parent = by_id.get(above.pop() or "")
        if parent is not None and parent.id not in found:
            found[parent.id] = parent
            above.append(parent.parent)
    return tuple(found.values())


def count_unattributed(
    document: PolicyDocument, facts: Mapping[str, str]
) -> tuple[BudgetClause, ...] | Refusal:
    """Return the hard budgets that a request may belong to for all that it says of itself.

    A selector on a fact that the request lacks matches nothing; the budget says what that means:
    block, hold as if it matched (`ceiling`), or allow.
    """
    held = []
    for budget in document.budgets:
        if budget.unattributed == "allow" or budget.mode is not Mode.HARD:
            continue
        known = {key: values for key, values in budget.match.items() if key in facts}
        lacking = sorted(budget.match.keys() - known.keys())
        if not lacking or not matches(known, facts):
            continue
        if budget.unattributed == "block":
            return Refusal(
                code="budget_unattributed_request",
                reason=f"budget {budget.name!r} blocks requests that do not say their {lacking[0]}",
                budget=budget,
            )
        held.append(budget)
    return tuple(held)


def _first(
    rate_card: Mapping[str, RatePerMillion], names: tuple[str, ...]
) -> RatePerMillion | None:
    return next((rate_card[name] for name in names if name in rate_card), None)


def claim(
    document: PolicyDocument,
    budgets: tuple[BudgetClause, ...],
    bound: Bound,
    *,
    candidates: tuple[tuple[str, ...], ...],
    cap_tokens: int | None,
) -> Claim | Refusal:
    """Say what the call must hold against its hard budgets, or why that can not be said."""
    hard = [budget for budget in budgets if budget.mode is Mode.HARD]
    if not hard:
        return Claim()
    rate = dearest_rate(document.rate_card, candidates)
    sized = [budget for budget in hard if budget.unit is not BudgetUnit.REQUESTS]
    bound = _within_context(bound, rate)
    if bound.unbounded and sized:
        return Refusal(
            code="budget_unbounded_request",
            reason=f"the cost of this request has no bound ({bound.unbounded}) "
            f"and budget {sized[0].name!r} is hard",
            budget=sized[0],
        )
    found = _priced(document, hard, rate, candidates=candidates)
    if isinstance(found, Refusal):
        return found
    rate, hard = found
    if not hard:
        return Claim()
    limits = (bound.output_tokens, cap_tokens)
    said = [limit for limit in limits if limit is not None]
    output = max(min(said), bound.least_output_tokens) if said else _own_limit(rate)
    sized = [budget for budget in hard if budget.unit is not BudgetUnit.REQUESTS]
    if sized and not said and not output:
        return Refusal(
            code="budget_no_output_limit",
            reason=f"budget {sized[0].name!r} is hard: set max_tokens on this request",
            budget=sized[0],
        )
    units = {budget.id: budget.unit for budget in hard}
    held = _hold(units, rate, bound, output_tokens=output)
    if BudgetUnit.USD in units.values() and not _cost(rate, bound, output):
        # A free call has no money to hold, however little of it is left.
        held = {key: amount for key, amount in held.items() if units[key] is not BudgetUnit.USD}
    useful = min(output, USEFUL_OUTPUT_TOKENS) if bound.can_shrink else output
    least = _hold(units, rate, bound, output_tokens=useful)
    money = [amount for key, amount in held.items() if units[key] is BudgetUnit.USD]
    return Claim(
        amounts=held,
        least={budget_id: least[budget_id] for budget_id in held},
        units={budget_id: units[budget_id] for budget_id in held},
        held_nusd=max(money, default=0),
        output_tokens=output,
        is_own_limit=not said,
        bound=bound,
        rate=rate,
    )


def _within_context(bound: Bound, rate: RatePerMillion | None) -> Bound:
    """Bound what is read from elsewhere by the model's context window, where that is known (L3)."""
    if bound.from_elsewhere is None or bound.unbounded:
        return bound
    if rate is None or not rate.context_tokens:
        why = f"{bound.from_elsewhere}, and the model's context window is not known"
        return msgspec.structs.replace(bound, unbounded=why)
    # All prompts of a request together; each is a pass of its own.
    most = max(bound.input_tokens, rate.context_tokens)
    return msgspec.structs.replace(bound, input_tokens=most)


def _own_limit(rate: RatePerMillion | None) -> int:
    """Return what the model can write at most; 0: not known."""
    return (rate.max_output_tokens or rate.context_tokens) if rate else 0


def _priced(
    document: PolicyDocument,
    hard: list[BudgetClause],
    rate: RatePerMillion | None,
    *,
    candidates: tuple[tuple[str, ...], ...],
) -> tuple[RatePerMillion | None, list[BudgetClause]] | Refusal:
    """Return the rate to hold at, and the budgets to hold against: a model may have no price."""
    money = [budget for budget in hard if budget.unit is BudgetUnit.USD]
    if rate is not None or not money:
        return rate, hard
    hard = [one for one in hard if one.unit is not BudgetUnit.USD or one.unpriced != "allow"]
    money = [budget for budget in hard if budget.unit is BudgetUnit.USD]
    if not money:
        return None, hard
    if all(budget.unpriced == "ceiling" for budget in money):
        rate = dearest_of_provider(document, candidates)
    if rate is not None:
        return rate, hard
    blocking = next((budget for budget in money if budget.unpriced == "block"), money[0])
    name = candidates[0][0] if candidates else "this model"
    return Refusal(
        code="budget_unpriced_model",
        reason=f"budget {blocking.name!r} blocks models without a price; {name} has none",
        budget=blocking,
    )


def _hold(
    units: Mapping[str, BudgetUnit],
    rate: RatePerMillion | None,
    bound: Bound,
    *,
    output_tokens: int,
) -> dict[str, int]:
    """Return what a call of so much output holds of each budget, in its unit."""
    amount = Amount(
        _cost(rate, bound, output_tokens),
        bound.input_tokens + output_tokens * bound.choices,
        1,
    )
    return {budget_id: amount.of(unit) or 0 for budget_id, unit in units.items()}


def _cost(rate: RatePerMillion | None, bound: Bound, output_tokens: int) -> int:
    if rate is None:  # only where no budget is in USD
        return 0
    return call_ceiling_nusd(
        rate,
        input_tokens=bound.input_tokens,
        output_tokens=output_tokens * bound.choices,
    )


def _output_within(
    unit: BudgetUnit, rate: RatePerMillion | None, bound: Bound, *, fits: int
) -> int:
    """Return the largest output per choice that so much of the unit pays for."""
    if unit is BudgetUnit.TOKENS:
        return max(0, (fits - bound.input_tokens) // bound.choices)
    if unit is BudgetUnit.REQUESTS or rate is None:
        return MAX_QUANTITY
    return output_tokens_within(rate, fits, input_tokens=bound.input_tokens, choices=bound.choices)


def exhausted(
    budgets: tuple[BudgetClause, ...],
    standings: Mapping[str, Standing],
    amounts: Mapping[str, int],
    *,
    now: datetime,
    may_free: bool,
    recovering_until: datetime | None = None,
) -> Refusal:
    """Name the budget that has the least left for this call.

    Args:
        budgets: those that the call counts against, one of them hard.
        standings: where they are, as last told.
        amounts: by budget, what the call would hold.
        now: aware UTC.
        may_free: whether calls still run whose end may give something back: then it is worth
            while to come again before the window ends.
        recovering_until: when the server grants again, where its ledger was put back.
    """

    def fits(budget: BudgetClause) -> float:
        standing = standings.get(budget.id)
        return standing.free_nusd / max(1, amounts.get(budget.id, 0)) if standing else 0.0

    hard = [budget for budget in budgets if budget.mode is Mode.HARD]
    worst = min(hard, key=fits)
    standing = standings.get(worst.id)
    until = resets_at(worst, standing)
    if recovering_until is not None and recovering_until > now:
        return Refusal(
            code="budget_recovering",
            reason=f"the ledger of budget {worst.name!r} (owner {worst.owner}) was restored; "
            f"nothing is granted until {recovering_until.isoformat()}",
            status=503,
            budget=worst,
            standing=standing,
            retry_after_seconds=math.ceil((recovering_until - now).total_seconds()),
        )
    may_take = say_amount(worst.unit, amounts.get(worst.id, 0))
    when = (
        f"it counts the last {worst.rolling}"
        if worst.rolling
        else f"the budget resets at {until.isoformat()}"
    )
    verb = "cost" if worst.unit is BudgetUnit.USD else "take"
    return Refusal(
        code="budget_exhausted",
        reason=f"budget {worst.name!r} (owner {worst.owner}) has no room for this call: it may "
        f"{verb} up to {may_take}; {when}",
        budget=worst,
        standing=standing,
        retry_after_seconds=REFUND_SECONDS
        if may_free
        else max(1, math.ceil((until - now).total_seconds())),
    )


def unanswered(refusal: Refusal) -> Refusal:
    """Say of an empty budget that nobody answers who could grant more of it."""
    if refusal.code != "budget_exhausted":
        return refusal
    why = "the control plane has not answered of late, so no more of the budget can be leased now"
    return msgspec.structs.replace(
        refusal, reason=f"{refusal.reason}; {why}", retry_after_seconds=REFUND_SECONDS
    )
