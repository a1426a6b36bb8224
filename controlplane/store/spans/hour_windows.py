"""Time ranges that hold given hours: what a query is bounded by."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from controlplane.core.calendar import Window
from controlplane.core.instants import EPOCH

MAX_WINDOWS: Final = 12
"""Queries for one set of hours; each is a millisecond whatever it finds."""

_HOUR: Final = timedelta(hours=1)
_FIRST: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _HOUR
_LAST: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _HOUR


def windows_of(hours: Iterable[int]) -> list[Window]:
    """Cover hours (since 1970) with few disjoint windows, ascending.

    Separate windows let the store prune: one span that is a month late must not make a settlement
    read the month. Of too many windows, those least apart are one.
    """
    ordered = sorted(set(hours))
    gaps = [(later - hour, later) for hour, later in pairwise(ordered)]
    widest = sorted((gap for gap in gaps if gap[0] > 1), reverse=True)[: MAX_WINDOWS - 1]
    starts = [*ordered[:1], *sorted(hour for _, hour in widest)]
    ends = [ordered[ordered.index(start) - 1] for start in starts[1:]] + ordered[-1:]
    return [
        Window(_instant(start), _instant(end + 1)) for start, end in zip(starts, ends, strict=True)
    ]


def _instant(hour: int) -> datetime:
    """Return an hour's first instant, or the nearest that can be written."""
    return EPOCH + min(max(hour, _FIRST), _LAST) * _HOUR
