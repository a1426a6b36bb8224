"""How much of the usage has a price, and between what the rest may cost.

Coverage is of tokens: `1 - unpriced tokens / tokens`. The range of what has no price is a statement
about the price list, not a guess at one model: as if every token had cost what the cheapest, and what
the dearest, model of the same provider costs today (of all providers, where the provider has no list).
"""

from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction
from typing import Final

import msgspec

from controlplane.pricing.price_book import NotFound, PriceBook
from controlplane.pricing.providers import price_provider
from controlplane.pricing.rates import Rate

NOT_A_PRICE: Final = ("unknown_usage", "impossible_usage", "failed")
"""Reasons that no price list can mend: the usage itself is not known."""


class UnpricedUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Calls of one model that have no price, for one reason."""

    provider: str | None
    model: str | None
    reason: str | None
    calls: int
    input_tokens: int
    output_tokens: int

    @property
    def wants_a_price(self) -> bool:
        """Whether a price would make the calls priced."""
        return not (self.reason or "").startswith(NOT_A_PRICE)


class CostRange(msgspec.Struct, frozen=True, kw_only=True):
    """Between what a usage may cost; `basis` says which models' prices bound it."""

    low_nusd: int
    high_nusd: int
    basis: str


class RangeEstimator:
    """Bounds what unpriced usage may cost by the prices of an instant; compiled once a provider."""

    def __init__(self, book: PriceBook, at: datetime) -> None:
        self._book = book
        self._at = at
        self._bounds: dict[str | None, tuple[tuple[Rate, Rate], tuple[Rate, Rate]] | None] = {}

    def estimate(self, usage: UnpricedUsage) -> CostRange | None:
        """Return the range; None where the price list has no model to compare with."""
        provider = price_provider(usage.provider) if usage.provider else None
        own = self._bound(provider) if provider else None
        bounds = own or self._bound(None)
        if bounds is None:
            return None
        (low_in, high_in), (low_out, high_out) = bounds
        return CostRange(
            low_nusd=low_in.cost_nusd(usage.input_tokens) + low_out.cost_nusd(usage.output_tokens),
            high_nusd=high_in.cost_nusd(usage.input_tokens)
            + high_out.cost_nusd(usage.output_tokens),
            basis=f"cheapest and dearest model of {provider if own else 'every provider'}",
        )

    def _bound(self, provider: str | None) -> tuple[tuple[Rate, Rate], tuple[Rate, Rate]] | None:
        if provider not in self._bounds:
            names = [n for n in self._book.names() if provider is None or n[0] == provider]
            self._bounds[provider] = self._compile(names)
        return self._bounds[provider]

    def _compile(
        self, names: Iterable[tuple[str, str]]
    ) -> tuple[tuple[Rate, Rate], tuple[Rate, Rate]] | None:
        """Take the base rates of models that take and make text, and are not free."""
        rates: tuple[list[Rate], list[Rate]] = ([], [])
        for provider, model in names:
            found = self._book.find(provider, model)
            row = None if isinstance(found, NotFound) else found.at(self._at)
            listed = row.tiers[0].rates if row else {}
            fresh, text = listed.get("input_uncached"), listed.get("output_text")
            if fresh and text and fresh.numerator and text.numerator:
                rates[0].append(fresh)
                rates[1].append(text)
        if not rates[0]:
            return None
        inputs, outputs = (sorted(listed, key=_per_unit) for listed in rates)
        return (inputs[0], inputs[-1]), (outputs[0], outputs[-1])


def _per_unit(rate: Rate) -> Fraction:
    return Fraction(rate.numerator, rate.denominator)


def coverage_ratio(tokens: int, unpriced_tokens: int) -> float | None:
    """Return the part of the tokens that has a price; None where there are none."""
    return None if tokens == 0 else (tokens - unpriced_tokens) / tokens
