"""Selectors: AND across keys, OR inside, a prefix by `*`; and whether two can meet."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from controlplane.core.errors import PolicyError
from controlplane.policy.match import check_selectors, covers, matches, overlap


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


@given(selectors, selectors)
def test_who_covers_another_selects_all_that_it_does(
    wide: dict[str, tuple[str, ...]], narrow: dict[str, tuple[str, ...]]
) -> None:
    facts = [{"team": team, "model": model} for team in ALL for model in ALL]
    if covers(wide, narrow):
        assert all(matches(wide, each) for each in facts if matches(narrow, each))


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ({}, {"team": ("a",)}, True),
        ({"team": ("a", "b")}, {"team": ("b",), "model": ("m",)}, True),
        ({"team": ("a*",)}, {"team": ("ab*", "a")}, True),
        ({"team": ("a*",)}, {"team": ("ab*", "b")}, False),
        ({"team": ("ab",)}, {"team": ("ab*",)}, False),
        ({"team": ("ab*",)}, {"team": ("a*",)}, False),
        ({"team": ("a",)}, {}, False),
    ],
)
def test_what_is_covered_value_by_value_is_covered(
    wide: dict[str, tuple[str, ...]], narrow: dict[str, tuple[str, ...]], *, expected: bool
) -> None:
    assert expected is covers(wide, narrow)


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
