"""Questions a span store is asked; a store that can not answer exactly refuses."""

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from controlplane.core.calendar import Window
from controlplane.core.fiscal import GREGORIAN, FiscalCalendar

MAX_PAGE_ROWS = 1_000
MAX_BATCH_ROWS = 50_000
"""Rows that are held at once when every call is read."""
LONGEST_CALL = timedelta(hours=1)
"""How long before its end a call is looked for."""
MAX_CHART_ROWS = 5_000
LATENCY_BOUNDS_US = (
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
)
"""Upper bounds of the latency histogram that `/metrics` serves, microseconds."""


class Granularity(StrEnum):
    """Width of a time bucket in a cost answer; `total` is one bucket."""

    QUARTER_HOUR = "quarter_hour"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"
    TOTAL = "total"


class CostQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Cost and usage over `[start, end)`, grouped and filtered by dimensions.

    `group_by` and the keys of `filters` are names of `usage.dimensions`; a filter keeps rows whose
    value is in its tuple, where None stands for unattributed.
    """

    tenants: tuple[str, ...]
    window: Window
    granularity: Granularity = Granularity.TOTAL
    group_by: tuple[str, ...] = ()
    filters: dict[str, tuple[str | None, ...]] = {}
    zone: str = "UTC"
    calendar: FiscalCalendar = GREGORIAN
    buckets: tuple[str, ...] = ()
    """Usage buckets (`core.tokens`) to answer beside the measures."""


class CallQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A page of calls, newest first; `before` is the last row's (start_time, call_id)."""

    tenants: tuple[str, ...]
    window: Window
    filters: dict[str, tuple[str | None, ...]] = {}
    before: tuple[datetime, str] | None = None
    limit: int = 100


class TraceQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Every stored span of one trace, in start order."""

    tenants: tuple[str, ...]
    trace_hi: int
    trace_lo: int
