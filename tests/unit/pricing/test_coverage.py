"""What has no price is bounded by what comparable models cost, and its part of the tokens is said."""

from datetime import UTC, datetime

import pytest

from controlplane.pricing.coverage import CostRange, RangeEstimator, UnpricedUsage, coverage_ratio
from controlplane.pricing.overrides import compile_overrides
from controlplane.pricing.price_book import PriceBook

AT = datetime(2026, 11, 20, tzinfo=UTC)
OWN = compile_overrides(
    [
        {"provider": "p", "model": "small", "usd": {"input_uncached": "1", "output_text": "2"}},
        {"provider": "p", "model": "large", "usd": {"input_uncached": "10", "output_text": "30"}},
        {"provider": "p", "model": "free", "usd": {"input_uncached": "0", "output_text": "0"}},
        {"provider": "p", "model": "embed", "usd": {"input_uncached": "0.01"}},
        {"provider": "q", "model": "dear", "usd": {"input_uncached": "50", "output_text": "90"}},
    ]
)


def _usage(provider: str | None, reason: str = "unknown_model") -> UnpricedUsage:
    return UnpricedUsage(
        provider=provider,
        model="x",
        reason=reason,
        calls=1,
        input_tokens=1_000,
        output_tokens=100,
    )


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        # 1,000 x 1,000 + 100 x 2,000 nano-USD; the free one and the embedding do not count.
        ("p", CostRange(low_nusd=1_200_000, high_nusd=13_000_000, basis="cheapest and dearest model of p")),
        ("nobody", CostRange(low_nusd=1_200_000, high_nusd=59_000_000, basis="cheapest and dearest model of every provider")),
        (None, CostRange(low_nusd=1_200_000, high_nusd=59_000_000, basis="cheapest and dearest model of every provider")),
    ],
)  # fmt: skip
def test_the_range_is_between_the_providers_models(
    provider: str | None, expected: CostRange
) -> None:
    estimator = RangeEstimator(PriceBook("t", [], overrides=OWN), AT)
    assert expected == estimator.estimate(_usage(provider))
    assert expected == estimator.estimate(_usage(provider)), "and from what is remembered"


def test_an_empty_list_bounds_nothing() -> None:
    assert None is RangeEstimator(PriceBook("t", []), AT).estimate(_usage("p"))


def test_coverage_is_of_tokens_and_unknown_without_any() -> None:
    assert (0.75, 1.0, None) == (
        coverage_ratio(400, 100),
        coverage_ratio(1, 0),
        coverage_ratio(0, 0),
    )


def test_unknown_usage_wants_no_price() -> None:
    assert [True, False, False] == [
        _usage("p", reason).wants_a_price
        for reason in ("missing_rate:images", "unknown_usage", "impossible_usage")
    ]
