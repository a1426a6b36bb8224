"""Which price a model has at an instant, and how it was found."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Context, Decimal
from typing import Final

import msgspec
from litestar import Controller, get

from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError, NotFoundError
from controlplane.core.money import NUSD_PER_USD, format_usd
from controlplane.pipelines.watch_unpriced import unpriced_usage
from controlplane.pricing.coverage import (
    CostRange,
    RangeEstimator,
    UnpricedUsage,
    coverage_ratio,
)
from controlplane.pricing.price_book import NotFound
from controlplane.pricing.rates import PriceRow, Rate
from controlplane.signals.queries import CostQuery
from controlplane.usage.dimensions import MEASURES

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


class UnpricedView(msgspec.Struct, frozen=True, kw_only=True):
    """Usage without a price, and between what it may cost."""

    provider: str | None
    model: str | None
    reason: str | None
    wants_a_price: bool
    calls: int
    input_tokens: int
    output_tokens: int
    low_usd: str | None
    high_usd: str | None
    basis: str | None


class CoverageView(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a window's tokens that has a price."""

    start: datetime
    end: datetime
    calls: int
    unpriced_calls: int
    tokens: int
    unpriced_tokens: int
    coverage_ratio: float | None
    low_usd: str
    high_usd: str
    unpriced: list[UnpricedView]
    price_book_version: str


class PriceController(Controller):
    """`/api/v1/prices`."""

    path = "/api/v1/prices"
    tags: Sequence[str] | None = ("prices",)

    @get(
        "/coverage",
        **needs(Scope.COSTS_READ),
        sync_to_thread=True,
        operation_class=documented(p.WINDOW),
    )
    def coverage(self, request: ApiRequest, services: Injected) -> CoverageView:
        """Answer how much of the usage has a price, and between what the rest may cost."""
        given = p.read(request.query_params.multi_items(), params=p.WINDOW)
        now = services.clock.now()
        zone = p.zone(given, services.zone)
        window = p.window(given, now=now, in_zone=zone, calendar=services.calendar)
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        total = services.reader.costs(CostQuery(tenants=tenants, window=window)).to_pylist()
        sums = total[0] if total else dict.fromkeys(MEASURES, 0)
        tokens = sums["input_tokens"] + sums["output_tokens"]
        estimator = RangeEstimator(services.prices.current(), now)
        usage = unpriced_usage(services.reader, tenants, window)
        ranged = [estimator.estimate(one) if one.wants_a_price else None for one in usage]
        return CoverageView(
            start=window.start,
            end=window.end,
            calls=sums["calls"],
            unpriced_calls=sums["unpriced_calls"],
            tokens=tokens,
            unpriced_tokens=sums["unpriced_tokens"],
            coverage_ratio=coverage_ratio(tokens, sums["unpriced_tokens"]),
            low_usd=format_usd(sum(one.low_nusd for one in ranged if one)),
            high_usd=format_usd(sum(one.high_nusd for one in ranged if one)),
            unpriced=[_unpriced(one, r) for one, r in zip(usage, ranged, strict=True)],
            price_book_version=services.prices.version,
        )

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


def _unpriced(usage: UnpricedUsage, ranged: CostRange | None) -> UnpricedView:
    return UnpricedView(
        provider=usage.provider,
        model=usage.model,
        reason=usage.reason,
        wants_a_price=usage.wants_a_price,
        calls=usage.calls,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        low_usd=format_usd(ranged.low_nusd) if ranged else None,
        high_usd=format_usd(ranged.high_nusd) if ranged else None,
        basis=ranged.basis if ranged else None,
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
