"""Contracts change the list's rates exactly, while they are valid, and never compound."""

from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import ConfigError
from controlplane.pricing.contracts import read_contracts
from controlplane.pricing.overrides import compile_overrides
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.quote import Quote, quote
from controlplane.pricing.seed import listed_providers

NOV = datetime(2026, 11, 20, tzinfo=UTC)
BASE: dict[str, object] = {"id": "c1", "provider": "openai"}
LISTED = listed_providers()


def _quote(
    contracts: list[dict[str, object]], *, at: datetime = NOV, model: str = "gpt-4o", **usage: int
) -> Quote:
    book = PriceBook("seed", LISTED, contracts=read_contracts(contracts))
    return quote(book, provider="openai", model=model, at=at, usage=usage or {"output_text": 10**6})


def test_a_discount_and_a_margin_multiply_the_list() -> None:
    """gpt-4o output lists at $10 a million: 12.5 % off, then 20 % on top, is $10.50."""
    answer = _quote([{**BASE, "discount_percent": "12.5", "margin_percent": "20"}])
    assert (10_500_000_000, "override", "priced") == (
        answer.total_nusd,
        answer.price_provenance,
        answer.cost_state,
    )
    assert "*c1@" in str(answer.price_id)


@given(st.decimals(0, 100, places=4), st.decimals(-100, 900, places=4), st.integers(0, 10**9))
def test_any_percentages_are_exact(discount: Decimal, margin: Decimal, tokens: int) -> None:
    """One half-even rounding of the whole product, in fractions."""
    answer = _quote(
        [{**BASE, "discount_percent": str(discount), "margin_percent": str(margin)}],
        output_text=tokens,
    )
    factor = (1 - Fraction(discount) / 100) * (1 + Fraction(margin) / 100)
    assert round(Fraction(10_000) * tokens * factor) == answer.total_nusd


def test_free_is_an_agreed_price_of_nothing() -> None:
    assert (0, "free") == (
        _quote([{**BASE, "free": True}]).total_nusd,
        _quote([{**BASE, "free": True}]).cost_state,
    )


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC), 10),
        (datetime(2026, 11, 1, tzinfo=UTC), 5),
        (datetime(2026, 11, 30, 23, tzinfo=UTC), 5),
        (datetime(2026, 12, 1, tzinfo=UTC), 10),
    ],
)
def test_outside_its_days_the_list_applies(at: datetime, expected: int) -> None:
    dated = {
        **BASE,
        "discount_percent": "50",
        "valid_from": "2026-11-01",
        "valid_to": date(2026, 12, 1),
    }
    assert expected * 10**9 == _quote([dated], at=at).total_nusd


def test_of_several_the_last_applies_and_they_do_not_compound() -> None:
    both: list[dict[str, object]] = [
        {**BASE, "discount_percent": "50"},
        {"id": "c2", "provider": "openai", "models": "gpt-4o*", "discount_percent": "10"},
    ]
    assert 9 * 10**9 == _quote(both).total_nusd
    # o3 lists at $8 a million: only the first covers it.
    assert 4 * 10**9 == _quote(both, model="o3").total_nusd


def test_an_own_price_is_no_list_price() -> None:
    own = compile_overrides(
        [{"provider": "openai", "model": "gpt-4o", "usd": {"output_text": "7"}}]
    )
    contracts = read_contracts([{**BASE, "discount_percent": "50"}])
    book = PriceBook("seed", LISTED, overrides=own, contracts=contracts)
    answer = quote(book, provider="openai", model="gpt-4o", at=NOV, usage={"output_text": 10**6})
    assert 7 * 10**9 == answer.total_nusd


def test_an_edited_contract_is_another_book_and_another_price_id() -> None:
    ids = {_quote([{**BASE, "discount_percent": percent}]).price_id for percent in ("1", "2", "1")}
    assert 2 == len(ids)
    versions = {
        PriceBook("s", [], contracts=read_contracts([{**BASE, "margin_percent": m}])).version
        for m in ("1", "2")
    }
    assert 2 == len(versions)


def test_a_contract_whose_days_miss_a_row_leaves_it() -> None:
    """A list row that starts after the contract ended keeps the list's rate only."""
    old = {**BASE, "discount_percent": "50", "valid_to": "2024-01-01"}
    assert 10 * 10**9 == _quote([old]).total_nusd


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"provider": "openai"}, "missing required field `id`"),
        ({**BASE, "percent": "1"}, "unknown field `percent`"),
        ({**BASE, "discount_percent": "100.1"}, "Between 0 and 100"),
        ({**BASE, "discount_percent": "x"}, "'x'"),
        ({**BASE, "margin_percent": "NaN"}, "'NaN'"),
        ({**BASE, "valid_from": "2026-02-01", "valid_to": "2026-02-01"}, "not after"),
        ({**BASE, "commitment_usd": "1.0000000001"}, "more than nine decimals"),
    ],
)
def test_a_wrong_contract_refuses_to_start(entry: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_contracts([entry])


def test_an_id_names_one_contract() -> None:
    with pytest.raises(ConfigError, match="'c1' twice"):
        read_contracts([BASE, BASE])
