"""In which hours a key may be stored, so that a settlement reads those hours and not whole days.

A new report is looked for among everything within a day of it, and nearly always nothing is there.
Per start hour, forty bits of each key's hash say so: of 5,000 keys asked about seven million, one
in thirty settlements reads an hour for nothing. Nothing that is there is ever missed. What is kept
is no truth: an hour that is not known is read from the store, a few at a time, or looked through.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

HOURS_A_DAY: Final = 24
MAX_BYTES: Final = 48 << 20
"""Of all hours together: 10 million keys, five bytes each. Beyond it the hours that were asked for
longest ago are forgotten, and looked through when a key could be there."""
MOST_OF_HOUR: Final = 6_000_000
"""Keys of one hour that are kept; a busier hour is looked through."""
MAX_READ_KEYS: Final = 1_000_000
"""Read from the store for one settlement (at least one hour): a restart costs a few slower ones."""
WORTH_READING: Final = 64
"""Keys that must be asked about a day, or a quarter of all, for its hours to be read: a few late
reports do not displace what every settlement needs."""

BYTES_A_KEY: Final = 5
RECENT_SHARE: Final = 4
"""What was added lately is at most a quarter of an hour: then it is put among the rest."""

Hashes = npt.NDArray[np.uint64]
Hours = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_DROPPED_BITS: Final = np.uint64(24)
_NONE: Final[Hashes] = np.zeros(0, dtype=np.uint64)


def distinct(values: Hashes) -> Hashes:
    """Give each once, ascending; `numpy.unique` hashes them, which takes forty times as long."""
    ordered = np.sort(values)
    is_first = np.ones(len(ordered), dtype=np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return np.asarray(ordered[is_first], np.uint64)


def repeated(values: Hashes) -> Hashes:
    """Give those that are there more than once, ascending."""
    ordered = np.sort(values)
    return distinct(ordered[1:][ordered[1:] == ordered[:-1]])


class KeySet:
    """Forty bits of each hash, ascending; the latest apart, so that few are added at little cost."""

    def __init__(self) -> None:
        self._all = _Run.of(_NONE)
        self._recent = _Run.of(_NONE)

    def __len__(self) -> int:
        """Count what is held."""
        return len(self._all.high) + len(self._recent.high)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return BYTES_A_KEY * len(self)

    def add(self, hashes: Hashes) -> None:
        """Hold these too."""
        new = distinct(hashes[~self.may_hold(hashes)] >> _DROPPED_BITS)
        if not len(new):
            return
        self._recent = self._recent.merged(_Run.of(new))
        if len(self._recent.high) * RECENT_SHARE > len(self._all.high):
            self._all, self._recent = self._all.merged(self._recent), _Run.of(_NONE)

    def may_hold(self, hashes: Hashes) -> Mask:
        """Answer per hash; False is certain. Quickest for ascending hashes."""
        bits = hashes >> _DROPPED_BITS
        return np.asarray(self._all.holds(bits) | self._recent.holds(bits), np.bool_)


class _Run(msgspec.Struct, frozen=True):
    """Distinct numbers of forty bits, ascending."""

    high: npt.NDArray[np.uint32]
    low: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, bits: Hashes) -> "_Run":
        return cls((bits >> np.uint64(8)).astype(np.uint32), bits.astype(np.uint8))

    def merged(self, other: "_Run") -> "_Run":
        """Hold what either does; they have nothing in common."""
        at = np.searchsorted(self.high, other.high)
        high = np.insert(self.high, at, other.high)
        return _Run(high, np.insert(self.low, at, other.low))

    def holds(self, bits: Hashes) -> Mask:
        high, low = (bits >> np.uint64(8)).astype(np.uint32), bits.astype(np.uint8)
        held = np.zeros(len(bits), dtype=np.bool_)
        at = np.searchsorted(self.high, high)
        rows = np.arange(len(bits))
        while len(rows):  # the few that share 32 bits are side by side
            inside = at < len(self.high)
            rows, at = rows[inside], at[inside]
            alike = self.high[at] == high[rows]
            rows, at = rows[alike], at[alike]
            held[rows] |= self.low[at] == low[rows]
            at = at + 1
        return held


class KeyHours:
    """The keys of each start hour that was asked for lately; belongs to the settler's thread."""

    def __init__(
        self,
        count: Callable[[int, int], dict[int, int]],
        read: Callable[[int, int], Iterator[tuple[Hashes, Hours]]],
        *,
        extent: tuple[int, int] | None,
    ) -> None:
        """Use callbacks on the store, both for hours from the first to before the last.

        Args:
            count: the keys of each hour that has any.
            read: their hashes with their hours, in parts.
            extent: the first hour and the last that has any.
        """
        self._extent = extent
        self._count = count
        self._read = read
        self._hours: OrderedDict[int, KeySet] = OrderedDict()
        self._left_out: set[int] = set()
        self._newest_day: int | None = None
        self._added: dict[int, Hashes] = {}
        self.looked_through = 0
        """Hours that were answered without being known; for tests and counters."""

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return sum(known.size for known in self._hours.values())

    def add(self, hashes: Hashes, hours: Hours) -> None:
        """Know these too, which the store has, or will have when a settlement is applied.

        Said again they change nothing; if the settlement fails they are claimed for nothing.
        """
        self._added = dict(_by_hour(hashes, hours))
        if not self._added:
            return
        first, last = self._extent or (min(self._added), max(self._added))
        self._extent = (min(first, *self._added), max(last, *self._added))
        for hour, keys in self._added.items():
            if hour in self._hours:
                self._add(hour, keys)
        self._shrink(needed=set())

    def claims(self, hashes: Hashes, hours: Hours) -> Iterator[tuple[list[int], Hashes]]:
        """Give hours, a day at a time, and the keys that may be stored in one of them.

        Each key is looked for on the day of its hour and those beside.
        """
        asked: dict[int, list[Hashes]] = {}
        for day, keys in _by_hour(hashes, hours // HOURS_A_DAY):
            for near in (day - 1, day, day + 1):
                asked.setdefault(near, []).append(keys)
        self._learn({day: sum(map(len, groups)) for day, groups in asked.items()})
        for day, groups in asked.items():
            found: dict[int, Hashes] = {}
            for hour in self._hours_in(day):
                held = np.concatenate([keys[self._may_hold(hour, keys)] for keys in groups])
                if len(held):
                    found[hour] = held
            if found:
                yield list(found), distinct(np.concatenate(list(found.values())))

    def hours_of(self, hashes: Hashes, days: Hours) -> dict[int, list[int]]:
        """Answer, per day, the hours of it in which a key asked about that day may be stored."""
        asked = dict(_by_hour(hashes, days))
        self._learn({day: len(keys) for day, keys in asked.items()})
        found: dict[int, list[int]] = {}
        for day, keys in asked.items():
            hours = [hour for hour in self._hours_in(day) if self._may_hold(hour, keys).any()]
            if hours:
                found[day] = hours
        return found

    def _hours_in(self, day: int) -> range:
        """Give the hours of a day in which anything is stored, or between such."""
        first, last = self._extent or (0, -1)
        start = day * HOURS_A_DAY
        return range(max(start, first), min(start + HOURS_A_DAY, last + 1))

    def _may_hold(self, hour: int, keys: Hashes) -> Mask:
        known = self._hours.get(hour)
        if known is None:
            self.looked_through += 1
            return np.ones(len(keys), dtype=np.bool_)
        self._hours.move_to_end(hour)
        return known.may_hold(keys)

    def _learn(self, counts: dict[int, int]) -> None:
        """Read hours of the days that much is asked about, the newest first."""
        enough = min(WORTH_READING, max(1, sum(counts.values()) // 4))
        wanted = sorted(day for day, keys in counts.items() if keys >= enough)
        if not wanted:
            return
        if wanted[-1] != self._newest_day:  # what was needed then makes room
            self._newest_day = wanted[-1]
            self._left_out.clear()
        left = MAX_READ_KEYS
        for day in reversed(wanted):
            unknown = [
                hour
                for hour in self._hours_in(day)
                if hour not in self._hours and hour not in self._left_out
            ]
            if unknown and left > 0:
                left -= self._read_some(unknown, most=left)
        self._shrink(needed={hour for day in wanted for hour in self._hours_in(day)})

    def _read_some(self, unknown: list[int], *, most: int) -> int:
        """Read the newest of these hours, at least one; return how many keys they have."""
        counts = self._count(unknown[0], unknown[-1] + 1)
        chosen: list[int] = []
        keys = 0
        for hour in sorted(unknown, reverse=True):
            here = counts.get(hour, 0)
            if here > MOST_OF_HOUR:
                self._left_out.add(hour)
            elif keys and keys + here > most:
                break
            else:
                chosen.append(hour)
                keys += here
        for hour in chosen:
            self._hours[hour] = KeySet()
            self._hours[hour].add(self._added.get(hour, _NONE))  # maybe not stored yet
        if keys:
            for hashes, hours in self._read(min(chosen), max(chosen) + 1):
                for hour, some in _by_hour(hashes, hours):
                    if hour in chosen:
                        self._hours[hour].add(some)
        return keys

    def _add(self, hour: int, keys: Hashes) -> None:
        known = self._hours[hour]
        known.add(keys)
        if len(known) > MOST_OF_HOUR:
            del self._hours[hour]
            self._left_out.add(hour)

    def _shrink(self, *, needed: set[int]) -> None:
        """Forget hours nobody asks for, then the oldest of those that are asked for."""
        size = self.size
        while size > MAX_BYTES:
            hour = next((one for one in self._hours if one not in needed), min(self._hours))
            size -= self._hours.pop(hour).size
            if not needed or hour in needed:
                self._left_out.add(hour)


def _by_hour(hashes: Hashes, hours: Hours) -> Iterator[tuple[int, Hashes]]:
    """Give the distinct hashes of each hour (or day), ascending."""
    order = np.argsort(hours, kind="stable")
    hashes, hours = hashes[order], hours[order]
    turns = np.flatnonzero(np.diff(hours)) + 1
    for first, part in zip([0, *turns], np.split(hashes, turns), strict=True):
        if len(part):
            yield int(hours[first]), distinct(part)
