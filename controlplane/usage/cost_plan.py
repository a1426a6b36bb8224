"""How a cost question is answered: from which grid, between which bounds, in which periods."""

from datetime import timedelta
from typing import Final

import msgspec

from controlplane.core.calendar import Period, Window, windows
from controlplane.core.errors import InvalidInputError
from controlplane.core.instants import EPOCH, align_down
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.signals.queries import CostQuery, Granularity
from controlplane.usage.dimensions import (
    BUCKET_MINUTES,
    MAX_SCAN_DAYS,
    MEASURES,
    Dimension,
    dimension,
)

BUCKET: Final = timedelta(minutes=BUCKET_MINUTES)
_PERIODS: Final = {Granularity(period.value): period for period in Period}


class CostPlan(msgspec.Struct, frozen=True):
    """A checked `CostQuery`: what a store must do, with nothing left to decide."""

    groups: tuple[Dimension, ...]
    filters: tuple[tuple[Dimension, tuple[str | None, ...]], ...]
    from_cube: Window
    """Whole buckets that the cube answers; empty when a dimension is outside the cube."""
    periods: tuple[Window, ...]
    """Calendar periods that buckets fall into, ascending; empty for total and quarter hours."""
    measures: tuple[str, ...] = MEASURES
    """What is summed: the measures, then the usage buckets asked for."""


def plan_costs(query: CostQuery) -> CostPlan:
    """Check a question and plan its answer.

    Raises:
        InvalidInputError: an unknown dimension or usage bucket; a grid that only calls hold over too long a
            window; a zone whose periods do not begin on a quarter hour (before 1972, some).
    """
    groups = tuple(dimension(name) for name in dict.fromkeys(query.group_by))
    filters = tuple(
        (dimension(name, field=f"filter.{name}"), values) for name, values in query.filters.items()
    )
    for name in query.buckets:
        if name not in BUCKET_NAMES:
            raise InvalidInputError("buckets", f"no usage bucket {name!r}")
    outside = [d.name for d in (*groups, *(d for d, _ in filters)) if not d.in_cube]
    whole = _whole_buckets(query.window)
    if outside:
        _refuse_long_scan(query.window, outside[0])
        whole = Window(query.window.start, query.window.start)
    return CostPlan(groups, filters, whole, _periods(query), (*MEASURES, *query.buckets))


def plan_repeats(query: CostQuery) -> CostPlan:
    """Check and plan a question about calls that repeat others: only calls can answer it.

    Raises:
        InvalidInputError: as `plan_costs`; the window is too long.
    """
    _refuse_long_scan(query.window, "duplicates")
    return plan_costs(msgspec.structs.replace(query, granularity=Granularity.TOTAL))


def _whole_buckets(window: Window) -> Window:
    start = window.start + (EPOCH - window.start) % BUCKET
    end = align_down(window.end, BUCKET)
    return Window(start, end) if start < end else Window(window.start, window.start)


def _refuse_long_scan(window: Window, name: str) -> None:
    if window.end - window.start > timedelta(days=MAX_SCAN_DAYS):
        raise InvalidInputError(
            name,
            f"only calls know it, and they are read over at most {MAX_SCAN_DAYS} days",
            "Ask for a shorter window or another dimension",
        )


def _periods(query: CostQuery) -> tuple[Window, ...]:
    period = _PERIODS.get(query.granularity)
    if period is None:
        return ()
    found = tuple(windows(period, query.window, zone=query.zone, calendar=query.calendar))
    for window in found:
        if (window.start - EPOCH) % BUCKET:
            raise InvalidInputError(
                "zone",
                f"{query.zone} has a {period.value} that begins off the quarter hour",
                "Ask in UTC for this window",
            )
    return found
