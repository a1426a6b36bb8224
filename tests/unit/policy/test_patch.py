"""A patch gives exactly the body that was signed, or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.policy.patch import Patch, make_patch, read_patch

BODIES = st.text(alphabet="abé€𝄞", max_size=40).map(str.encode)


@given(before=BODIES, after=BODIES)
def test_patch_gives_the_body_whatever_both_hold(before: bytes, after: bytes) -> None:
    """Also through its written form, and what is between is text by itself."""
    made = make_patch(before, after)
    read = read_patch(made.place().encode(), made.middle)
    assert made == read
    assert read is not None
    assert after == read.apply(before)
    made.middle.decode()


@given(one=BODIES, after=BODIES, other=BODIES)
def test_patch_of_another_body_gives_nothing(one: bytes, after: bytes, other: bytes) -> None:
    """Only the very bytes that it was made of will do."""
    found = make_patch(one, after).apply(other)
    assert found == (after if one == other else None)


def test_patch_is_as_small_as_the_change() -> None:
    rates = b'"rate_card":{' + b",".join(b'"m%d":{"input_nusd":%d}' % (i, i) for i in range(9_000))
    before = b'{"gen":7,"rules":[{"max_tokens":100}],' + rates + b"}}"
    after = b'{"gen":8,"rules":[{"max_tokens":250}],' + rates + b"}}"
    assert b'8,"rules":[{"max_tokens":25' == make_patch(before, after).middle


@pytest.mark.parametrize(
    "change",
    [{"sha256": "0" * 64}, {"head": 3}, {"tail": 3}, {"middle": b"zz"}, {"head": 10**8}],
)
def test_damaged_patch_gives_nothing(change: dict[str, object]) -> None:
    good = make_patch(b"aaaa1bbbb", b"aaaa2bbbb")
    fields = {name: getattr(good, name) for name in good.__struct_fields__}
    assert b"aaaa2bbbb" == good.apply(b"aaaa1bbbb")
    assert Patch(**{**fields, **change}).apply(b"aaaa1bbbb") is None


@pytest.mark.parametrize("place", [b"", b"1 2 3 4", b"0" * 64 + b" " + b"0" * 64 + b" -1 4"])
def test_place_of_another_form_is_no_patch(place: bytes) -> None:
    assert read_patch(place, b"") is None
