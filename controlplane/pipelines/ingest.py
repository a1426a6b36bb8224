"""Spooled bytes -> decoded -> normalised -> attributed -> priced -> stored, exactly once."""

from typing import Self

import msgspec

from controlplane.attribution.attribute import attribute
from controlplane.attribution.rules import AttributionRules
from controlplane.ingest.limits import Limits
from controlplane.ingest.normalize import normalize
from controlplane.ingest.otlp import Decoded, decode_requests
from controlplane.ingest.ports import SpoolBatch
from controlplane.pricing.price import price
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.ports import SpanWriter, Written


class IngestOutcome(msgspec.Struct, frozen=True):
    """What became of a batch: `received = stored + duplicates + sum(rejected)`."""

    received: int
    stored: int
    duplicates: int
    rejected: dict[str, int]
    replayed: bool
    """The store had this batch already; the counts are those of the first time."""

    @classmethod
    def of(cls, decoded: Decoded, written: Written) -> Self:
        """Put the two halves of the account together."""
        return cls(
            received=decoded.received,
            stored=written.stored,
            duplicates=written.duplicates,
            rejected=decoded.rejected,
            replayed=written.replayed,
        )


def ingest_batch(
    batch: SpoolBatch,
    *,
    book: PriceBook,
    rules: AttributionRules,
    limits: Limits,
    writer: SpanWriter,
) -> IngestOutcome:
    """Decode, normalise, attribute, price and store one spooled batch exactly once.

    Raises:
        StoreUnavailableError: nothing was stored; the batch stays in the spool.
    """
    entries = batch.entries
    decoded = decode_requests(
        [entry.payload for entry in entries],
        senders=[entry.sender for entry in entries],
        received_at=[entry.received_at for entry in entries],
        limits=limits,
    )
    spans = normalize(decoded, limits=limits)
    spans = attribute(spans, rules, senders={e.sender.key_id: e.sender for e in entries})
    spans = price(spans, book)
    written = writer.write(spans, batch_id=batch.batch_id)
    return IngestOutcome.of(decoded, written)
