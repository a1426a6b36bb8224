"""Which price a model has at an instant, and how it was found."""

from collections.abc import Sequence
from datetime import date
from decimal import Context, Decimal
from typing import Final

import msgspec
from litestar import Controller, get

from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError, NotFoundError
from controlplane.core.money import NUSD_PER_USD
from controlplane.pricing.price_book import NotFound
from controlplane.pricing.rates import PriceRow, Rate

PROVIDER = p.Param("provider", "`gen_ai.provider.name` or the price book's own name", "openai")
MODEL = p.Param("model", "The model as called", "gpt-4o")
AT = p.Param("at", "Instant of the call, RFC 3339; default now")
PER_MILLION: Final = 1_000_000
_EXACT: Final = Context(prec=60)


class RateView(msgspec.Struct, frozen=True):
    """A bucket's rate as an exact decimal of USD per million units.

    A stand-in is a wider bucket's rate where the source has none of the bucket's own.
    """

    bucket: str
    usd_per_million: str
    is_stand_in: bool


class TierView(msgspec.Struct, frozen=True):
    """Rates of calls whose input is above `above_input_tokens`; -1 is every call."""

    above_input_tokens: int
    rates: tuple[RateView, ...]


class PriceView(msgspec.Struct, frozen=True, kw_only=True):
    """The row that prices a call, and where it came from."""

    provider: str
    model: str
    provenance: str
    price_id: str
    valid_from: date | None
    valid_to: date | None
    tiers: tuple[TierView, ...]
    price_book_version: str
    currency: str = "USD"


class PriceController(Controller):
    """`/api/v1/prices`."""

    path = "/api/v1/prices"
    tags: Sequence[str] | None = ("prices",)

    @get(
        "/",
        **needs(Scope.PRICES_READ, 404),
        sync_to_thread=True,
        operation_class=documented((PROVIDER, MODEL, AT)),
    )
    def price(self, request: ApiRequest, services: Injected) -> PriceView:
        """Answer the price of a model; an unknown one is not found, never zero."""
        given = p.read(request.query_params.multi_items(), params=(PROVIDER, MODEL, AT))
        model = p.one(given, "model")
        if not model:
            raise InvalidInputError("model", "missing", "Name the model, as in model=gpt-4o")
        told = p.one(given, "at")
        at = services.clock.now() if told is None else p.instant("at", told)
        provider = p.one(given, "provider")
        found = services.prices.find(provider, model)
        named = f"{provider}/{model}" if provider else model
        if isinstance(found, NotFound):
            raise NotFoundError(*_nothing(named, found.reason))
        row = found.at(at)
        if row is None:
            raise NotFoundError(*_nothing(named, "no_price_at_time"))
        return PriceView(
            provider=found.provider,
            model=found.model,
            provenance=found.provenance.value,
            price_id=row.price_id,
            valid_from=row.validity.since,
            valid_to=row.validity.until,
            tiers=_tiers(row),
            price_book_version=services.prices.version,
        )


def _nothing(named: str, reason: str) -> tuple[str, str, str]:
    return "model", named, f"Its calls are unpriced ({reason}); add it to `price_overrides`"


def _tiers(row: PriceRow) -> tuple[TierView, ...]:
    return tuple(
        TierView(
            tier.above_input_tokens,
            tuple(
                RateView(bucket, usd_per_million(rate), rate.stand_in)
                for bucket, rate in sorted(tier.rates.items())
            ),
        )
        for tier in row.tiers
    )


def usd_per_million(rate: Rate) -> str:
    """Write a rate exactly; sources give finite decimals, and a per-unit power of ten keeps them."""
    nano = _EXACT.multiply(Decimal(rate.numerator), Decimal(PER_MILLION))
    usd = _EXACT.divide(nano, Decimal(rate.denominator * NUSD_PER_USD))
    return format(usd.normalize(_EXACT), "f")
