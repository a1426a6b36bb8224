"""The dearest a call can become: what agents hold against budgets (algorithms L4)."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from controlplane.core.tokens import INPUT_BUCKETS, OUTPUT_BUCKETS
from controlplane.policy.document import RatePerMillion
from controlplane.pricing.model_limits import limits_of
from controlplane.pricing.price import PER_CALL
from controlplane.pricing.price_book import ModelPrices, NotFound, PriceBook
from controlplane.pricing.rates import PriceRow, Rate


def ceiling_rates(
    book: PriceBook, models: Iterable[tuple[str, str]], *, at: datetime, horizon: timedelta
) -> dict[str, RatePerMillion]:
    """Return the ceiling of each (provider, model) that has a price, keyed `provider/model`.

    A ceiling is the maximum over every row that can apply in `[at, at + horizon]`, every context
    tier, and every bucket of its direction: cache writes and long contexts are dearer than input.
    Priority service tiers are left out: an agent refuses requests that ask for one.
    """
    ceilings = {}
    for provider, model in models:
        found = book.find(provider, model)
        if isinstance(found, NotFound):
            continue
        rates = [
            item
            for row in found.rows
            if not row.service_tier and _reachable(row, found, at=at, end=at + horizon)
            for tier in row.tiers
            for item in tier.rates.items()
        ]
        if rates:
            limits = limits_of(found.provider, found.model)
            ceilings[f"{provider}/{model}"] = RatePerMillion(
                input_nusd=_dearest(rates, INPUT_BUCKETS),
                output_nusd=_dearest(rates, OUTPUT_BUCKETS),
                request_nusd=-(-_dearest(rates, (PER_CALL,)) // 1_000_000),
                max_output_tokens=limits.output_tokens,
                context_tokens=limits.context_tokens,
            )
    return ceilings


def provider_ceilings(rates: Mapping[str, RatePerMillion]) -> dict[str, RatePerMillion]:
    """Return the ceiling of every provider's dearest model, for `unpriced: ceiling` budgets.

    It is what a model that the list does not know may cost at most, if the provider sells nothing
    dearer than what is listed.
    """
    ceilings: dict[str, RatePerMillion] = {}
    for name, rate in rates.items():
        provider = name.partition("/")[0]
        known = ceilings.get(provider, rate)
        ceilings[provider] = RatePerMillion(
            input_nusd=max(known.input_nusd, rate.input_nusd),
            output_nusd=max(known.output_nusd, rate.output_nusd),
            request_nusd=max(known.request_nusd, rate.request_nusd),
        )
    return ceilings


def _reachable(row: PriceRow, prices: ModelPrices, *, at: datetime, end: datetime) -> bool:
    """Whether a row can apply between two instants; hours of the day always can."""
    since = row.validity.since
    starts_inside = since is not None and at.date() < since <= end.date()
    by_hour = row.validity.daily_from != row.validity.daily_to
    return by_hour or starts_inside or row is prices.at(at)


def _dearest(rates: list[tuple[str, Rate]], buckets: tuple[str, ...]) -> int:
    return max((rate.nusd_per_million() for bucket, rate in rates if bucket in buckets), default=0)
