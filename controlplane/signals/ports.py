"""What pipelines ask of a span store. Every engine passes `tests/contract`'s suite."""

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

import msgspec
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.signals.queries import CallQuery, CostQuery, TraceQuery


class Written(msgspec.Struct, frozen=True):
    """What a write did with a batch's rows; `stored + duplicates` is the batch's row count."""

    stored: int
    duplicates: int
    replayed: bool
    """The batch id was in the ledger already: nothing was done now."""


class SpanWriter(Protocol):
    """The way in."""

    def write(self, spans: pa.Table, *, batch_id: str) -> Written:
        """Store a batch of SPAN_SCHEMA rows exactly once.

        When it returns, the rows, the batch ledger entry and the dirty marks are durable in one
        transaction and visible to every reader. A batch id seen before changes nothing. A row
        whose identity (domain, trace, span, start_time) and content_hash are stored already is a
        duplicate and is dropped; the same identity with another hash is a revision and is kept.

        Raises:
            StoreUnavailableError: nothing was written; try again with the same batch id.
        """
        ...


class SpanReader(Protocol):
    """The way out. Every answer is restricted to the query's tenants."""

    def costs(self, query: CostQuery) -> pa.Table:
        """Answer `bucket_start` (unless total), the group-by columns, and the measures.

        Measures: calls, errors, unpriced_calls, unpriced_tokens, input_tokens,
        cached_input_tokens, output_tokens, cost_nusd (all int64; cost_nusd sums what is priced).
        Groups without calls are absent. Rows are ordered by bucket_start, then cost descending.
        """
        ...

    def ended_costs(
        self, tenants: tuple[str, ...], window: Window, group_by: tuple[str, ...]
    ) -> pa.Table:
        """Answer the group-by columns and `cost_nusd` (int64) of calls that ended in a window.

        What costs nothing, or has no price, is left out; so is a call that took longer than
        queries.LONGEST_CALL. Rows are ordered by cost descending, then by group.

        Raises:
            InvalidInputError: an unknown dimension.
        """
        ...

    def repeated(self, query: CostQuery) -> pa.Table:
        """Answer as `costs` does with granularity total, of billed calls that repeat another.

        A call repeats another of its tenant and provider when it has the same response id (one
        that may join reports, `ingest.join_keys`) and starts later; such calls are still billed.

        Raises:
            InvalidInputError: as `costs`; the window is wider than MAX_SCAN_DAYS.
        """
        ...

    def calls(self, query: CallQuery) -> pa.Table:
        """Answer at most `limit` rows of CALL_SCHEMA, newest first."""
        ...

    def call_batches(self, query: CallQuery) -> Iterator[pa.Table]:
        """Yield every call of the query as CALL_SCHEMA tables of at most MAX_BATCH_ROWS rows.

        All are from one moment of the store, oldest first by (start_time, call_id); `before` and
        `limit` are ignored. Without calls there is no table.

        Raises:
            StoreUnavailableError: at any table; those before it are not the whole answer.
        """
        ...

    def call(self, tenants: tuple[str, ...], call_id: str) -> pa.Table:
        """Answer the CALL_SCHEMA row of a call; none if there is no such call of the tenants."""
        ...

    def corrections(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """Answer CORRECTION_SCHEMA rows that were booked in a window, in one fixed order."""
        ...

    def correction_sides(
        self, tenants: tuple[str, ...], window: Window, *, of_calls: bool = False
    ) -> Iterator[pa.Table]:
        """Yield what was booked in a window call by call, as CORRECTION_SIDE_SCHEMA tables.

        With `of_calls` it is what was booked, whenever, about calls that start in the window.
        In one fixed order, from one moment of the store; as `call_batches` where it fails.
        """
        ...

    def trace(self, query: TraceQuery) -> pa.Table:
        """Answer SPAN_SCHEMA rows plus `call_id` and `suppressed_reason` (NULL if neither)."""
        ...

    def suppressed(self, call_ids: list[str]) -> pa.Table:
        """Answer SUPPRESSED_SCHEMA rows of the calls named."""
        ...

    def duplicates(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """Answer DUPLICATES_SCHEMA rows of suppressed reports that start in the window.

        Ordered by cost_nusd descending, reports descending, then the names.
        """
        ...

    def accounting(self, tenants: tuple[str, ...]) -> pa.Table:
        """Answer per service_name and dialect: stored, calls, suppressed, last_event_time."""
        ...

    def tenants(self) -> tuple[str, ...]:
        """Answer every tenant that has a stored span, sorted; for an operator's queries."""
        ...

    def latencies(self, query: CostQuery) -> pa.Table:
        """Answer a histogram of call durations per model and operation; granularity is ignored.

        Columns: model (string, NULL unknown), operation (string, NULL unknown), bucket (int32:
        index of the first bound of queries.LATENCY_BOUNDS_US that is >= duration_us, or their
        number if none is), calls (int64), duration_us (int64 sum). Empty buckets are absent.
        """
        ...

    def durations(self, query: CostQuery) -> pa.Table:
        """Answer how long successful calls took, by the query's groups; granularity is ignored.

        Columns: the group-by columns, calls, p50_us and p95_us (int64): by nearest rank, the
        shortest duration that 50 and 95 % of the calls do not exceed. Calls of no duration are
        left out. Rows are ordered by the groups, NULL last.
        """
        ...

    def output_lengths(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """Answer `model`, `bin`, `calls`: output tokens of successful calls on a log grid.

        `bin` is floor(ln(output_tokens) / ln(1.1)), the grid of `detection.drift`; calls without
        output are left out. Rows are ordered by model and bin.
        """
        ...

    def data_through(self, tenants: tuple[str, ...]) -> datetime | None:
        """Answer the newest start_time that rollups already include; None when empty."""
        ...
