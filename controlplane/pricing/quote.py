"""One call, row by row: the line items that `controlplane price` and a settle show."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

import msgspec

from controlplane.core.errors import InvalidInputError
from controlplane.core.money import MAX_NUSD
from controlplane.core.tokens import (
    BUCKET_NAMES,
    INPUT_BUCKETS,
    MAX_QUANTITY,
    ImpossibleUsageError,
    ReportedUsage,
    decompose,
)
from controlplane.pricing.price import PER_CALL, provenance_of
from controlplane.pricing.price_book import Found, NotFound, tier_stands_in
from controlplane.pricing.rates import Rate, Tier
from controlplane.signals.vocabulary import CostState, PriceProvenance


class Finder(Protocol):
    """Whatever knows a model's prices."""

    def find(self, provider: str | None, model: str | None) -> Found:
        """Return a model's rows, or why there are none."""
        ...


class LineItem(msgspec.Struct, frozen=True):
    """One bucket's part of a call's cost."""

    bucket: str
    quantity: int
    rate_nusd: str
    cost_nusd: int


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """What a call costs; `total_nusd` None with a reason when that is not known."""

    cost_state: CostState
    total_nusd: int | None = None
    cost_reason: str | None = None
    price_id: str | None = None
    price_provenance: PriceProvenance | None = None
    line_items: tuple[LineItem, ...] = ()


def usage_buckets(said: Mapping[str, int]) -> dict[str, int]:
    """Read usage in report names (`input_tokens` is the total) or bucket names, not both at once.

    Raises:
        InvalidInputError: an unknown name, a mix of both, or numbers that do not decompose.
    """
    reported = set(ReportedUsage.__struct_fields__)
    for name, quantity in said.items():
        if name not in reported and name not in BUCKET_NAMES:
            known = ", ".join([*sorted(reported), *BUCKET_NAMES])
            raise InvalidInputError(f"usage.{name}", "is not a usage name", f"Known: {known}")
        if not 0 <= quantity <= MAX_QUANTITY:
            raise InvalidInputError(f"usage.{name}", f"{quantity} is not in 0 to 2^40")
    totals = {name: quantity for name, quantity in said.items() if name in reported}
    buckets = {name: quantity for name, quantity in said.items() if name not in reported}
    overlap = buckets.keys() & {*INPUT_BUCKETS, "output_text", "output_reasoning"}
    if totals and overlap:
        raise InvalidInputError(
            f"usage.{min(overlap)}",
            "a bucket beside totals that contain it",
            "Give one or the other",
        )
    try:
        return {**decompose(ReportedUsage(**totals)), **buckets}
    except ImpossibleUsageError as wrong:
        raise InvalidInputError("usage", str(wrong), "A part can not exceed its whole") from None


def quote(
    book: Finder,
    *,
    provider: str | None,
    model: str | None,
    at: datetime,
    usage: Mapping[str, int],
    service_tier: str = "",
) -> Quote:
    """Price one call's exclusive buckets."""
    found = book.find(provider, model)
    if isinstance(found, NotFound):
        return Quote(cost_state=CostState.UNPRICED, cost_reason=found.reason)
    row = found.at(at, service_tier)
    if row is None:
        return Quote(cost_state=CostState.UNPRICED, cost_reason="no_price_at_time")
    total_input = sum(usage.get(bucket, 0) for bucket in INPUT_BUCKETS)
    tier = [tier for tier in row.tiers if total_input > tier.above_input_tokens][-1]
    provenance = provenance_of(row, found, is_context_tier=tier is not row.tiers[0])
    not_as_asked = tier_stands_in(row, service_tier)
    return _with_items(
        tier,
        usage,
        Quote(cost_state=CostState.PRICED, price_id=row.price_id, price_provenance=provenance),
        tier_reason=f"no_tier_rate:{service_tier}" if not_as_asked else None,
    )


def _with_items(
    tier: Tier, usage: Mapping[str, int], quote: Quote, *, tier_reason: str | None
) -> Quote:
    quantities = {bucket: usage.get(bucket, 0) for bucket in BUCKET_NAMES}
    if PER_CALL in tier.rates:
        quantities[PER_CALL] = max(1, quantities[PER_CALL])
    used = {bucket: quantity for bucket, quantity in quantities.items() if quantity}
    missing = next((bucket for bucket in used if bucket not in tier.rates), None)
    if missing:
        return msgspec.structs.replace(
            quote, cost_state=CostState.UNPRICED, cost_reason=f"missing_rate:{missing}"
        )
    items = tuple(_item(bucket, q, tier.rates[bucket]) for bucket, q in used.items())
    total = sum(item.cost_nusd for item in items)
    if total > MAX_NUSD:
        return msgspec.structs.replace(
            quote, cost_state=CostState.UNPRICED, cost_reason="cost_out_of_range"
        )
    stood_in = next((bucket for bucket in used if tier.rates[bucket].stand_in), None)
    paid = any(tier.rates[bucket].numerator for bucket in used)
    reason = f"no_own_rate:{stood_in}" if stood_in else tier_reason
    return msgspec.structs.replace(
        quote,
        cost_state=CostState.PRICED if paid else CostState.FREE,
        cost_reason=reason,
        price_provenance=PriceProvenance.FALLBACK if reason else quote.price_provenance,
        total_nusd=total,
        line_items=items,
    )


def _item(bucket: str, quantity: int, rate: Rate) -> LineItem:
    shown = f"{rate.numerator}/{rate.denominator}" if rate.denominator > 1 else str(rate.numerator)
    return LineItem(bucket, quantity, shown, rate.cost_nusd(quantity))
