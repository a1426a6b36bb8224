"""Names find their prices, whoever spelled them, as the data set's own matcher would."""

from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest
from genai_prices import data_snapshot
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    TimeOfDateConstraint,
)

from controlplane.core.errors import InvalidInputError
from controlplane.core.money import MAX_NUSD
from controlplane.pricing import seed
from controlplane.pricing.overrides import compile_overrides
from controlplane.pricing.price_book import ListedModel, ListedProvider, NotFound, PriceBook
from controlplane.pricing.providers import ALIASES, price_provider
from controlplane.pricing.quote import quote
from controlplane.pricing.rates import ALWAYS, PriceRow, Rate, Tier, rate

AT = datetime(2026, 11, 20, tzinfo=UTC)


def test_every_name_leads_where_the_sources_matcher_leads(book: PriceBook) -> None:
    """All listed names, changed a little, against asking every model in turn."""
    checked = 0
    for provider in data_snapshot.get_snapshot().providers:
        listed = [name for owner, name in book.names() if owner == provider.id]
        for name in [*listed, *(f"{name}-preview" for name in listed), *map(str.upper, listed)]:
            theirs = next((model for model in provider.models if model.is_match(name)), None)
            found = book.find(provider.id, name)
            if theirs is not None:
                assert not isinstance(found, NotFound)
                assert (provider.id, theirs.id) == (found.provider, found.model)
                checked += 1
    assert checked > 7_000


def test_of_models_that_match_the_first_listed_wins() -> None:
    """Between a pattern and a spelled name the order of the list decides."""

    def row(name: str) -> tuple[PriceRow, ...]:
        return (PriceRow(price_id=name, validity=ALWAYS, tiers=(Tier(-1, {}),)),)

    def listed(*models: ListedModel) -> PriceBook:
        return PriceBook("t", [ListedProvider(provider="p", models=models)])

    pattern = ListedModel(
        model="pattern", rows=row("pattern"), matches=lambda name: name.startswith("a")
    )
    spelled = ListedModel(model="spelled", rows=row("spelled"), spellings=("A1", "B1"))
    for models, name, expected in (
        ((pattern, spelled), "a1", "pattern"),
        ((spelled, pattern), "a1", "spelled"),
        ((spelled, pattern), "a2", "pattern"),
        ((pattern, spelled), "b1", "spelled"),
    ):
        found = listed(*models).find("p", name)
        assert not isinstance(found, NotFound)
        assert expected == found.model


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("aws.bedrock", "aws"),
        ("az.ai.openai", "azure"),
        ("gcp.vertex_ai", "google"),
        ("x_ai", "x-ai"),
        ("Mistral_AI", "mistral"),
        ("openai", "openai"),
        ("our-own", "our-own"),
    ],
)
def test_providers_are_known_in_every_vocabulary(provider: str, expected: str) -> None:
    """OpenTelemetry's names, LiteLLM's and the data set's; others stay as they are."""
    assert expected == price_provider(provider)


def test_every_alias_leads_to_a_provider_that_has_prices(book: PriceBook) -> None:
    """A table that points nowhere would turn known models into unknown ones."""
    sold = {provider for provider, _ in book.names()}
    assert set() == set(ALIASES.values()) - sold


def test_a_makers_model_is_his_wherever_it_is_sold(book: PriceBook) -> None:
    """The bare name may stand for the maker's price, not for a reseller's."""
    assert book.is_makers("openai", "gpt-4o")
    assert not book.is_makers("azure", "gpt-4o")


def test_the_public_list_is_asked_past_the_organisations_own_prices() -> None:
    """Of what a discount is one; a call without a model has none, and a maker may be nobody."""
    listed = PriceRow(price_id="l", validity=ALWAYS, tiers=(Tier(-1, {"output_text": Rate(9, 1)}),))
    model = ListedModel(model="m", rows=(listed,), spellings=("m",))
    own = compile_overrides([{"provider": "p", "model": "m", "usd": {"output_text": "1"}}])
    book = PriceBook("t", [ListedProvider(provider="p", models=[model])], overrides=own)
    found, public = book.find("p", "M"), book.listed("p", "M")
    assert not isinstance(found, NotFound)
    assert not isinstance(public, NotFound)
    assert (listed,) == public.rows != found.rows
    assert NotFound("unknown_model") == book.listed("p", None) == book.listed("p", "")
    assert None is book.maker_of("nobody-makes-this")


def test_names_hold_the_lists_spellings_and_the_organisations(book: PriceBook) -> None:
    """What a rate card is compiled for."""
    own = compile_overrides([{"provider": "p", "model": "M", "usd": {"output_text": "1"}}])
    names = PriceBook("t", seed.listed_providers(), overrides=own).names()
    assert {*book.names(), ("p", "m")} == set(names)
    assert ("openai", "gpt-4o-2024-08-06") in names
    assert sorted(names) == names


def test_a_cost_that_no_store_could_hold_is_unpriced() -> None:
    """9.2 billion USD in one call is a wrong price, not a bill."""
    dear = Rate(MAX_NUSD, 1)
    row = PriceRow(price_id="x", validity=ALWAYS, tiers=(Tier(-1, {"output_text": dear}),))
    model = ListedModel(model="m", rows=(row,), spellings=("m",))
    book = PriceBook("t", [ListedProvider(provider="p", models=[model])])
    highest = quote(book, provider="p", model="m", at=AT, usage={"output_text": 1})
    above = quote(book, provider="p", model="m", at=AT, usage={"output_text": 2})
    assert (MAX_NUSD, None) == (highest.total_nusd, highest.cost_reason)
    assert (None, "cost_out_of_range") == (above.total_nusd, above.cost_reason)


def _by_hour(start: time) -> ModelInfo:
    constraint = TimeOfDateConstraint(start_time=start, end_time=start)
    price = ConditionalPrice(constraint=constraint, prices=ModelPrice())
    return ModelInfo(id="m", match=ClauseEquals("m"), prices=[price])


def _provider(model: ModelInfo) -> Provider:
    return Provider(id="p", name="P", api_pattern="p", models=[model])


def test_hours_that_are_not_utc_are_refused() -> None:
    """A data set in another zone must not be read as if it were ours."""
    abroad = timezone(timedelta(hours=8))
    assert seed.read_data_set([_provider(_by_hour(time(3, tzinfo=UTC)))], version="t").sheets
    with pytest.raises(InvalidInputError, match="is not UTC"):
        seed.read_data_set([_provider(_by_hour(time(3, tzinfo=abroad)))], version="t")


@pytest.mark.parametrize("usd", ["-0.1", "NaN", "Infinity"])
def test_what_is_no_price_is_refused(usd: str) -> None:
    """Neither below zero nor without an end."""
    with pytest.raises(ValueError, match="is not a price"):
        rate(Decimal(usd), per=1)


def test_a_self_hosted_model_without_a_price_lacks_a_gpu_price() -> None:
    """It is never free, and no list of anybody's will ever have it."""
    book = PriceBook("v", [])
    assert NotFound("no_gpu_price") == book.find("self-hosted", "llama")
    assert NotFound("unknown_provider") == book.find("nobody", "llama")
