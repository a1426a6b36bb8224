"""Calls of emitters whose clock is ahead: when they are accounted (algorithms C8).

A start long after its arrival is a wrong clock: taken at its word the call would fall into a window
that has not begun, be priced by a list of tomorrow, and hold a budget open. It is accounted at its
start less the emitter's estimated skew. The estimate is stored and stays in force while it explains
what arrives, so that a span that is sent again is moved alike and is known again.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from controlplane.ingest.columns import Bools, Int64s

AHEAD_US: Final = 5 * 60 * 1_000_000
"""A start is in the future from here on: less is a clock like any other."""

REVISED_US: Final = 15 * 60 * 1_000_000
"""An estimate that leaves a start this long before its arrival is looked at again: the clock was
set, or the span waited to be sent."""

HOUR_US: Final = 3_600 * 1_000_000
MAX_EMITTERS: Final = 10_000
"""Estimates kept. Names are a sender's choice; what comes beyond is moved by whole hours."""

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
    known_us: Mapping[Emitter, int],
) -> Corrected:
    """Say how far to move rows that `starts_ahead` found; arguments are parallel to those.

    Args:
        starts_us: as the emitters say.
        received_us: when each arrived.
        emitters: whose each is.
        known_us: the estimate in force of each emitter that has one.
    """
    seen = starts_us - received_us
    moves = np.zeros_like(seen)
    learned: list[Skew] = []
    rows_of: dict[Emitter, list[int]] = {}
    for row, emitter in enumerate(emitters):
        rows_of.setdefault(emitter, []).append(row)
    for emitter, numbers in sorted(rows_of.items()):
        rows = np.array(numbers)
        ahead_us = known_us.get(emitter)
        if ahead_us is None or not _explains(ahead_us, seen[rows]).any():
            ahead_us = int(np.sort(seen[rows])[len(rows) // 2])  # the median: one stray is no clock
            if emitter in known_us or len(known_us) + len(learned) < MAX_EMITTERS:
                learned.append(Skew(emitter, ahead_us, int(received_us[rows].min())))
            else:
                ahead_us = 0
        moves[rows] = np.where(
            _explains(ahead_us, seen[rows]), ahead_us, -(-seen[rows] // HOUR_US) * HOUR_US
        )
    return Corrected(moves, tuple(learned))


def _explains(ahead_us: int, seen_us: Int64s) -> Bools:
    """Whether each start, moved, is neither in the future nor long before it arrived."""
    left = seen_us - ahead_us
    return np.asarray((left <= AHEAD_US) & (left > -REVISED_US), dtype=np.bool_)
