"""What pipelines ask of the store of measurements, events and accounts."""

from datetime import datetime
from typing import Final, Protocol

import msgspec
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.signals.content import CONTENT_SCHEMA
from controlplane.signals.samples import INSTANCE_SCHEMA


class SignalBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What one spooled batch holds besides spans."""

    samples: pa.Table
    """SAMPLE_SCHEMA."""
    events: pa.Table
    """EVENT_SCHEMA."""
    accounts: pa.Table
    """ACCOUNT_SCHEMA."""
    rejections: pa.Table
    """REJECTION_SCHEMA."""
    instances: pa.Table = msgspec.field(default_factory=INSTANCE_SCHEMA.empty_table)
    """INSTANCE_SCHEMA."""
    contents: pa.Table = msgspec.field(default_factory=CONTENT_SCHEMA.empty_table)
    """CONTENT_SCHEMA; empty unless an installation records content."""


class SignalsWritten(msgspec.Struct, frozen=True, kw_only=True):
    """What a write did; `samples + duplicate_samples` is the batch's, and so for events."""

    samples: int
    duplicate_samples: int
    events: int
    duplicate_events: int
    replayed: bool
    """The batch was written before: nothing was done now."""


class SignalWriter(Protocol):
    """The way in, after the spans of the same batch are written."""

    def write_signals(self, batch: SignalBatch, *, batch_id: str) -> SignalsWritten:
        """Store a batch exactly once; durable, in one transaction, when it returns.

        A sample of a series and time that is stored is a duplicate, and so is an event of equal
        content. An emitter's account gets what became of its items in this batch: of spans what
        the span writer stored under `batch_id`.

        Raises:
            StoreUnavailableError: nothing was written; try again with the same batch id.
        """
        ...


class SampleKeeper(Protocol):
    """The way to the bin."""

    def forget_samples(self, *, before: datetime) -> int:
        """Delete samples older than an instant; return how many."""
        ...


PLAUSIBLE_PARTS: Final = 20
"""A producer's own cost may differ from ours by one part in this many before it is implausible."""


class SignalReader(Protocol):
    """The way out. Every answer is restricted to the tenants named."""

    def emitters(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """Answer per tenant, key_id, service_name and signal what arrived in the window.

        Columns: received, stored, duplicates, rejected, late, ahead, first_hour, last_received;
        last_heard, when the program last sent anything, for whichever tenant.
        """
        ...

    def instances(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """Answer the replicas of emitters of spans that sent in the window.

        Columns: tenant, key_id, service_name, instance, received (ever), first_received,
        last_received. At most MAX_INSTANCES of an emitter are known.
        """
        ...

    def rejections(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """Answer `rejected` per tenant, key_id, service_name, signal and reason."""
        ...

    def growth(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """Answer how much counters and histograms of a known meaning grew in the window.

        Columns: tenant, emitter, instance, metric, meaning, model, provider, host, gpu, pool,
        increase, first_time, last_time. A reset counts from zero; a series whose start is unknown
        counts from its first sample.
        """
        ...

    def gauges(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """Answer the mean, largest and last value of gauges of a known meaning.

        Columns: tenant, emitter, instance, metric, meaning, model, host, gpu, pool, mean, largest,
        last, samples, last_time.
        """
        ...

    def measured(self, tenants: tuple[str, ...], names: str, window: Window) -> pa.Table:
        """Answer what metrics came to whose whole name matches a regular expression (RE2).

        Columns: tenant, metric, value, series. Counters and histograms by their growth, gauges by
        their last value in the window, summed over the series of a name.
        """
        ...

    def counted_calls(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        """Answer per tenant, service_name and model: calls, tokens and cost as settled.

        Columns: tenant, service_name, layers, model, request_model, calls, input_tokens,
        output_tokens, cost_nusd, priced_tokens (those that the cost is for), first_start;
        compared_calls (those whose producer said a cost beside ours), and of those that are off by
        more than one part in PLAUSIBLE_PARTS: off_calls, off_reported_nusd, off_cost_nusd and
        off_nusd, the sum of the differences.
        """
        ...

    def trace_events(
        self, tenants: tuple[str, ...], traces: list[tuple[int, int]], response_ids: list[str]
    ) -> pa.Table:
        """Answer EVENT_SCHEMA rows of the traces or response ids named, oldest first."""
        ...

    def guardrails(self, tenants: tuple[str, ...]) -> pa.Table:
        """Answer `events` per guardrail name and action."""
        ...
