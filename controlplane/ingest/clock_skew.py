"""Calls of emitters whose clock is ahead: when they are accounted (algorithms C8).

A start long after its arrival is a wrong clock: taken at its word the call would fall into a window
that has not begun, be priced by a list of tomorrow, and hold a budget open. It is accounted at its
start less the emitter's estimated skew. Estimates are stored and stay, the first that explains a start
is taken, so that a span that is sent again is moved alike and is known again.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from controlplane.core.instants import HOUR_US
from controlplane.ingest.columns import Bools, Int64s

AHEAD_US: Final = 5 * 60 * 1_000_000
"""A start is in the future from here on: less is a clock like any other."""

REVISED_US: Final = 15 * 60 * 1_000_000
"""An estimate that leaves a start this long before its arrival does not explain it: the clock was
set, it is another machine's, or the span waited to be sent."""

MAX_PER_EMITTER: Final = 8
"""Clocks told apart under one name: those of a service's machines, and one that was set."""
MAX_ESTIMATES: Final = 10_000
"""Names are a sender's choice; what is explained by no estimate is moved by whole hours."""

Emitter = tuple[str, str, str]
"""(domain, key, service)."""


class Skew(msgspec.Struct, frozen=True):
    """How far an emitter's clock is ahead, as it was learned."""

    emitter: Emitter
    ahead_us: int
    since_us: int
    """The arrival that it was learned from."""


class Corrected(msgspec.Struct, frozen=True):
    """What becomes of starts in the future."""

    ahead_us: Int64s
    """How far each is moved back."""
    learned: tuple[Skew, ...]


def starts_ahead(starts_us: Int64s, received_us: Int64s) -> Int64s:
    """Return the rows whose start is in the future of their arrival."""
    return np.flatnonzero(starts_us > received_us + AHEAD_US)


def correct(
    starts_us: Int64s,
    received_us: Int64s,
    emitters: Sequence[Emitter],
    *,
    known_us: Mapping[Emitter, Sequence[int]],
) -> Corrected:
    """Say how far to move rows that `starts_ahead` found; arguments are parallel to those.

    Args:
        starts_us: as the emitters say.
        received_us: when each arrived.
        emitters: whose each is.
        known_us: the estimates of each emitter, as they were learned: the first that explains a
            start moves it, so that later ones do not move what was stored before.
    """
    seen = starts_us - received_us
    moves = -(-seen // HOUR_US) * HOUR_US
    learned: list[Skew] = []
    room = MAX_ESTIMATES - sum(map(len, known_us.values()))
    rows_of: dict[Emitter, list[int]] = {}
    for row, emitter in enumerate(emitters):
        rows_of.setdefault(emitter, []).append(row)
    for emitter, numbers in sorted(rows_of.items()):
        left, known = np.array(numbers), known_us.get(emitter, ())
        for ahead_us in known:
            left = _move(moves, left, seen, ahead_us=ahead_us)
        if len(left) and len(known) < MAX_PER_EMITTER and len(learned) < room:
            ahead_us = int(np.sort(seen[left])[len(left) // 2])  # one stray start is no clock
            learned.append(Skew(emitter, ahead_us, int(received_us[left].min())))
            _move(moves, left, seen, ahead_us=ahead_us)
    return Corrected(moves, tuple(learned))


def _move(moves: Int64s, rows: Int64s, seen_us: Int64s, *, ahead_us: int) -> Int64s:
    """Move the rows that an estimate explains, in place; return the others."""
    explained = _explains(ahead_us, seen_us[rows])
    moves[rows[explained]] = ahead_us
    return rows[~explained]


def _explains(ahead_us: int, seen_us: Int64s) -> Bools:
    """Whether each start, moved, is neither in the future nor long before it arrived."""
    left = seen_us - ahead_us
    return np.asarray((left <= AHEAD_US) & (left > -REVISED_US), dtype=np.bool_)
