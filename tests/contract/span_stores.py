"""What the tests of span stores share: a day, its settlement, and what it cost."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.pipelines.settle import settle_tick
from controlplane.signals.ports import SpanReader, SpanWriter
from controlplane.signals.queries import CostQuery

AT: Final = datetime(2026, 11, 20, 10, tzinfo=UTC)
DAY: Final = Window(AT - timedelta(hours=10), AT + timedelta(hours=14))
HOUR: Final = timedelta(hours=1)
TENANTS: Final = ("default",)

Rows = Callable[..., pa.Table]
"""The fixture `span_rows`."""


class Store(Protocol):
    """The fixture `spans`: an engine, and the way spans get into it."""

    store: Any
    writer: SpanWriter


def settle(spans: Store, *, now: datetime = AT + 2 * HOUR) -> None:
    """Settle what was written, as a worker would at `now`."""
    settle_tick(spans.store, now=now, ledger=None)


def costs_of_day(reader: SpanReader, **query: Any) -> list[dict[str, Any]]:
    """Return the costs of the day."""
    return reader.costs(CostQuery(tenants=TENANTS, window=DAY, **query)).to_pylist()
