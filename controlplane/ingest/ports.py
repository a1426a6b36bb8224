"""What receivers hand over, and what they ask of the key store and of the spool."""

from datetime import datetime
from typing import Literal, Protocol

import msgspec

from controlplane.signals.sender import Sender

ContentType = Literal["protobuf", "json"]
Signal = Literal["traces", "metrics", "logs"]


class Payload(msgspec.Struct, frozen=True):
    """One export request's body, decompressed; an OTLP `Export<Signal>ServiceRequest`."""

    body: bytes
    content_type: ContentType = "protobuf"
    signal: Signal = "traces"


class SpoolEntry(msgspec.Struct, frozen=True):
    """One accepted request: what was sent, by whom, and when it arrived (aware UTC)."""

    payload: Payload
    sender: Sender
    received_at: datetime


class KeyResolver(Protocol):
    """Turns an Authorization header into a sender. Called by several threads at once."""

    def resolve(self, authorization: str | None, *, now: datetime) -> Sender:
        """Answer the sender that `Bearer cp_ingest_<id>_<secret>` belongs to.

        None or empty means the header is absent: the embedded mode answers KEYLESS_SENDER for a
        loopback peer, anything else raises. Answers without network; a revocation takes effect
        within the resolver's stated cache time.

        Raises:
            AuthenticationError: absent where needed, malformed, unknown, expired or revoked.
            ForbiddenError: a valid key of a kind that may not ingest.
        """
        ...


class Spool(Protocol):
    """Durable first stop of every accepted request. Called by several threads at once."""

    def append(self, entry: SpoolEntry) -> None:
        """Keep an entry; it is on disk when this returns, so the sender may be acknowledged.

        Raises:
            SpoolFullError: the size limit is reached; nothing was kept.
        """
        ...


class SpoolBatch(msgspec.Struct, frozen=True):
    """Entries that are written together, under an id that survives a restart."""

    batch_id: str
    entries: tuple[SpoolEntry, ...]
    entry_ids: tuple[int, ...]
    """Parallel to `entries`; the spool's own names for them."""


class SpoolQueue(Protocol):
    """The way out of the spool. One consumer; several threads would take the same batch."""

    def wait(self, timeout_seconds: float) -> int:
        """Answer the bytes waiting, as soon as there are any or when the time is up (0)."""
        ...

    def claim(self, *, max_bytes: int, max_entries: int) -> SpoolBatch | None:
        """Answer the oldest batch not dropped, else a new one of the oldest entries, else None.

        Membership and id of a new batch are on disk before it is answered, so that after a crash
        the same entries come back under the same id. An entry that can not be read is set aside,
        counted and left out; a batch may therefore be empty. At least one entry is taken,
        whatever its size.
        """
        ...

    def set_aside(self, entry_id: int, *, reason: str) -> None:
        """Take an entry out of its batch for good, and keep it sealed for a person to look at."""
        ...

    def drop(self, batch_id: str) -> None:
        """Forget a batch whose rows are durable in the store. Twice is once."""
        ...
