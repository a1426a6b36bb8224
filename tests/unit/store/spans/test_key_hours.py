"""Hours in which a key may be: none is ever missed, and few are named for nothing."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.store.spans import key_hours
from controlplane.store.spans.key_hours import Hashes, Hours, KeyHours, KeySet

FIRST = 480_000
"""An hour; the first of a day."""


class Stored:
    """Keys by hour, as a store has them, and how many were read of it."""

    def __init__(self) -> None:
        self.keys: defaultdict[int, set[int]] = defaultdict(set)
        self.read_keys = 0

    def count(self, first: int, last: int) -> dict[int, int]:
        return {h: len(keys) for h, keys in self.keys.items() if first <= h < last and keys}

    def read(self, first: int, last: int) -> Iterator[tuple[Hashes, Hours]]:
        pairs = [(k, h) for h in range(first, last) for k in self.keys.get(h, ())]
        self.read_keys += len(pairs)
        for start in range(0, len(pairs), 3):  # in parts that end anywhere
            yield _arrays(pairs[start : start + 3])

    def hours(self) -> KeyHours:
        extent = (min(self.keys), max(self.keys)) if self.keys else None
        return KeyHours(self.count, self.read, extent=extent)


def _arrays(pairs: list[tuple[int, int]]) -> tuple[Hashes, Hours]:
    keys, hours = [key for key, _ in pairs], [hour for _, hour in pairs]
    return np.array(keys, np.uint64), np.array(hours, np.int64)


def _key(number: int) -> int:
    """Numbers whose forty bits differ, or only the bits beyond them."""
    return (number // 2 << 30) + number


def _claims(hours: KeyHours, asked: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """Ask about keys on days; middle days only, each of which stands for those beside it, too."""
    middle = [(key, 24 * day + key % 24) for key, day in asked if day % 3 == FIRST // 24 % 3]
    return {
        (int(key), hour)
        for claimed, keys in hours.claims(*_arrays(middle))
        for hour in claimed
        for key in keys
    }


# A key, its hour, and whether it is stored first, or settled while the hours are kept.
drawn = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 80)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(drawn, max_size=6), st.integers(1, 40), st.integers(1, 5))
def test_no_hour_that_has_a_key_is_ever_left_out(
    ticks: list[list[tuple[int, int]]], most_bytes: int, most_of_hour: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_hours, "MAX_BYTES", most_bytes)
        patch.setattr(key_hours, "MOST_OF_HOUR", most_of_hour)
        patch.setattr(key_hours, "MAX_READ_KEYS", 4)
        stored = Stored()
        hours = stored.hours()
        for tick in ticks:
            new = [(_key(number), FIRST + hour) for number, hour in tick]
            hours.add(*_arrays(new))
            asked = [
                (_key(number), FIRST // 24 + day) for number in range(0, 41, 5) for day in range(4)
            ]
            found = hours.hours_of(*_arrays(asked))
            claims = _claims(hours, asked)
            for key, hour in [*new, *((k, h) for h, keys in stored.keys.items() for k in keys)]:
                if any(key == other for other, _ in asked):
                    assert hour in found[hour // 24]
                    assert (key, hour) in claims
            for key, hour in new:
                stored.keys[hour].add(key)


def test_a_set_claims_nothing_that_differs_in_forty_bits() -> None:
    numbers = np.random.default_rng(3).integers(0, 2**63, 20_000, dtype=np.uint64)
    known = KeySet()
    for size in (5_000, 10_000, 5_000):  # the last are known
        known.add(numbers[size - 5_000 : size])

    assert known.may_hold(numbers[:10_000]).all()
    assert not known.may_hold(numbers[10_000:]).any()
    assert (10_000, 50_000) == (len(known), known.size)


def test_hours_are_read_once_and_then_known() -> None:
    stored = Stored()
    for number in range(3_000):
        stored.keys[FIRST + number % 48].add(_key(number))
    hours = stored.hours()
    asked = _arrays([(_key(n), FIRST // 24 + n % 2) for n in range(100_000, 100_200)])

    assert [{}, {}] == [hours.hours_of(*asked) for _ in range(2)]
    assert (3_000, 0) == (stored.read_keys, hours.looked_through)


def test_a_few_late_keys_read_nothing_into_memory() -> None:
    stored = Stored()
    for number in range(2_400):
        stored.keys[FIRST + number % 24].add(_key(number))
        stored.keys[FIRST + 240 + number % 24].add(_key(10_000 + number))
    hours = stored.hours()
    on_time = [(_key(n), FIRST // 24 + 10) for n in range(100_000, 100_200)]
    late = [(_key(n), FIRST // 24) for n in range(2)]

    assert {FIRST // 24: list(range(FIRST, FIRST + 24))} == hours.hours_of(*_arrays(on_time + late))
    assert 2_400 == stored.read_keys
