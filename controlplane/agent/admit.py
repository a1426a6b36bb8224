"""The decision on one request: pure, told the time, the policy and what the lease book has.

A hold is the call's ceiling (algorithms L1). What does not fit is, in this order, granted more
lease, capped to fit, made to wait a little, refused with the budget's name.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from controlplane.agent.bounds import Bound
from controlplane.core.money import format_usd
from controlplane.policy.ceiling import call_ceiling_nusd, output_tokens_within
from controlplane.policy.document import BudgetClause, Mode, PolicyDocument, RatePerMillion
from controlplane.policy.match import matches
from controlplane.policy.wire import Standing

USEFUL_OUTPUT_TOKENS: Final = 16
"""Fewer than this is no answer: a call is refused rather than capped below it."""
REFUND_SECONDS: Final = 5
"""When to come again while other calls run: about as long as one of them takes."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call was not admitted, in the words that its sender needs."""

    code: str
    reason: str
    status: int = 429
    rule: str | None = None
    budget: BudgetClause | None = None
    standing: Standing | None = None
    retry_after_seconds: int | None = None

    def body(self, *, request_id: str, policy: str) -> dict[str, object]:
        """Write the machine-readable answer; money in USD decimal strings."""
        body: dict[str, object] = {
            "code": self.code,
            "message": self.reason,
            "request_id": request_id,
            "policy_generation": policy,
        }
        if self.rule:
            body["rule"] = self.rule
        if self.budget:
            body["budget"] = _budget_body(self.budget, self.standing)
        return body


def _budget_body(budget: BudgetClause, standing: Standing | None) -> dict[str, object]:
    body: dict[str, object] = {
        "id": budget.id,
        "name": budget.name,
        "owner": budget.owner,
        "limit_usd": format_usd(budget.limit_nusd),
        "resets_at": budget.window_end.isoformat(),
    }
    if standing:
        spent = (
            standing.settled_enforced_nusd
            + standing.settled_unproven_nusd
            + standing.observed_unenforced_nusd
        )
        body["spent_usd"] = format_usd(spent)
        body["held_usd"] = format_usd(standing.leased_nusd)
        body["free_usd"] = format_usd(standing.free_nusd)
    return body


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a call must hold, and how far it may be cut; no budgets: nothing to hold."""

    amounts: dict[str, int] = {}  # budget id → its hold
    least: dict[str, int] = {}  # the same with the output cut to what is still useful
    held_nusd: int = 0
    output_tokens: int = 0
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
        if self.bound is None or self.rate is None:
            return None
        if any(fits.get(budget_id, 0) < least for budget_id, least in self.least.items()):
            return None
        output = output_tokens_within(
            self.rate,
            min(fits[budget_id] for budget_id in self.amounts),
            input_tokens=self.bound.input_tokens,
            choices=self.bound.choices,
        )
        output = min(output, self.output_tokens)
        held = _ceiling(self.rate, self.bound, output)
        return msgspec.structs.replace(
            self, amounts=dict.fromkeys(self.amounts, held), held_nusd=held, output_tokens=output
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
        max_output_tokens=max(rate.max_output_tokens for rate in rates)
        if all(rate.max_output_tokens for rate in rates)
        else 0,
    )


def dearest_of_provider(
    rate_card: Mapping[str, RatePerMillion], candidates: tuple[tuple[str, ...], ...]
) -> RatePerMillion | None:
    """Return the ceiling of everything that the candidates' providers have a rate for.

    A candidate that names no provider with a rate may be anybody's: then of the whole card.
    """
    named = {name.partition("/")[0] for names in candidates for name in names if "/" in name}
    of_provider = tuple((name,) for name in rate_card if name.partition("/")[0] in named)
    return dearest_rate(rate_card, of_provider or tuple((name,) for name in rate_card))


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
    if bound.unbounded:
        return Refusal(
            code="budget_unbounded_request",
            reason=f"the cost of this request has no bound ({bound.unbounded}) "
            f"and budget {hard[0].name!r} is hard",
            budget=hard[0],
        )
    rate = dearest_rate(document.rate_card, candidates)
    if rate is None:
        hard = [budget for budget in hard if budget.unpriced != "allow"]
        if not hard:
            return Claim()
        if all(budget.unpriced == "ceiling" for budget in hard):
            rate = dearest_of_provider(document.rate_card, candidates)
    if rate is None:
        blocking = next((budget for budget in hard if budget.unpriced == "block"), hard[0])
        name = candidates[0][0] if candidates else "this model"
        return Refusal(
            code="budget_unpriced_model",
            reason=f"budget {blocking.name!r} blocks models without a price; {name} has none",
            budget=blocking,
        )
    limits = (bound.output_tokens, cap_tokens)
    said = [limit for limit in limits if limit is not None]
    output = min(said) if said else rate.max_output_tokens
    if not said and not output:
        return Refusal(
            code="budget_no_output_limit",
            reason=f"budget {hard[0].name!r} is hard: set max_tokens on this request",
            budget=hard[0],
        )
    useful = min(output, USEFUL_OUTPUT_TOKENS) if bound.can_shrink else output
    held, least = _ceiling(rate, bound, output), _ceiling(rate, bound, useful)
    holding = hard if held else ()  # a free call has nothing to hold, however little is left
    return Claim(
        amounts={budget.id: held for budget in holding},
        least={budget.id: least for budget in holding},
        held_nusd=held,
        output_tokens=output,
        bound=bound,
        rate=rate,
    )


def _ceiling(rate: RatePerMillion, bound: Bound, output_tokens: int) -> int:
    return call_ceiling_nusd(
        rate,
        input_tokens=bound.input_tokens,
        output_tokens=output_tokens * bound.choices,
    )


def exhausted(
    budgets: tuple[BudgetClause, ...],
    standings: Mapping[str, Standing],
    held_nusd: int,
    *,
    now: datetime,
    may_free: bool,
) -> Refusal:
    """Name the budget that has the least left for a call of this ceiling.

    Args:
        budgets: those that the call counts against, one of them hard.
        standings: where their money is, as last told.
        held_nusd: the call's ceiling.
        now: aware UTC.
        may_free: whether calls still run whose end may give something back: then it is worth
            while to come again before the window ends.
    """

    def free(budget: BudgetClause) -> int:
        standing = standings.get(budget.id)
        return standing.free_nusd if standing else 0

    hard = [budget for budget in budgets if budget.mode is Mode.HARD]
    worst = min(hard, key=free)
    standing = standings.get(worst.id)
    return Refusal(
        code="budget_exhausted",
        reason=f"budget {worst.name!r} (owner {worst.owner}) has no room for this call: it may "
        f"cost up to ${format_usd(held_nusd)}; the budget resets at {worst.window_end.isoformat()}",
        budget=worst,
        standing=standing,
        retry_after_seconds=REFUND_SECONDS
        if may_free
        else max(1, math.ceil((worst.window_end - now).total_seconds())),
    )
