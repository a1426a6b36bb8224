"""No reachable price is above its ceiling, over the whole price book (algorithms L4)."""

from datetime import UTC, date, datetime, time, timedelta

import pytest
from genai_prices import data_snapshot

from controlplane.core.tokens import BUCKETS, Direction, Unit
from controlplane.pricing.ceiling import ceiling_rates, provider_ceilings
from controlplane.pricing.price_book import ListedModel, ListedProvider, PriceBook
from controlplane.pricing.quote import quote
from controlplane.pricing.rates import PriceRow, Rate, Tier, Validity

AT = datetime(2026, 11, 20, 23, 55, tzinfo=UTC)
HORIZON = timedelta(minutes=10)
N = 700_000  # above every context tier


def test_no_bucket_of_any_model_costs_more_than_its_ceiling(book: PriceBook) -> None:
    """Every model, every token bucket, small and long context, over the whole horizon."""
    models = [
        (provider.id, model.id)
        for provider in data_snapshot.get_snapshot().providers
        for model in provider.models
    ]
    ceilings = ceiling_rates(book, models, at=AT, horizon=HORIZON)
    checked = 0
    for provider, model in models:
        ceiling = ceilings.get(f"{provider}/{model}")
        for bucket in BUCKETS:
            if ceiling is None or bucket.unit is not Unit.TOKEN:
                continue
            for tokens in (1_000, N):
                answer = quote(
                    book, provider=provider, model=model, at=AT, usage={bucket.name: tokens}
                )
                rate = (
                    ceiling.input_nusd
                    if bucket.direction is Direction.INPUT
                    else ceiling.output_nusd
                )
                if answer.total_nusd is not None:
                    bound = tokens * rate / 1_000_000 + ceiling.request_nusd + 1
                    assert answer.total_nusd <= bound, (provider, model, bucket.name)
                    checked += 1
    assert checked > 10_000


@pytest.mark.parametrize(
    ("validity", "reachable"),
    [
        (Validity(), True),
        (Validity(since=date(2026, 11, 21)), True),  # starts inside the horizon
        (Validity(since=date(2026, 11, 22)), False),
        (Validity(daily_from=time(3), daily_to=time(4)), True),  # hours are always reachable
        (Validity(until=date(2026, 11, 1)), False),
    ],
)
def test_only_rows_that_can_apply_count(validity: Validity, *, reachable: bool) -> None:
    """A price that starts while the call runs counts; one that ended does not."""
    cheap = PriceRow(
        price_id="a", validity=Validity(), tiers=(Tier(-1, {"input_uncached": Rate(1, 1)}),)
    )
    dear = PriceRow(
        price_id="b", validity=validity, tiers=(Tier(-1, {"cache_write_1h": Rate(9, 1)}),)
    )
    listed = ListedModel(model="m", rows=(cheap, dear), matches="m".__eq__)
    book = PriceBook("t", [ListedProvider(provider="p", models=[listed])])
    ceiling = ceiling_rates(book, [("p", "m")], at=AT, horizon=HORIZON)["p/m"]
    # The dear row replaces the cheap one whenever it is valid now.
    assert (9_000_000 if reachable else 1_000_000) == ceiling.input_nusd


def test_a_priority_tier_makes_no_call_dearer_that_may_not_ask_for_it() -> None:
    """The agent refuses `service_tier: priority`; its price would make every hold too large."""
    rows = [
        PriceRow(
            price_id=tier,
            validity=validity,
            tiers=(Tier(-1, {"input_uncached": Rate(nusd, 1)}),),
            service_tier=tier,
        )
        for tier, nusd, validity in (
            ("", 1, Validity()),
            ("priority", 9, Validity(since=date(2026, 11, 21))),  # starts inside the horizon
            ("batch", 7, Validity()),
        )
    ]
    listed = ListedModel(model="m", rows=tuple(rows), matches="m".__eq__)
    book = PriceBook("t", [ListedProvider(provider="p", models=[listed])])
    ceiling = ceiling_rates(book, [("p", "m")], at=AT, horizon=HORIZON)["p/m"]
    assert 1_000_000 == ceiling.input_nusd


def test_a_model_without_a_price_has_no_ceiling(book: PriceBook) -> None:
    """An unpriced model can not be bounded: the budget's own rule decides."""
    assert {} == ceiling_rates(book, [("openai", "nope")], at=AT, horizon=HORIZON)


def test_a_providers_ceiling_is_that_of_its_dearest_model(book: PriceBook) -> None:
    """What an unknown model of the provider is held at, where a budget asks for it."""
    ceilings = provider_ceilings(ceiling_rates(book, book.names(), at=AT, horizon=HORIZON))
    own = ceiling_rates(book, book.names(), at=AT, horizon=HORIZON)
    openai = [rate for name, rate in own.items() if name.startswith("openai/")]
    assert max(rate.input_nusd for rate in openai) == ceilings["openai"].input_nusd
    assert max(rate.output_nusd for rate in openai) == ceilings["openai"].output_nusd
    assert ceilings["openai"].input_nusd >= own["openai/gpt-4o"].input_nusd
