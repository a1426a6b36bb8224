"""Totals to exclusive buckets: nothing is counted twice and nothing is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.tokens import (
    BUCKET_NAMES,
    INPUT_BUCKETS,
    MAX_QUANTITY,
    OUTPUT_BUCKETS,
    ImpossibleUsageError,
    ReportedUsage,
    decompose,
)

PART = st.integers(0, 10**6)


@given(st.lists(PART, min_size=6, max_size=6), st.lists(PART, min_size=4, max_size=4))
def test_buckets_sum_back_to_the_report(inputs: list[int], outputs: list[int]) -> None:
    """Built from parts, decomposed again: the same parts, and the sums are the totals."""
    plain, read, short, long, audio, image = inputs
    text, reasoning, output_audio, output_image = outputs
    usage = ReportedUsage(
        input_tokens=sum(inputs),
        cached_input_tokens=read,
        cache_creation_input_tokens=short + long,
        cache_creation_1h_tokens=long,
        input_audio_tokens=audio,
        input_image_tokens=image,
        output_tokens=sum(outputs),
        reasoning_tokens=reasoning,
        output_audio_tokens=output_audio,
        output_image_tokens=output_image,
    )
    expected = {
        "input_uncached": plain,
        "cache_read": read,
        "cache_write_5m": short,
        "cache_write_1h": long,
        "input_audio": audio,
        "input_image": image,
        "output_text": text,
        "output_reasoning": reasoning,
        "output_audio": output_audio,
        "output_image": output_image,
    }
    buckets = decompose(usage)
    assert {name: n for name, n in expected.items() if n} == buckets
    assert sum(inputs) == sum(buckets.get(b, 0) for b in INPUT_BUCKETS)
    assert sum(outputs) == sum(buckets.get(b, 0) for b in OUTPUT_BUCKETS)


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        (ReportedUsage(input_tokens=10, cached_input_tokens=11), "input_tokens 10 < parts 11"),
        (ReportedUsage(output_tokens=3, reasoning_tokens=4), "output_tokens 3 < parts 4"),
        (ReportedUsage(input_tokens=-1), "input_tokens=-1"),
        (ReportedUsage(input_tokens=MAX_QUANTITY + 1), "quantity_out_of_range"),
        (
            ReportedUsage(input_tokens=9, cache_creation_1h_tokens=1),
            "cache_creation_1h 1 > cache_creation 0",
        ),
    ],
)
def test_an_impossible_report_says_both_numbers(usage: ReportedUsage, words: str) -> None:
    """A part larger than its whole, or a number no model can produce."""
    with pytest.raises(ImpossibleUsageError, match=words):
        decompose(usage)


def test_unsaid_is_not_a_bucket() -> None:
    """Nothing reported, nothing counted."""
    assert {} == decompose(ReportedUsage())


def test_the_largest_quantity_is_possible() -> None:
    """The bound itself is allowed."""
    assert {"input_uncached": MAX_QUANTITY} == decompose(ReportedUsage(input_tokens=MAX_QUANTITY))


def test_directions_cover_every_token_bucket_once() -> None:
    """No bucket is both input and output."""
    assert set() == set(INPUT_BUCKETS) & set(OUTPUT_BUCKETS)
    assert len(BUCKET_NAMES) == len(set(BUCKET_NAMES))
