"""The way out for what is not a span."""

from datetime import timedelta
from typing import Any, Final

import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.signals.samples import EVENT_SCHEMA
from controlplane.signals.schema import TIMESTAMP
from controlplane.signals.signal_ports import PLAUSIBLE_PARTS
from controlplane.store.spans.database import SpanDatabase, load, read_sql

LOOK_BACK: Final = timedelta(hours=1)
"""How far before a window a series' last sample is looked for."""
DAY_BEFORE: Final = timedelta(days=1)
"""The same for metrics of the business, which may be said a few times a day."""
_HOUR: Final = timedelta(hours=1)
_ASKED: Final = pa.schema([("trace_hi", pa.uint64()), ("trace_lo", pa.uint64())])


class SignalTableReader:
    """Implements `SignalReader`, but for deleting; any number of threads may ask at once."""

    def __init__(self, database: SpanDatabase) -> None:
        self._database = database

    def emitters(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SignalReader.emitters`; whole hours of arrival that the window touches."""
        return self._timed("emitters", tenants, _whole_hours(window))

    def instances(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SignalReader.instances`."""
        return self._timed("instances", tenants, window)

    def rejections(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SignalReader.rejections`."""
        return self._timed("rejections", tenants, _whole_hours(window))

    def growth(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SignalReader.growth`."""
        return self._timed("growth", tenants, window, look_back=LOOK_BACK)

    def gauges(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SignalReader.gauges`."""
        return self._timed("gauges", tenants, window)

    def measured(self, tenants: tuple[str, ...], names: str, window: Window) -> pa.Table:
        """See `SignalReader.measured`."""
        parameters = {
            "tenants": list(tenants),
            "names": names,
            "from": window.start - DAY_BEFORE,
            "start": window.start,
            "end": window.end,
        }
        with self._database.reading() as connection:
            return connection.execute(read_sql("measured"), parameters).to_arrow_table()

    def counted_calls(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SignalReader.counted_calls`."""
        return self._timed("counted_calls", tenants, window, plausible=PLAUSIBLE_PARTS)

    def trace_events(
        self, tenants: tuple[str, ...], traces: list[tuple[int, int]], response_ids: list[str]
    ) -> pa.Table:
        """See `SignalReader.trace_events`."""
        asked = pa.Table.from_pylist(
            [{"trace_hi": high, "trace_lo": low} for high, low in traces], schema=_ASKED
        )
        with self._database.reading() as connection:
            load(connection, asked_trace=asked)
            found = connection.execute(
                read_sql("trace_events"),
                {"tenants": list(tenants), "response_ids": response_ids},
            ).to_arrow_table()
        return found.select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA)

    def guardrails(self, tenants: tuple[str, ...]) -> pa.Table:
        """See `SignalReader.guardrails`."""
        with self._database.reading() as connection:
            found = connection.execute(read_sql("guardrails"), {"tenants": list(tenants)})
            return found.to_arrow_table()

    def _timed(
        self,
        name: str,
        tenants: tuple[str, ...],
        window: Window,
        *,
        look_back: timedelta | None = None,
        **more: int,
    ) -> pa.Table:
        parameters: dict[str, Any] = {
            **more,
            "tenants": list(tenants),
            "start": window.start,
            "end": window.end,
        }
        if look_back is not None:
            parameters["from"] = window.start - look_back
        with self._database.reading() as connection:
            found = connection.execute(read_sql(name), parameters).to_arrow_table()
        return _in_utc(found)


def _whole_hours(window: Window) -> Window:
    start = window.start.replace(minute=0, second=0, microsecond=0)
    end = window.end.replace(minute=0, second=0, microsecond=0)
    return Window(start, end if end == window.end else end + _HOUR)


def _in_utc(table: pa.Table) -> pa.Table:
    fields = [
        field.with_type(TIMESTAMP) if pa.types.is_timestamp(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))
