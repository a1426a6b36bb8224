"""OTLP metrics of the business -> a value a day, kept as an uploaded metric is.

A day's value is worked out whole from the samples that are stored, never added to: a sample that is
sent again, comes late or is read twice changes nothing. Counters and histograms give how much they
grew in the organisation's day, gauges their last value in it; series of one name are summed.
"""

import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from controlplane.core.calendar import Period, Window, windows
from controlplane.core.fiscal import Dates
from controlplane.signals.signal_ports import SignalReader
from controlplane.usage.ports import BusinessMetrics

WATCHED: Final = timedelta(days=2)
"""Later samples of a day change it for so long."""
MAX_VALUE: Final = Decimal(10) ** 15
MAX_NAME_CHARS: Final = 100
MAX_METRICS: Final = 1_000


def keep_business_metrics(
    reader: SignalReader,
    kept: BusinessMetrics,
    *,
    tenants: tuple[str, ...],
    names: Sequence[str],
    zone: str,
    now: datetime,
) -> int:
    """Keep the days that are still watched, the open one included; return how many values changed.

    `names` are names of metrics, in which `*` stands for anything.
    """
    if not names or not tenants:
        return 0
    changed = 0
    for day in windows(Period.DAY, Window(now - WATCHED, now), zone=zone):
        local = day.start.astimezone(ZoneInfo(zone)).date()
        found = reader.measured(tenants, pattern_of(names), day).to_pylist()
        for row in found[:MAX_METRICS]:
            value = _exact(row["value"])
            if value is not None and len(row["metric"]) <= MAX_NAME_CHARS:
                changed += _keep(kept, (row["tenant"], row["metric"], local), value, now=now)
    return changed


def pattern_of(names: Sequence[str]) -> str:
    """Return a regular expression (RE2) that names and only they match whole."""
    return "|".join(
        "(?:" + ".*".join(re.escape(part) for part in name.split("*")) + ")" for name in names
    )


def _keep(
    kept: BusinessMetrics, of: tuple[str, str, date], value: Decimal, *, now: datetime
) -> bool:
    tenant, name, day = of
    known = kept.metric(tenant, name, days=Dates(day, day + timedelta(days=1)))
    if known.get(day) == value:
        return False
    kept.put_metric(tenant, name, {day: value}, now=now)
    return True


def _exact(value: float) -> Decimal | None:
    """Read a measured number as the shortest decimal that is it; None beyond what is kept."""
    exact = Decimal(repr(value))
    if not 0 <= exact <= MAX_VALUE:
        return None
    return exact.quantize(Decimal(1)) if exact == exact.to_integral_value() else exact
