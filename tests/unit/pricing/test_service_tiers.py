"""Batch, flex and priority: the tier that served a call decides its rate, and a lack is said."""

from datetime import UTC, date, datetime, time
from decimal import Decimal

import pytest
from genai_prices import data_snapshot
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
    Usage,
)
from genai_prices.types import Tier as SourceTier

from controlplane.core.errors import InvalidInputError
from controlplane.pricing.price_book import NotFound, PriceBook
from controlplane.pricing.quote import quote
from controlplane.pricing.seed import read_data_set
from controlplane.pricing.sheet import compile_providers

NOV = datetime(2026, 11, 20, tzinfo=UTC)
M = 1_000_000


def _book(*models: ModelInfo) -> PriceBook:
    provider = Provider(id="p", name="P", api_pattern="p", models=list(models))
    listed = read_data_set([provider], version="t")
    return PriceBook("t", compile_providers(listed.providers, listed.sheets))


def _variant(tier: str, since: date | None, **prices: Decimal | TieredPrices) -> PriceVariant:
    return PriceVariant(
        when={"service_tier": tier},
        prices=ModelPrice(**prices),
        constraint=StartDateConstraint(since) if since else None,
    )


MODEL = ModelInfo(
    id="m",
    match=ClauseEquals("m"),
    prices=[
        ConditionalPrice(
            constraint=None, prices=ModelPrice(input_mtok=Decimal(10), output_mtok=Decimal(40))
        ),
        ConditionalPrice(
            constraint=StartDateConstraint(date(2026, 6, 1)),
            prices=ModelPrice(
                input_mtok=TieredPrices(base=Decimal(8), tiers=[SourceTier(start=100, price=Decimal(9))]),
                output_mtok=Decimal(30),
            ),
        ),
    ],
    price_variants=[
        _variant("flex", date(2026, 8, 1), input_mtok=Decimal(3)),
        _variant("flex", date(2026, 3, 1), input_mtok=Decimal(5), output_mtok=Decimal(20)),
        _variant("default", None),
    ],
)  # fmt: skip


@pytest.mark.parametrize(
    ("at", "usd_in", "usd_out", "reason"),
    [
        # No flex price yet: the standard one, and it says so.
        (datetime(2026, 2, 28, 23, 59, tzinfo=UTC), 10, 40, "no_tier_rate:flex"),
        (datetime(2026, 3, 1, tzinfo=UTC), 5, 20, None),
        (datetime(2026, 7, 31, tzinfo=UTC), 5, 20, None),
        # The first variant listed that says a price decides it, key by key.
        (datetime(2026, 8, 1, tzinfo=UTC), 3, 20, None),
    ],
)
def test_variants_lie_over_the_base_from_their_day(
    at: datetime, usd_in: int, usd_out: int, reason: str | None
) -> None:
    book = _book(MODEL)
    for bucket, usd in (("input_uncached", usd_in), ("output_text", usd_out)):
        answer = quote(
            book, provider="p", model="m", at=at, usage={bucket: 100}, service_tier="flex"
        )
        assert (usd * 100 * 1_000, reason) == (answer.total_nusd, answer.cost_reason)
        assert ("fallback" if reason else "tier") == answer.price_provenance


@pytest.mark.parametrize("tier", ["", "default", "standard", "on_demand"])
def test_the_standard_tier_has_many_names_and_is_no_fallback(tier: str) -> None:
    answer = quote(
        _book(MODEL), provider="p", model="m", at=NOV, usage={"output_text": M}, service_tier=tier
    )
    assert (30 * 10**9, None, "exact") == (
        answer.total_nusd,
        answer.cost_reason,
        answer.price_provenance,
    )


def test_every_tier_of_the_data_set_equals_its_own_calculator() -> None:
    """All variants of the installed list, at both sides of their days and of a context tier."""
    listed = read_data_set(data_snapshot.get_snapshot().providers, version="t")
    book = PriceBook("t", compile_providers(listed.providers, listed.sheets))
    checked = 0
    for provider in data_snapshot.get_snapshot().providers:
        for model in provider.models:
            for variant in model.price_variants or ():
                (key, value), *more = variant.when.items()
                if more or key not in {"service_tier", "processing", "speed"}:
                    continue
                found = book.find(provider.id, model.id)
                if model.get_prices(NOV).input_mtok is None or found == NotFound("unknown_model"):
                    continue  # priced by the hour of audio; or its id is not a name it answers to
                for at in (datetime(2026, 10, 1, tzinfo=UTC), NOV):
                    for tokens in (1_000, 600_000):
                        output = 77 if model.get_prices(at).output_mtok is not None else 0
                        usage = Usage(input_tokens=tokens, output_tokens=output)
                        theirs = model.calc_price(
                            usage, provider, genai_request_timestamp=at, price_context=variant.when
                        )
                        ours = quote(
                            book,
                            provider=provider.id,
                            model=model.id,
                            at=at,
                            usage={"input_uncached": tokens, "output_text": output},
                            service_tier=value,
                        )
                        exact = theirs.total_price * 10**9
                        assert ours.total_nusd is not None
                        assert abs(exact - ours.total_nusd) <= len(ours.line_items) / 2, (
                            provider.id,
                            model.id,
                            variant.when,
                        )
                        checked += 1
    assert checked > 500


def test_a_tier_by_the_hour_is_refused() -> None:
    """No source has one; were it read as always valid, half the day would be wrong."""
    model = ModelInfo(
        id="m",
        match=ClauseEquals("m"),
        prices=ModelPrice(input_mtok=Decimal(1)),
        price_variants=[
            PriceVariant(
                when={"service_tier": "flex"},
                prices=ModelPrice(input_mtok=Decimal(1)),
                constraint=TimeOfDateConstraint(time(1), time(2)),
            )
        ],
    )
    with pytest.raises(InvalidInputError, match="a tier by the hour"):
        _book(model)
