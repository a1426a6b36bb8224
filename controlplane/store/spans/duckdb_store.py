"""The DuckDB span store: one file, one owning process, every port of a span store."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.ingest.join_keys import WeakEmitter
from controlplane.ingest.settlement import Settled, Unsettled
from controlplane.ingest.subjects import Erased, Subject
from controlplane.signals.ports import Written
from controlplane.signals.queries import CallQuery, CostQuery, TraceQuery
from controlplane.signals.signal_ports import SignalBatch, SignalsWritten
from controlplane.store.spans.content_tables import ContentTables
from controlplane.store.spans.database import SpanDatabase
from controlplane.store.spans.erasure import Erasure, Tombstones
from controlplane.store.spans.gpu_tables import GpuTables
from controlplane.store.spans.reader import SpanTableReader
from controlplane.store.spans.rerate_tables import RerateTables
from controlplane.store.spans.settle_tables import SettleTables
from controlplane.store.spans.signal_reader import SignalTableReader
from controlplane.store.spans.signal_writer import SignalTableWriter
from controlplane.store.spans.writer import SpanTableWriter


class DuckDbSpanStore:
    """Implements `SpanWriter`, `SpanReader` and `SettleStore` over one database.

    Writing and reading are safe from any thread; settling belongs to one.
    """

    def __init__(self, path: Path | None, *, threads: int = 1, subject_key: bytes = b"") -> None:
        """Open or create the file at `path`; None is a database in memory, for tests.

        Args:
            path: the database file; its directory must exist.
            threads: how many cores one query may use. More than one makes a write cost half as
                much processor time again, and readers run beside each other anyway.

            subject_key: names erased people; kept apart from the file, always the same.

        Raises:
            StoreUnavailableError: another process holds the file, or it can not be read.
        """
        self._database = SpanDatabase(path, threads=threads)
        tombstones = Tombstones(self._database.connect(), subject_key)
        self._writer = SpanTableWriter(self._database, tombstones)
        self._erasure = Erasure(self._database, tombstones, writing=self._writer.lock)
        self._reader = SpanTableReader(self._database)
        self._tables = SettleTables(self._database)
        self.rerates = RerateTables(self._tables, self._writer)
        self._signal_writer = SignalTableWriter(self._database)
        self.signals = SignalTableReader(self._database)
        self.gpu = GpuTables(self._database)
        self.contents = ContentTables(self._database)

    def close(self) -> None:
        """Write the log into the file and let it go; no other method may be called after."""
        self._database.close()

    def write(self, spans: pa.Table, *, batch_id: str) -> Written:
        """See `SpanWriter.write`."""
        return self._writer.write(spans, batch_id=batch_id)

    def write_signals(self, batch: SignalBatch, *, batch_id: str) -> SignalsWritten:
        """See `SignalWriter.write_signals`."""
        return self._signal_writer.write_signals(batch, batch_id=batch_id)

    def forget_samples(self, *, before: datetime) -> int:
        """See `SampleKeeper.forget_samples`."""
        return self._signal_writer.forget_samples({"before": before})

    def write_compact(self, spans: pa.Table, *, batch_id: str) -> Written:
        """See `flight_server.BatchWriter.write_compact`."""
        return self._writer.write_compact(spans, batch_id=batch_id)

    def costs(self, query: CostQuery) -> pa.Table:
        """See `SpanReader.costs`."""
        return self._reader.costs(query)

    def ended_costs(
        self, tenants: tuple[str, ...], window: Window, group_by: tuple[str, ...]
    ) -> pa.Table:
        """See `SpanReader.ended_costs`."""
        return self._reader.ended_costs(tenants, window, group_by)

    def repeated(self, query: CostQuery) -> pa.Table:
        """See `SpanReader.repeated`."""
        return self._reader.repeated(query)

    def calls(self, query: CallQuery) -> pa.Table:
        """See `SpanReader.calls`."""
        return self._reader.calls(query)

    def call_batches(self, query: CallQuery) -> Iterator[pa.Table]:
        """See `SpanReader.call_batches`."""
        return self._reader.call_batches(query)

    def call(self, tenants: tuple[str, ...], call_id: str) -> pa.Table:
        """See `SpanReader.call`."""
        return self._reader.call(tenants, call_id)

    def corrections(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SpanReader.corrections`."""
        return self._reader.corrections(tenants, window)

    def correction_sides(
        self, tenants: tuple[str, ...], window: Window, *, of_calls: bool = False
    ) -> Iterator[pa.Table]:
        """See `SpanReader.correction_sides`."""
        return self._reader.correction_sides(tenants, window, of_calls=of_calls)

    def trace(self, query: TraceQuery) -> pa.Table:
        """See `SpanReader.trace`."""
        return self._reader.trace(query)

    def suppressed(self, call_ids: list[str]) -> pa.Table:
        """See `SpanReader.suppressed`."""
        return self._reader.suppressed(call_ids)

    def duplicates(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SpanReader.duplicates`."""
        return self._reader.duplicates(tenants, window)

    def accounting(self, tenants: tuple[str, ...]) -> pa.Table:
        """See `SpanReader.accounting`."""
        return self._reader.accounting(tenants)

    def tenants(self) -> tuple[str, ...]:
        """See `SpanReader.tenants`."""
        return self._reader.tenants()

    def latencies(self, query: CostQuery) -> pa.Table:
        """See `SpanReader.latencies`."""
        return self._reader.latencies(query)

    def durations(self, query: CostQuery) -> pa.Table:
        """See `SpanReader.durations`."""
        return self._reader.durations(query)

    def output_lengths(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """See `SpanReader.output_lengths`."""
        return self._reader.output_lengths(tenants, window)

    def data_through(self, tenants: tuple[str, ...]) -> datetime | None:
        """See `SpanReader.data_through`."""
        return self._reader.data_through(tenants)

    def batches(self) -> Iterator[tuple[str, pa.Table]]:
        """See `SpanSource.batches`."""
        return self._reader.batches()

    def take(self) -> Unsettled:
        """See `SettleStore.take`."""
        return self._tables.take()

    def apply(self, settled: Settled, *, now: datetime) -> int:
        """See `SettleStore.apply`."""
        return self._tables.apply(settled, now=now)

    def learn(self, *, now: datetime) -> tuple[WeakEmitter, ...]:
        """See `SettleStore.learn`."""
        return self._tables.learn(now=now)

    def weak_emitters(self) -> tuple[WeakEmitter, ...]:
        """See `SpanSource.weak_emitters`."""
        return self._tables.weak.all()

    def take_over(self, weak: tuple[WeakEmitter, ...]) -> None:
        """See `RebuildTarget.take_over`."""
        self._tables.weak.add(weak)

    def adjustments(self) -> pa.Table:
        """See `SpanSource.adjustments`."""
        return self._reader.adjustments()

    def take_adjustments(self, adjustments: pa.Table, *, now: datetime) -> None:
        """See `RebuildTarget.take_adjustments`."""
        self.rerates.take_adjustments(adjustments, now=now)

    def close_before(self, before: datetime | None, *, zone: str, now: datetime) -> datetime | None:
        """See `closings.Closings.close`; in the settler's thread."""
        return self._tables.closings.close(before, zone=zone, now=now)

    def closings(self) -> pa.Table:
        """See `SpanSource.closings`."""
        return self._tables.closings.all()

    def erase(self, subject: Subject, *, now: datetime, apply: bool) -> Erased:
        """See `SubjectStore.erase`."""
        return self._erasure.erase(subject, now=now, apply=apply)

    def roll_up(self, *, now: datetime) -> int:
        """See `SettleStore.roll_up`."""
        return self._tables.roll_up(now=now)

    def repost(self, after: int) -> None:
        """See `SettleTables.repost`."""
        self._tables.repost(after)

    def unposted(self) -> pa.Table:
        """See `SettleStore.unposted`."""
        return self._tables.unposted()

    def posted(self, version: int) -> None:
        """See `SettleStore.posted`."""
        self._tables.posted(version)
