"""A ceiling is never below the bill; the cut that fits is the largest that does."""

from decimal import ROUND_HALF_EVEN, Decimal

import hypothesis.strategies as st
import pytest
from hypothesis import given

from controlplane.core.tokens import INPUT_BUCKETS, MAX_QUANTITY, OUTPUT_BUCKETS
from controlplane.policy.ceiling import call_ceiling_nusd, output_tokens_within
from controlplane.policy.document import RatePerMillion

rates = st.builds(
    RatePerMillion,
    input_nusd=st.integers(0, 10**12),
    output_nusd=st.integers(0, 10**12),
    request_nusd=st.integers(0, 10**9),
)
tokens = st.integers(0, 10**6)


@given(rates, st.data())
def test_ceiling_is_never_below_the_bill(rate: RatePerMillion, data: st.DataObject) -> None:
    """Every bucket at the dearest rate, each line rounded half-even as a bill does."""
    inputs = data.draw(st.fixed_dictionaries(dict.fromkeys(INPUT_BUCKETS, tokens)))
    outputs = data.draw(st.fixed_dictionaries(dict.fromkeys(OUTPUT_BUCKETS, tokens)))
    lines = [(rate.input_nusd, count) for count in inputs.values()]
    lines += [(rate.output_nusd, count) for count in outputs.values()]
    bill = rate.request_nusd + sum(
        int((Decimal(nusd * count) / 10**6).quantize(Decimal(1), ROUND_HALF_EVEN))
        for nusd, count in lines
    )
    ceiling = call_ceiling_nusd(
        rate, input_tokens=sum(inputs.values()), output_tokens=sum(outputs.values())
    )
    assert bill <= ceiling <= bill + 20


@given(rates, st.integers(0, 10**6), st.integers(1, 8), st.integers(0, 10**15))
def test_cut_is_the_largest_that_fits(
    rate: RatePerMillion, input_tokens: int, choices: int, fits: int
) -> None:
    """One token more of each choice would not fit; none at all when nothing does."""
    cut = output_tokens_within(rate, fits, input_tokens=input_tokens, choices=choices)

    def ceiling(output: int) -> int:
        return call_ceiling_nusd(rate, input_tokens=input_tokens, output_tokens=output * choices)

    if cut > 0:
        assert ceiling(cut) <= fits
    if rate.output_nusd > 0:
        assert ceiling(cut + 1) > fits
    elif cut == 0:
        assert ceiling(0) > fits


@pytest.mark.parametrize(("output", "expected"), [(0, 10), (1, 11), (10**6, 1_000_010)])
def test_ceiling_by_hand(output: int, expected: int) -> None:
    """One nano-USD a token, plus ten for twenty lines' rounding."""
    rate = RatePerMillion(input_nusd=0, output_nusd=10**6)
    assert expected == call_ceiling_nusd(rate, input_tokens=5, output_tokens=output)


def test_free_is_free() -> None:
    """A model that costs nothing needs no hold."""
    free = RatePerMillion(input_nusd=0, output_nusd=0)
    assert 0 == call_ceiling_nusd(free, input_tokens=10**6, output_tokens=10**6)
    assert MAX_QUANTITY == output_tokens_within(free, 0, input_tokens=10**6)
