"""Pools that teams share: named by their weights, divided exactly."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.attribution.share import divide, pool_name, weights_of

_names = st.text("abcdefghij-_.é", min_size=1, max_size=8)
_weights = st.dictionaries(_names, st.integers(1, 1_000), min_size=1, max_size=6)


@given(share=_names, weights=_weights)
def test_a_name_says_the_weights(share: str, weights: dict[str, int]) -> None:
    assert weights == weights_of(pool_name(share, weights))
    assert pool_name(share, weights) == pool_name(share, dict(reversed(weights.items())))


@given(total=st.integers(-(2**62), 2**62), weights=_weights)
def test_parts_add_up_and_are_within_one_of_the_exact_share(
    total: int, weights: dict[str, int]
) -> None:
    parts = divide(total, weights)
    assert total == sum(parts.values())
    whole = sum(weights.values())
    assert all(abs(part * whole - total * weights[team]) < whole for team, part in parts.items())


def test_other_names_are_no_pools() -> None:
    for text in (
        None,
        "",
        "search",
        "shared:",
        "shared:x",
        "shared:x[]",
        "shared:x[a=1",
        "shared:x[a=b]",
    ):
        assert weights_of(text) is None
