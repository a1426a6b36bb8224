"""Which spans are surely new: a Bloom filter per start hour, in front of the anti-join.

A batch against fifty million rows is 600 ms by key alone and 4 ms within its own hours, but a
busy hour has millions of rows of its own (algorithms I2). The filter has no false negatives: a
span it does not know is not stored. Those it may know, about one in a hundred, are looked up.

To read an hour costs more than to look up one span, and late spans may be of as many hours as they
are: one batch has few hours read, those with most of its spans first. It may hold every span of an
hour that was not read, and the caller looks them all up at once.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

MAX_HOURS: Final = 96
"""Filters kept whatever their size, and MAX_BYTES of them whatever their number; beyond both the
hour used longest ago is forgotten and read again when needed."""
MAX_BYTES: Final = 64 << 20
MAX_READS: Final = 4
"""Hours that are read for one batch; each is a query."""
WORTH_FORGETTING: Final = 64
"""Spans that an hour must have in a batch for another hour to be forgotten in its favor."""

ADDED_AT_ONCE: Final = 131_072
"""Hashes whose bits are worked out at once: all of a busy hour's take many times the filter."""

_PROBES: Final = 4
_BITS_PER_SPAN: Final = 12
_FIRST_CAPACITY: Final = 1 << 14

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
        self.size = self._words.nbytes

    def add(self, hashes: Hashes) -> None:
        """Hold these too."""
        self.count += len(hashes)
        for start in range(0, len(hashes), ADDED_AT_ONCE):
            for at in self._positions(hashes[start : start + ADDED_AT_ONCE]):
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

    def __init__(self, read_hour: Callable[[int], Iterable[Hashes]]) -> None:
        """Use `read_hour(hour)` to list the hashes stored with that start hour, in parts."""
        self._read_hour = read_hour
        self._hours: OrderedDict[int, BloomFilter] = OrderedDict()
        self._bytes = 0

    def may_hold(self, hashes: Hashes, hours: npt.NDArray[np.int64]) -> Mask:
        """Answer per span whether it may be stored; False is certain.

        True for each span of an hour that is not known and was not read (see MAX_READS).
        """
        held = np.ones(len(hashes), dtype=np.bool_)
        groups = rows_by_hour(hours)
        self._read_some({hour: len(rows) for hour, rows in groups.items()})
        for hour, rows in groups.items():
            known = self._hours.get(hour)
            if known is not None:
                held[rows] = known.may_hold(hashes[rows])
        return held

    def add(self, hashes: Hashes, hours: npt.NDArray[np.int64]) -> None:
        """Remember spans that were stored just now."""
        for hour, rows in rows_by_hour(hours).items():
            known = self._hours.get(hour)
            if known is None:
                continue  # not read, or forgotten meanwhile: the store has them when it is
            if known.count + len(rows) > known.capacity:
                self._forget(hour)
                continue
            known.add(hashes[rows])

    def _read_some(self, counts: dict[int, int]) -> None:
        """Read those unknown hours that have most spans, and make the known ones the last used."""
        for hour in counts.keys() & self._hours.keys():
            self._hours.move_to_end(hour)
        unknown = sorted(counts.keys() - self._hours.keys(), key=lambda hour: (-counts[hour], hour))
        for hour in unknown[:MAX_READS]:
            if counts[hour] >= WORTH_FORGETTING or not self._is_full():
                self._read(hour)

    def _read(self, hour: int) -> None:
        parts = list(self._read_hour(hour))
        known = BloomFilter(max(_FIRST_CAPACITY, 4 * sum(map(len, parts))))
        for part in parts:
            known.add(part)
        self._hours[hour] = known
        self._bytes += known.size
        while self._is_full(beyond=True):
            self._forget(next(iter(self._hours)))

    def _forget(self, hour: int) -> None:
        self._bytes -= self._hours.pop(hour).size

    def _is_full(self, *, beyond: bool = False) -> bool:
        if beyond:
            return len(self._hours) > MAX_HOURS and self._bytes > MAX_BYTES
        return len(self._hours) >= MAX_HOURS and self._bytes >= MAX_BYTES


def rows_by_hour(hours: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.intp]]:
    """List the rows of each hour, ascending."""
    order = np.argsort(hours, kind="stable")
    values, first = np.unique(hours[order], return_index=True)
    parts = np.split(order, first[1:]) if len(values) else []
    return dict(zip(values.tolist(), parts, strict=True))
