"""Ids that sort by time."""

from controlplane.core.ids import ulid


def test_the_published_example() -> None:
    """The ULID specification's own: 01ARZ3NDEKTSV4RRFFQ69G5FAV is of 2016-07-30T23:54:10.259Z."""
    randomness = 0xD6764C61EFB99302BD5B
    assert "call_01arz3ndektsv4rrffq69g5fav" == ulid("call", 1_469_922_850_259, randomness)


def test_all_26_characters_and_in_order() -> None:
    """However small the number is; later is greater."""
    assert "x_" + 26 * "0" == ulid("x", 0, 0)
    assert ulid("x", 1, 2**80 - 1) < ulid("x", 2, 0)
