"""The span store as plain dictionaries: what the others must answer, said row by row.

For tests and `inspect`; it settles everything anew each time and sums calls one by one.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
import pyarrow as pa

from controlplane.attribution.share import weights_of
from controlplane.core.calendar import Window
from controlplane.ingest.calls import report_rows
from controlplane.ingest.join_flags import with_join_flags
from controlplane.ingest.join_keys import WeakEmitter, is_join_key
from controlplane.ingest.settlement import (
    CHANGE_SCHEMA,
    CLOSING_SCHEMA,
    EDGE_SCHEMA,
    Settled,
    Unsettled,
)
from controlplane.ingest.subjects import Erased, Subject
from controlplane.pricing.rerate import ADJUSTMENT_SCHEMA
from controlplane.signals.ports import Written
from controlplane.signals.queries import (
    MAX_BATCH_ROWS,
    CallQuery,
    CostQuery,
    Granularity,
    TraceQuery,
)
from controlplane.signals.schema import (
    CALL_SCHEMA,
    CORRECTION_SCHEMA,
    SPAN_SCHEMA,
    SUPPRESSED_SCHEMA,
    TIMESTAMP,
)
from controlplane.store.memory.cost_sums import sum_costs, sum_ended
from controlplane.store.memory.duplicate_sums import sum_duplicates
from controlplane.store.memory.erasure import bury, forget, is_of
from controlplane.store.memory.histograms import count_latencies, count_lengths, rank_durations
from controlplane.usage.cost_plan import plan_repeats
from controlplane.usage.dimensions import dimension
from controlplane.usage.shared_costs import share_costs

Row = dict[str, Any]

_IDENTITY: Final = ("domain", "trace_hi", "trace_lo", "span_id", "start_time")


class MemorySpanStore:
    """Implements `SpanWriter`, `SpanReader` and `SettleStore`; belongs to one thread."""

    def __init__(self) -> None:
        self._spans: list[Row] = []
        self._written: dict[str, list[Row]] = {}
        self._settled_batches = 0
        self._weak: tuple[WeakEmitter, ...] = ()
        self._erased: dict[Subject, datetime] = {}
        self._calls: dict[str, Row] = {}
        self._members: list[Row] = []
        self._changes: list[Row] = []

    def write(self, spans: pa.Table, *, batch_id: str) -> Written:
        """See `SpanWriter.write`."""
        if batch_id in self._written:
            return Written(stored=0, duplicates=spans.num_rows, replayed=True)
        known = {(*_identity(row), row["content_hash"]) for row in self._spans}
        stored: list[Row] = []
        for row in spans.to_pylist():
            key = (*_identity(row), row["content_hash"])
            if key not in known:
                known.add(key)
                bury(row, self._erased)
                stored.append(row)
        self._spans += stored
        self._written[batch_id] = stored
        return Written(stored=len(stored), duplicates=spans.num_rows - len(stored), replayed=False)

    def batches(self) -> Iterator[tuple[str, pa.Table]]:
        """See `SpanSource.batches`."""
        for batch_id, rows in self._written.items():
            yield batch_id, pa.Table.from_pylist(rows, schema=SPAN_SCHEMA)

    def take(self) -> Unsettled:
        """See `SettleStore.take`: always everything."""
        spans = pa.Table.from_pylist(self._spans, schema=SPAN_SCHEMA)
        return Unsettled(
            through=len(self._written),
            lone_reports=0,
            grouped=with_join_flags(report_rows(spans), self._weak),
            edges=spans.select(EDGE_SCHEMA.names),
        )

    def apply(self, settled: Settled, *, now: datetime) -> int:
        """See `SettleStore.apply`; `now` marks nothing, because nothing is kept but calls."""
        del now
        if settled.through == self._settled_batches:
            return 0
        calls = {row["call_id"]: row for row in settled.calls.to_pylist()}
        changed = 0
        for call_id in sorted(calls.keys() | self._calls.keys()):
            before, after = self._calls.get(call_id), calls.get(call_id)
            if before and after and _content(before) == _content(after):
                calls[call_id] = before
                continue
            changed += 1
            if before:
                self._changes.append({**before, "version": settled.through, "sign": -1})
            if after:
                self._changes.append({**after, "sign": 1})
        self._calls = calls
        self._members = settled.suppressed.to_pylist()
        self._settled_batches = settled.through
        return changed

    def learn(self, *, now: datetime) -> tuple[WeakEmitter, ...]:
        """See `SettleStore.learn`: it settles with what `take_over` was told."""
        del now
        return ()

    def weak_emitters(self) -> tuple[WeakEmitter, ...]:
        """See `SpanSource.weak_emitters`."""
        return self._weak

    def take_over(self, weak: tuple[WeakEmitter, ...]) -> None:
        """See `RebuildTarget.take_over`."""
        self._weak += weak

    def adjustments(self) -> pa.Table:
        """See `SpanSource.adjustments`: nothing is re-rated here."""
        return ADJUSTMENT_SCHEMA.empty_table()

    def take_adjustments(self, adjustments: pa.Table, *, now: datetime) -> None:
        """See `RebuildTarget.take_adjustments`.

        Raises:
            ValueError: there are any; a store whose answers lack them must not pretend.
        """
        del now
        if adjustments.num_rows:
            msg = "the store in memory keeps no adjustments"
            raise ValueError(msg)

    def closings(self) -> pa.Table:
        """See `SpanSource.closings`: every period is open here."""
        return CLOSING_SCHEMA.empty_table()

    def close_before(self, before: datetime | None, *, zone: str, now: datetime) -> datetime | None:
        """See `RebuildTarget.close_before`.

        Raises:
            ValueError: something is to be closed; a store that can not must not pretend.
        """
        del zone, now
        if before is not None:
            msg = "the store in memory closes no period"
            raise ValueError(msg)
        return None

    def erase(self, subject: Subject, *, now: datetime, apply: bool) -> Erased:
        """See `SubjectStore.erase`."""
        own = [row for row in self._spans if is_of(row, subject)]
        traces = {(row["domain"], row["trace_hi"], row["trace_lo"]) for row in own}
        if apply:
            forget(self._spans, subject, traces)
            forget(self._calls.values(), subject, traces)
            forget(self._changes, subject, traces)
            self._erased[subject] = now
        return Erased(spans=len(own), traces=len(traces), applied=apply)

    def roll_up(self, *, now: datetime) -> int:
        """See `SettleStore.roll_up`: there is no cube to fall behind."""
        del now
        return 0

    def unposted(self) -> pa.Table:
        """See `SettleStore.unposted`."""
        return pa.Table.from_pylist(self._changes, schema=CHANGE_SCHEMA)

    def posted(self, version: int) -> None:
        """See `SettleStore.posted`."""
        self._changes = [row for row in self._changes if row["version"] > version]

    def costs(self, query: CostQuery) -> pa.Table:
        """See `SpanReader.costs`."""
        pools = {row["team"] for row in self._calls.values() if weights_of(row["team"])}
        return share_costs(
            lambda asked: sum_costs(self._calls.values(), asked), query, pools=sorted(pools)
        )

    def ended_costs(
        self, tenants: tuple[str, ...], window: Window, group_by: tuple[str, ...]
    ) -> pa.Table:
        """See `SpanReader.ended_costs`."""
        return sum_ended(
            (row for row in self._calls.values() if row["tenant"] in tenants), window, group_by
        )

    def repeated(self, query: CostQuery) -> pa.Table:
        """See `SpanReader.repeated`."""
        plan_repeats(query)
        asked = CallQuery(tenants=query.tenants, window=query.window, filters=query.filters)
        seen: set[tuple[Any, ...]] = set()
        repeats = []
        for call in sorted(self._matching(asked), key=_page_key):
            key = (call["tenant"], call["provider"], call["response_id"])
            if not (call["cost_nusd"] and is_join_key(call["response_id"])):
                continue
            if key in seen:
                repeats.append(call)
            seen.add(key)
        total = msgspec.structs.replace(query, granularity=Granularity.TOTAL)
        return sum_costs(repeats, total)

    def calls(self, query: CallQuery) -> pa.Table:
        """See `SpanReader.calls`."""
        found = [
            row
            for row in self._matching(query)
            if query.before is None or _page_key(row) < query.before
        ]
        found.sort(key=_page_key, reverse=True)
        return pa.Table.from_pylist(found[: query.limit], schema=CALL_SCHEMA)

    def call_batches(self, query: CallQuery) -> Iterator[pa.Table]:
        """See `SpanReader.call_batches`."""
        found = sorted(self._matching(query), key=_page_key)
        for first in range(0, len(found), MAX_BATCH_ROWS):
            yield pa.Table.from_pylist(found[first : first + MAX_BATCH_ROWS], schema=CALL_SCHEMA)

    def _matching(self, query: CallQuery) -> list[Row]:
        return [
            row
            for row in self._calls.values()
            if row["tenant"] in query.tenants
            and query.window.contains(row["start_time"])
            and all(
                dimension(name).value_of(row) in values for name, values in query.filters.items()
            )
        ]

    def call(self, tenants: tuple[str, ...], call_id: str) -> pa.Table:
        """See `SpanReader.call`."""
        row = self._calls.get(call_id)
        found = [row] if row is not None and row["tenant"] in tenants else []
        return pa.Table.from_pylist(found, schema=CALL_SCHEMA)

    def corrections(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SpanReader.corrections`: nothing is re-rated here."""
        del tenants, window
        return CORRECTION_SCHEMA.empty_table()

    def correction_sides(
        self, tenants: tuple[str, ...], window: Window, *, of_calls: bool = False
    ) -> Iterator[pa.Table]:
        """See `SpanReader.correction_sides`: nothing is re-rated here."""
        del tenants, window, of_calls
        return iter(())

    def trace(self, query: TraceQuery) -> pa.Table:
        """See `SpanReader.trace`."""
        call_of = {_identity(row): row["call_id"] for row in self._calls.values()}
        member_of = {_identity(row): row for row in self._members}
        rows = [
            row
            for row in self._spans
            if (row["trace_hi"], row["trace_lo"]) == (query.trace_hi, query.trace_lo)
            and row["tenant"] in query.tenants
        ]
        answer = []
        for row in _last_words(rows):
            member = member_of.get(_identity(row), {})
            is_aggregate = row["report_kind"] == "aggregate"
            answer.append(
                {
                    **row,
                    "call_id": call_of.get(_identity(row)) or member.get("call_id"),
                    "suppressed_reason": "aggregate" if is_aggregate else member.get("reason"),
                }
            )
        answer.sort(key=lambda row: (row["start_time"], row["span_id"]))
        return pa.Table.from_pylist(answer, schema=_trace_schema())

    def suppressed(self, call_ids: list[str]) -> pa.Table:
        """See `SpanReader.suppressed`."""
        rows = [row for row in self._members if row["call_id"] in call_ids]
        rows.sort(key=lambda row: (row["call_id"], row["start_time"], row["span_id"]))
        return pa.Table.from_pylist(rows, schema=SUPPRESSED_SCHEMA)

    def duplicates(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SpanReader.duplicates`."""
        return sum_duplicates(
            (row for row in self._members if window.contains(row["start_time"])), tenants
        )

    def accounting(self, tenants: tuple[str, ...]) -> pa.Table:
        """See `SpanReader.accounting`."""
        counts: defaultdict[tuple[str, str], Row] = defaultdict(
            lambda: {"stored": 0, "calls": 0, "suppressed": 0, "last_event_time": None}
        )
        sources = (
            ("stored", self._spans),
            ("calls", self._calls.values()),
            ("suppressed", self._members),
        )
        for name, rows in sources:
            for row in rows:
                if row["tenant"] in tenants:
                    count = counts[row["service_name"], row["dialect"]]
                    count[name] += 1
                    seen = count["last_event_time"] or row["start_time"]
                    count["last_event_time"] = max(seen, row["start_time"])
        return pa.Table.from_pylist(
            [
                {"service_name": service, "dialect": dialect, **counts[service, dialect]}
                for service, dialect in sorted(counts)
            ],
            schema=_accounting_schema(),
        )

    def tenants(self) -> tuple[str, ...]:
        """See `SpanReader.tenants`."""
        return tuple(sorted({row["tenant"] for row in self._calls.values()}))

    def latencies(self, query: CostQuery) -> pa.Table:
        """See `SpanReader.latencies`."""
        return count_latencies(self._calls.values(), query)

    def durations(self, query: CostQuery) -> pa.Table:
        """See `SpanReader.durations`."""
        return rank_durations(self._calls.values(), query)

    def output_lengths(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SpanReader.output_lengths`."""
        rows = [row for row in self._calls.values() if row["tenant"] in tenants]
        return count_lengths(row for row in rows if window.contains(row["start_time"]))

    def data_through(self, tenants: tuple[str, ...]) -> datetime | None:
        """See `SpanReader.data_through`."""
        starts = [r["start_time"] for r in self._calls.values() if r["tenant"] in tenants]
        return max(starts, default=None)


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in _IDENTITY)


def _page_key(row: Row) -> tuple[datetime, str]:
    return row["start_time"], row["call_id"]


def _content(call: Row) -> Row:
    return {name: value for name, value in call.items() if name != "version"}


def _last_words(rows: Iterable[Row]) -> Iterator[Row]:
    """Of revisions of one span keep the last, as settlement does."""
    last: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        known = last.get(_identity(row))
        if known is None or _finality(row) > _finality(known):
            last[_identity(row)] = row
    yield from last.values()


def _finality(row: Row) -> tuple[Any, ...]:
    tokens = (row["input_tokens"] or 0) + (row["output_tokens"] or 0)
    return (
        row["duration_us"] > 0,
        row["usage_state"] == "exact",
        tokens,
        row["duration_us"],
        row["content_hash"],
    )


def _trace_schema() -> pa.Schema:
    names = (pa.field("call_id", pa.string()), pa.field("suppressed_reason", pa.string()))
    return SPAN_SCHEMA.append(names[0]).append(names[1])


def _accounting_schema() -> pa.Schema:
    columns: list[tuple[str, pa.DataType]] = [
        ("service_name", pa.string()),
        ("dialect", pa.string()),
        ("stored", pa.int64()),
        ("calls", pa.int64()),
        ("suppressed", pa.int64()),
        ("last_event_time", TIMESTAMP),
    ]
    return pa.schema(columns)
