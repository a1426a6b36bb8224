"""Selectors: AND across keys, OR inside, a prefix by `*`; and whether two can meet."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from controlplane.core.errors import PolicyError
from controlplane.policy.match import check_selectors, matches, overlap


@pytest.mark.parametrize(
    ("selectors", "facts", "expected"),
    [
        ({}, {}, True),
        ({"team": ("a",)}, {"team": "a"}, True),
        ({"team": ("a", "b")}, {"team": "b"}, True),
        ({"team": ("a",), "model": ("m",)}, {"team": "a", "model": "n"}, False),
        ({"team": ("a",)}, {}, False),
        ({"team": ("*",)}, {}, False),
        ({"team": ("*",)}, {"team": "x"}, True),
        ({"model": ("gpt-4*",)}, {"model": "gpt-4o"}, True),
        ({"model": ("gpt-4*",)}, {"model": "gpt-3"}, False),
        ({"model": ("gpt-4",)}, {"model": "gpt-4o"}, False),
    ],
)
def test_matches(
    selectors: dict[str, tuple[str, ...]], facts: dict[str, str], *, expected: bool
) -> None:
    """A fact that is not known matches nothing, not even `*`."""
    assert expected is matches(selectors, facts)


texts = st.text("ab", max_size=3)
values = st.one_of(st.text("ab", min_size=1, max_size=2), texts.map(lambda text: text + "*"))
selectors = st.dictionaries(
    st.sampled_from(["team", "model"]), st.lists(values, min_size=1, max_size=2).map(tuple)
)
ALL = [first + rest for first in ("", "a", "b") for rest in ("", "a", "b", "aa", "ab", "ba", "bb")]


@given(selectors, selectors)
def test_overlap_says_whether_a_request_can_match_both(
    left: dict[str, tuple[str, ...]], right: dict[str, tuple[str, ...]]
) -> None:
    """Compared with trying every request there is over a small alphabet."""
    facts = ({"team": team, "model": model} for team in ALL for model in ALL)
    expected = any(matches(left, each) and matches(right, each) for each in facts)
    assert expected is overlap(left, right)


@pytest.mark.parametrize(
    ("selectors", "field"),
    [
        ({"colour": ("red",)}, "m.colour"),
        ({"team": ()}, "m.team"),
        ({"team": ("",)}, "m.team"),
        ({"team": ("a*b",)}, "m.team"),
    ],
)
def test_selector_that_means_nothing_is_named(
    selectors: dict[str, tuple[str, ...]], field: str
) -> None:
    """The error says which key."""
    with pytest.raises(PolicyError) as refused:
        check_selectors(selectors, field="m")
    assert field == refused.value.field
