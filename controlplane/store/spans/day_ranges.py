"""Time ranges that hold everything within a day of given days, as few as there are."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from controlplane.core.calendar import Window

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY = (datetime.min.replace(tzinfo=UTC) - _EPOCH).days
_LAST_DAY = (datetime.max.replace(tzinfo=UTC) - _EPOCH).days


def reach_of(days: Iterable[int]) -> list[Window]:
    """Merge each day (since 1970) and its neighbors into disjoint windows, ascending.

    Separate windows let the store prune: one span that is a month late must not make a
    settlement read the month.
    """
    windows: list[Window] = []
    for day in sorted(set(days)):
        start, end = _instant(day - 1), _instant(day + 2)
        if windows and start <= windows[-1].end:
            windows[-1] = Window(windows[-1].start, end)
        else:
            windows.append(Window(start, end))
    return windows


def _instant(day: int) -> datetime:
    """Return a day's first instant, or the nearest that can be written."""
    return _EPOCH + timedelta(days=min(max(day, _FIRST_DAY), _LAST_DAY))
