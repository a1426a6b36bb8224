"""One call's price: by hand in Decimal, and against the data set's own calculator."""

import random
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from genai_prices import Usage, data_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider, TimeOfDateConstraint

from controlplane.core.errors import InvalidInputError
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.quote import Quote, quote, usage_buckets
from controlplane.signals.vocabulary import CostState

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
HALF_NUSD = Decimal("0.5")


def _quote(book: PriceBook, provider: str | None, model: str, **usage: int) -> Quote:
    return quote(book, provider=provider, model=model, at=AT, usage=usage_buckets(usage))


def test_gpt_4o_by_hand(book: PriceBook) -> None:
    """$2.50, $1.25 and $10 a million: each line item rounded once, half to even."""
    answer = _quote(
        book, "openai", "gpt-4o", input_tokens=1_137, cached_input_tokens=512, output_tokens=61
    )
    items = {item.bucket: item.cost_nusd for item in answer.line_items}
    expected = {
        bucket: int((Decimal(usd) * 1000 * n).to_integral_value(ROUND_HALF_EVEN))
        for bucket, usd, n in (
            ("input_uncached", "2.5", 1_137 - 512),
            ("cache_read", "1.25", 512),
            ("output_text", "10", 61),
        )
    }
    assert expected == items
    assert 1_562_500 + 640_000 + 610_000 == answer.total_nusd


@pytest.mark.parametrize(
    ("provider", "model", "price_id", "provenance"),
    [
        ("openai", "gpt-4o", "openai/gpt-4o/base", "exact"),
        ("openai", "GPT-4o", "openai/gpt-4o/base", "exact"),
        ("openai", "gpt-4o-2024-08-06", "openai/gpt-4o/base", "alias"),
        ("openai", "openai/gpt-4o", "openai/gpt-4o/base", "alias"),
        ("openai", "gpt-4o-20240806", "openai/gpt-4o/base", "alias"),
        ("azure.ai.openai", "gpt-4o", "openai/gpt-4o/base", "fallback"),
        (None, "gpt-4o", "openai/gpt-4o/base", "alias"),
    ],
)
def test_how_a_price_was_found_is_said(
    book: PriceBook, provider: str | None, model: str, price_id: str, provenance: str
) -> None:
    """Provenance and price id name the row and the way to it."""
    answer = _quote(book, provider, model, input_tokens=1)
    assert f"{book.version}/{price_id}" == answer.price_id
    assert provenance == answer.price_provenance


@pytest.mark.parametrize(
    ("provider", "model", "reason"),
    [
        ("openai", "no-such-model", "unknown_model"),
        ("acme-cloud", "gpt-4o", "unknown_provider"),
        ("self-hosted", "meta-llama/Llama-3.1-8B-Instruct", "no_gpu_price"),
        (None, "house-model", "unknown_provider"),
    ],
)
def test_unknown_is_a_state_and_never_zero(
    book: PriceBook, provider: str | None, model: str, reason: str
) -> None:
    """No price, no number."""
    answer = _quote(book, provider, model, input_tokens=1_000)
    assert (CostState.UNPRICED, None, reason) == (
        answer.cost_state,
        answer.total_nusd,
        answer.cost_reason,
    )


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        ({"inputs": 1}, "usage.inputs: is not a usage name"),
        ({"input_tokens": -1}, "usage.input_tokens: -1"),
        ({"input_tokens": 2**40 + 1}, "not in 0 to 2"),
        ({"input_tokens": 1, "cached_input_tokens": 2}, "1 < parts 2"),
        ({"input_tokens": 1, "input_uncached": 1}, "usage.input_uncached: a bucket beside"),
    ],
)
def test_impossible_usage_is_refused(usage: dict[str, int], words: str) -> None:
    """The message names the field and both numbers."""
    with pytest.raises(InvalidInputError, match=words):
        usage_buckets(usage)


def _plain_models() -> list[tuple[Provider, ModelInfo]]:
    """Models whose price our buckets can express and whose name leads to them in both readings."""
    return [
        (provider, model)
        for provider in data_snapshot.get_snapshot().providers
        for model in provider.models
        if provider.find_model(model.id) is model
    ]


def _theirs(model: ModelInfo, usage: dict[str, int]) -> Decimal:
    """The oracle: genai-prices' own calculator, unrounded USD."""
    prices: ModelPrice = model.get_prices(AT)
    said = {
        "input_tokens": usage["input_tokens"],
        "output_tokens": usage["output_tokens"],
        "cache_read_tokens": usage["cached_input_tokens"],
        "cache_write_tokens": usage["cache_creation_input_tokens"],
        "output_reasoning_tokens": usage["reasoning_tokens"],
    }
    return Decimal(prices.calc_price(Usage(**said))["total_price"])


def test_every_model_agrees_with_the_data_sets_own_calculator(book: PriceBook) -> None:
    """Within half a nano-dollar a line item, on at least 2,000 usages; differences are listed."""
    rng = random.Random(20261121)
    compared, different = 0, []
    for provider, model in _plain_models() * 2:
        if any(isinstance(c.constraint, TimeOfDateConstraint) for c in _conditions(model)):
            continue  # compared on their own below
        total = rng.choice([10, 5_000, 150_000, 250_000, 600_000])
        read, write = rng.randrange(total // 4 + 1), rng.randrange(total // 4 + 1)
        output = rng.randrange(20_000)
        usage = {
            "input_tokens": total,
            "cached_input_tokens": read,
            "cache_creation_input_tokens": write,
            "output_tokens": output,
            "reasoning_tokens": rng.randrange(output + 1),
        }
        ours = _quote(book, provider.id, model.id, **usage)
        theirs = _theirs(model, usage)
        if ours.total_nusd is None:
            different.append((provider.id, model.id, ours.cost_reason))
            continue
        compared += 1
        gap = abs(Decimal(ours.total_nusd) - theirs * 10**9)
        assert gap <= HALF_NUSD * len(ours.line_items), (provider.id, model.id, usage)
    assert compared >= 2_000
    # What they sum as zero we refuse to price: a rate that the source does not give.
    assert {"missing_rate"} >= {str(reason).split(":")[0] for _, _, reason in different}


def _conditions(model: ModelInfo) -> list:  # type: ignore[type-arg]  # the source's own union
    return [] if isinstance(model.prices, ModelPrice) else model.prices


def test_dated_prices_apply_at_the_calls_own_time(book: PriceBook) -> None:
    """Every dated row of the data, an instant before and at its start, against the oracle's row."""
    checked = 0
    for provider, model in _plain_models():
        for condition in _conditions(model):
            start = getattr(condition.constraint, "start_date", None)
            if start is None:
                continue
            at = datetime(start.year, start.month, start.day, tzinfo=UTC)
            theirs = model.get_prices(at).calc_price(Usage(input_tokens=10**6))["total_price"]
            ours = quote(
                book, provider=provider.id, model=model.id, at=at, usage={"input_uncached": 10**6}
            )
            if ours.total_nusd is not None:
                assert abs(Decimal(theirs) * 10**9 - ours.total_nusd) <= HALF_NUSD
                checked += 1
    assert checked >= 20
