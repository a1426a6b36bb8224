"""Spooled bytes -> decoded -> normalised -> attributed -> priced -> stored, exactly once.

Measurements, events and each emitter's account go beside the spans, in a transaction of their own
under the same batch id: what a crash between the two leaves open, the replay of the batch closes.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
import pyarrow as pa

from controlplane.attribution.attribute import attribute, refused_claims
from controlplane.attribution.rules import AttributionRules
from controlplane.ingest.accounts import Accounts
from controlplane.ingest.call_events import decode_logs, events_of_spans
from controlplane.ingest.content import ContentPolicy, contents_of
from controlplane.ingest.gateways import ADDRESS_KEYS, Gateway, mark_gateways
from controlplane.ingest.limits import Limits
from controlplane.ingest.metrics import decode_metrics
from controlplane.ingest.normalize import normalize
from controlplane.ingest.otlp import decode_requests
from controlplane.ingest.ports import SpoolBatch
from controlplane.ingest.unknown_dialects import unknown_dialects
from controlplane.pricing.price import price
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.ports import SpanWriter
from controlplane.signals.signal_ports import SignalBatch, SignalWriter


class BatchWriter(SpanWriter, SignalWriter, Protocol):
    """A store that takes everything a batch can hold."""


class IngestOutcome(msgspec.Struct, frozen=True):
    """What became of a batch: of spans, `received = stored + duplicates + sum(rejected)`."""

    received: int
    stored: int
    duplicates: int
    rejected: dict[str, int]
    replayed: bool
    """The store had this batch already; the counts are those of the first time."""
    samples: int = 0
    events: int = 0
    refused_claims: dict[str, int] = {}
    """Spans whose claim to a reserved value was dropped, by reservation."""
    unknown_dialects: dict[str, int] = {}
    """Reports of calls that no dialect is known for, by instrumentation scope."""


def ingest_batch(  # noqa: PLR0913 - a batch and all that it is read by
    batch: SpoolBatch,
    *,
    book: PriceBook,
    rules: AttributionRules,
    limits: Limits,
    writer: BatchWriter,
    content: ContentPolicy | None = None,
    gateways: Sequence[Gateway] = (),
) -> IngestOutcome:
    """Decode, normalise, attribute, price and store one spooled batch exactly once.

    Recorded text is kept only under a `content` policy; what a call used never depends on it.

    Raises:
        StoreUnavailableError: not all of it was stored; the batch stays in the spool.
    """
    entries = [entry for entry in batch.entries if entry.payload.signal == "traces"]
    senders = {entry.sender.key_id: entry.sender for entry in entries}
    decoded = decode_requests(
        [entry.payload for entry in entries],
        senders=[entry.sender for entry in entries],
        received_at=[entry.received_at for entry in entries],
        limits=limits,
    )
    needed = rules.attributes | (ADDRESS_KEYS if gateways else frozenset())
    spans = normalize(decoded, limits=msgspec.structs.replace(limits, needed_attributes=needed))
    spans = mark_gateways(spans, gateways)
    spans = attribute(spans, rules, senders=senders)
    events = events_of_spans(decoded.spans, spans, senders=senders)
    contents = contents_of(decoded, spans, content, limits=limits)
    spans = price(spans, book)
    written = writer.write(spans, batch_id=batch.batch_id)
    accounts = Accounts(batch.entries)
    accounts.add_spans(decoded, spans, entries)
    signals = _signals(batch, events, accounts, contents=contents)
    kept = writer.write_signals(signals, batch_id=batch.batch_id)
    return IngestOutcome(
        received=decoded.received,
        stored=written.stored,
        duplicates=written.duplicates,
        rejected=decoded.rejected,
        replayed=written.replayed,
        samples=0 if kept.replayed else kept.samples,
        events=0 if kept.replayed else kept.events,
        refused_claims=refused_claims(spans),
        unknown_dialects=unknown_dialects(spans),
    )


def _signals(
    batch: SpoolBatch, events: pa.Table, accounts: Accounts, *, contents: pa.Table
) -> SignalBatch:
    """Decode what is not spans, and close the account of the whole batch."""
    of_metrics = [entry for entry in batch.entries if entry.payload.signal == "metrics"]
    of_logs = [entry for entry in batch.entries if entry.payload.signal == "logs"]
    samples, logs = decode_metrics(of_metrics), decode_logs(of_logs)
    accounts.add("metrics", received=samples.received, rejected=samples.rejected)
    accounts.add("logs", received=logs.received, rejected=logs.rejected)
    received, rejections = accounts.tables()
    return SignalBatch(
        samples=samples.rows,
        events=pa.concat_tables([events, logs.rows]),
        accounts=received,
        rejections=rejections,
        instances=accounts.instances(),
        contents=contents,
    )
