"""Which spans are surely new: a Bloom filter per start hour, in front of the anti-join.

A batch against fifty million rows is 600 ms by key alone and 4 ms within its own hours, but a
busy hour has millions of rows of its own (algorithms I2). The filter has no false negatives: a
span it does not know is not stored. Those it may know, about one in a hundred, are looked up.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

HOUR_US: Final = 3_600_000_000
MAX_HOURS: Final = 96
"""Filters kept; beyond this the hour used longest ago is forgotten and read again when needed."""

_PROBES: Final = 4
_BITS_PER_SPAN: Final = 12
_FIRST_CAPACITY: Final = 1 << 16

Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


class BloomFilter:
    """A set of 64-bit hashes that may claim to hold a few more than it does."""

    def __init__(self, capacity: int) -> None:
        """Make room for `capacity` hashes at about 0.5 % false claims."""
        self.capacity = capacity
        self.count = 0
        bits = 1 << (capacity * _BITS_PER_SPAN - 1).bit_length()
        self._mask = np.uint64(bits - 1)
        self._words = np.zeros(bits >> 6, dtype=np.uint64)

    def add(self, hashes: Hashes) -> None:
        """Hold these too."""
        self.count += len(hashes)
        for at in self._positions(hashes):
            bit = np.uint64(1) << (at & np.uint64(63))
            np.bitwise_or.at(self._words, at >> np.uint64(6), bit)

    def may_hold(self, hashes: Hashes) -> Mask:
        """Answer per hash; False is certain."""
        held = np.ones(len(hashes), dtype=np.bool_)
        for at in self._positions(hashes):
            word = self._words[at >> np.uint64(6)]
            held &= (word >> (at & np.uint64(63))) & np.uint64(1) == np.uint64(1)
        return held

    def _positions(self, hashes: Hashes) -> list[Hashes]:
        # Two halves of one good 64-bit hash make all probes (Kirsch and Mitzenmacher 2006).
        step = (hashes >> np.uint64(32)) | np.uint64(1)
        return [
            np.asarray((hashes + np.uint64(probe) * step) & self._mask, dtype=np.uint64)
            for probe in range(_PROBES)
        ]


class SeenFilter:
    """Every stored span's hash, by start hour; hours are read from the store when first needed."""

    def __init__(self, read_hour: Callable[[int], Hashes]) -> None:
        """Use `read_hour(hour)` to list the hashes stored with that start hour."""
        self._read_hour = read_hour
        self._hours: OrderedDict[int, BloomFilter] = OrderedDict()

    def may_hold(self, hashes: Hashes, hours: npt.NDArray[np.int64]) -> Mask:
        """Answer per span whether it may be stored; False is certain."""
        held = np.zeros(len(hashes), dtype=np.bool_)
        for hour in np.unique(hours):
            rows = hours == hour
            held[rows] = self._hour(int(hour)).may_hold(hashes[rows])
        return held

    def add(self, hashes: Hashes, hours: npt.NDArray[np.int64]) -> None:
        """Remember spans that were stored just now."""
        for hour in np.unique(hours):
            known = self._hours.get(int(hour))
            if known is None:
                continue  # forgotten meanwhile: it is read from the store when next needed
            if known.count + int(np.sum(hours == hour)) > known.capacity:
                del self._hours[int(hour)]
                continue
            known.add(hashes[hours == hour])

    def _hour(self, hour: int) -> BloomFilter:
        known = self._hours.get(hour)
        if known is None:
            stored = self._read_hour(hour)
            known = BloomFilter(max(_FIRST_CAPACITY, 4 * len(stored)))
            known.add(stored)
            self._hours[hour] = known
            if len(self._hours) > MAX_HOURS:
                self._hours.popitem(last=False)
        self._hours.move_to_end(hour)
        return known
