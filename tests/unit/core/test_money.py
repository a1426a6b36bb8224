"""Nano-USD: text both ways, one rounding, splits that sum."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import InvalidInputError
from controlplane.core.money import (
    MAX_NUSD,
    divide_half_even,
    format_usd,
    parse_usd,
    round_usd,
    split_largest_remainder,
)

AMOUNTS = st.integers(-MAX_NUSD, MAX_NUSD)


@pytest.mark.parametrize(
    ("nusd", "text"),
    [
        (0, "$0.00"),
        (64_937_063_025, "$64.94"),
        (68_000_000_000, "$68.00"),
        (1_234_567_895_000_000, "$1,234,567.90"),
        (43_400, "$0.000043"),
        (-2_665_000_000, "-$2.66"),
        (-1, "-$0.0000000010"),
    ],
)
def test_people_read_cents_and_two_digits_below_a_dollar(nusd: int, text: str) -> None:
    assert text == round_usd(nusd)


@given(AMOUNTS)
def test_text_and_back_is_the_same_amount(nusd: int) -> None:
    """The text is a plain decimal of the contract's form and says exactly the amount."""
    text = format_usd(nusd)
    assert nusd == parse_usd(text)
    assert Decimal(nusd) / 10**9 == Decimal(text)
    assert "E" not in text
    assert not text.endswith(("0",)) or "." not in text


@pytest.mark.parametrize(
    ("nusd", "text"), [(0, "0"), (43_000, "0.000043"), (-1, "-0.000000001"), (2 * 10**9, "2")]
)
def test_small_amounts_keep_their_digits(nusd: int, text: str) -> None:
    """$0.000043, never $0.00 and never 4.3E-5."""
    assert text == format_usd(nusd)


@pytest.mark.parametrize("text", ["", "x", "1.0000000001", "NaN", "Infinity", "1e30", "1,5"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    """The message names the field."""
    with pytest.raises(InvalidInputError, match="limit: "):
        parse_usd(text, field="limit")


@given(st.integers(-(2**80), 2**80), st.integers(1, 2**60))
def test_division_rounds_half_to_even(numerator: int, denominator: int) -> None:
    """Against Decimal with more digits than either number has."""
    with localcontext() as context:
        context.prec = 120
        exact = Decimal(numerator) / Decimal(denominator)
        if 2 * numerator % denominator:  # not a tie: 120 digits decide
            expected = int(exact.to_integral_value(ROUND_HALF_EVEN))
        else:
            expected = int(Decimal(2 * numerator // denominator).scaleb(0)) // 2
            expected += (2 * numerator // denominator) % 2 and expected % 2
    assert expected == divide_half_even(numerator, denominator)


@pytest.mark.parametrize(
    ("numerator", "expected"), [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2)]
)
def test_ties_go_to_the_even_neighbour(numerator: int, expected: int) -> None:
    """Halves: 0.5, 1.5, 2.5, 3.5 and below zero."""
    assert expected == divide_half_even(numerator, 2)


@given(st.integers(0, 2**62), st.lists(st.integers(0, 2**40), min_size=1, max_size=30))
def test_a_split_sums_to_the_whole_and_is_fair(total: int, weights: list[int]) -> None:
    """Exactly, and no part is a whole unit from its exact share."""
    parts = split_largest_remainder(total, weights)
    assert total == sum(parts)
    for part, weight in zip(parts, weights, strict=True):
        if sum(weights):
            assert abs(part * sum(weights) - total * weight) < sum(weights)


def test_equal_remainders_go_to_the_earlier_party() -> None:
    """A stated tie order."""
    assert [4, 3, 3] == split_largest_remainder(10, [1, 1, 1])
    assert [7, 0] == split_largest_remainder(7, [0, 0])


@pytest.mark.parametrize("weights", [[], [1, -1]])
def test_a_split_needs_weights(weights: list[int]) -> None:
    """Nobody to pay, or a negative share."""
    with pytest.raises(ValueError, match="weights"):
        split_largest_remainder(1, weights)
