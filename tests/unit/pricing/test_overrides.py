"""The organisation's own prices: exact, dated, and said."""

from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import ConfigError
from controlplane.pricing.overrides import compile_overrides
from controlplane.pricing.price_book import MAX_REMEMBERED, NotFound, PriceBook
from controlplane.pricing.quote import Quote, quote
from controlplane.pricing.seed import listed_providers, seed_version

LLAMA: dict[str, object] = {
    "provider": "self-hosted",
    "model": "meta-llama/Llama-3.1-8B",
    "usd": {"input_uncached": "0.05", "output_text": "0.08", "gpu_seconds": "0.0011"},
}
MARCH = datetime(2026, 3, 1, tzinfo=UTC)


def _quote(own: list[dict[str, object]], at: datetime = MARCH, **usage: int) -> Quote:
    book = PriceBook("seed", [], overrides=compile_overrides(own))
    first = own[0]
    return quote(
        book, provider=str(first["provider"]), model=str(first["model"]), at=at, usage=usage
    )


def test_a_self_hosted_model_gets_its_own_price() -> None:
    """$0.05 and $0.08 a million tokens, $0.0011 a GPU second; by hand."""
    answer = _quote([LLAMA], input_uncached=10_001, output_text=7, gpu_seconds=3)
    assert 10_001 * 50 + 7 * 80 + 3 * 1_100_000 == answer.total_nusd
    assert ("priced", "override") == (answer.cost_state, answer.price_provenance)
    assert str(answer.price_id).startswith("override/self-hosted/meta-llama/Llama-3.1-8B/base@")


def test_an_own_price_beats_the_list_in_any_spelling_of_the_provider() -> None:
    """A contract written for `azure.ai.openai` holds for `azure` and for other cases."""
    own = compile_overrides(
        [{"provider": "azure.ai.openai", "model": "gpt-4o", "usd": {"input_uncached": "2.00"}}]
    )
    book = PriceBook(seed_version(), listed_providers(), overrides=own)
    for provider, model in (("azure", "gpt-4o"), ("azure.ai.openai", "GPT-4o")):
        answer = quote(
            book, provider=provider, model=model, at=MARCH, usage={"input_uncached": 10**6}
        )
        assert (2 * 10**9, "override") == (answer.total_nusd, answer.price_provenance)
    listed = quote(
        book, provider="openai", model="gpt-4o", at=MARCH, usage={"input_uncached": 10**6}
    )
    assert (2_500_000_000, "exact") == (listed.total_nusd, listed.price_provenance)


def test_what_stands_in_is_said_and_reasoning_is_output() -> None:
    """A cache read without a rate pays the input rate and says so; reasoning needs no excuse."""
    read = _quote([LLAMA], cache_read=1_000)
    assert (50_000, "no_own_rate:cache_read", "fallback") == (
        read.total_nusd,
        read.cost_reason,
        read.price_provenance,
    )
    reasoning = _quote([LLAMA], output_reasoning=1_000)
    assert (80_000, None) == (reasoning.total_nusd, reasoning.cost_reason)
    assert "missing_rate:output_audio" == _quote([LLAMA], output_audio=1).cost_reason


def test_an_explicit_zero_is_free() -> None:
    """Free is a price of nothing, not the lack of one."""
    answer = _quote([{**LLAMA, "usd": {"input_uncached": "0"}}], input_uncached=5)
    assert (0, "free") == (answer.total_nusd, answer.cost_state)


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC), None),
        (datetime(2026, 1, 1, tzinfo=UTC), 1_000),
        (datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC), 1_000),
        (datetime(2026, 2, 1, tzinfo=UTC), 2_000),
        (datetime(2026, 3, 1, tzinfo=UTC), None),
    ],
)
def test_validity_is_half_open(day: datetime, expected: int | None) -> None:
    """From the first instant of `valid_from` until that of `valid_to`, and no price outside."""
    months = [
        {**LLAMA, "usd": {"input_uncached": str(n)}, "valid_from": start, "valid_to": end}
        for n, start, end in ((1, "2026-01-01", "2026-02-01"), (2, "2026-02-01", "2026-03-01"))
    ]
    answer = _quote(months, at=day, input_uncached=1)
    assert expected == answer.total_nusd
    assert (expected is None) == (answer.cost_reason == "no_price_at_time")


def test_an_edited_price_is_another_price_and_another_book() -> None:
    """Ids and the book's version follow the content."""
    books = [
        PriceBook("seed", [], overrides=compile_overrides([{**LLAMA, "usd": {"output_text": usd}}]))
        for usd in ("1", "2", "1")
    ]
    assert books[0].version == books[2].version != books[1].version
    assert books[0].version.startswith("seed+")
    ids = [_quote([{**LLAMA, "usd": {"output_text": u}}], output_text=1).price_id for u in "12"]
    assert ids[0] != ids[1]
    assert [("self-hosted", "meta-llama/llama-3.1-8b")] == books[0].names()


@given(st.decimals(0, 1_000, places=12), st.integers(0, 2**40))
def test_any_decimal_is_priced_as_decimal_arithmetic_would(usd: Decimal, tokens: int) -> None:
    """Twelve digits behind the point survive the compilation."""
    own = {**LLAMA, "usd": {"input_uncached": f"{usd:f}"}}
    answer = _quote([own], input_uncached=tokens)
    assert round(Fraction(usd) * tokens * 1_000) == answer.total_nusd  # half to even


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"model": "m", "usd": {}}, "provider"),
        ({**LLAMA, "usd": {"tokens": "1"}}, "Llama-3.1-8B.tokens: is not a bucket"),
        ({**LLAMA, "usd": {"cache_read": "1,5"}}, "'1,5' is not a price"),
        ({**LLAMA, "usd": {"cache_read": "-1"}}, "'-1' is not a price"),
        ({**LLAMA, "usd": {"cache_read": "NaN"}}, "'NaN' is not a price"),
        ({**LLAMA, "usd": {"cache_read": 0.1}}, r"Expected `str`, got `float`"),
        ({**LLAMA, "usd": {}}, "usd: is empty"),
        ({**LLAMA, "discount": 1}, "unknown field `discount`"),
        ({**LLAMA, "valid_from": "2026-02-01", "valid_to": date(2026, 2, 1)}, "not after"),
    ],
)
def test_a_wrong_price_refuses_to_start(entry: dict[str, object], words: str) -> None:
    """The message names the entry; a float is not money."""
    with pytest.raises(ConfigError, match=words):
        compile_overrides([entry])


def test_names_from_senders_do_not_fill_the_memory(book: PriceBook) -> None:
    """The look-up memory starts anew at its limit, and answers stay the same."""
    small = PriceBook("seed", [])
    for number in range(MAX_REMEMBERED + 5):
        assert small.find("p", f"m-{number}") == NotFound("unknown_provider")
    assert len(small._remembered) == 5
    assert book.find("openai", "gpt-4o") == book.find("openai", "gpt-4o")
