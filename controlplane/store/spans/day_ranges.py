"""Time ranges that hold everything within a day of given days, as few as there are."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from controlplane.core.calendar import Window

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def reach_of(days: Iterable[int]) -> list[Window]:
    """Merge each day (since 1970) and its neighbors into disjoint windows, ascending.

    Separate windows let the store prune: one span that is a month late must not make a
    settlement read the month.
    """
    windows: list[Window] = []
    for day in sorted(set(days)):
        start = _EPOCH + timedelta(days=day - 1)
        end = start + timedelta(days=3)
        if windows and start <= windows[-1].end:
            windows[-1] = Window(windows[-1].start, end)
        else:
            windows.append(Window(start, end))
    return windows
