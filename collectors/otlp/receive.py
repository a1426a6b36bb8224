"""The one path of every export request, whichever transport brought it.

Metrics and logs are read and counted, but nothing stores them yet. They are answered with a
partial success that rejects every item: the sender is told, does not send again, and keeps its
traces flowing. An acknowledgement would be a lie, an error would make it retry for ever.
"""

from typing import Final

import msgspec
import structlog

from collectors.otlp.envelope import ITEMS, count_items
from collectors.otlp.inflate import inflate
from collectors.otlp.replies import Accepted, Refusal, refusal_of
from controlplane import telemetry
from controlplane.core.clock import Clock
from controlplane.core.errors import ControlPlaneError, LimitExceededError
from controlplane.ingest.limits import Limits
from controlplane.ingest.ports import ContentType, KeyResolver, Payload, Signal, Spool, SpoolEntry
from controlplane.signals.sender import Sender

NOT_STORED: Final = "signal_not_stored_yet"

log = structlog.stdlib.get_logger()


class Request(msgspec.Struct, frozen=True):
    """An export request as a transport received it, still compressed."""

    signal: Signal
    content_type: ContentType
    encoding: str
    body: bytes


class Receiver:
    """Checks, spools and counts. Every method may be called by several threads at once."""

    def __init__(self, *, keys: KeyResolver, spool: Spool, limits: Limits, clock: Clock) -> None:
        self.limits = limits
        self._keys = keys
        self._spool = spool
        self._clock = clock

    def authenticate(self, authorization: str | None) -> Sender | Refusal:
        """Answer who sends, before anything of the body is read."""
        try:
            return self._keys.resolve(authorization, now=self._clock.now())
        except ControlPlaneError as error:
            return self.refuse(refusal_of(error))

    def check_size(self, compressed_bytes: int) -> Refusal | None:
        """Refuse a body by its length as announced or as read so far."""
        allowed = self.limits.max_compressed_bytes
        if compressed_bytes <= allowed:
            return None
        error = LimitExceededError("max_compressed_bytes", allowed, compressed_bytes)
        return self.refuse(refusal_of(error))

    def accept(self, request: Request, sender: Sender) -> Accepted | Refusal:
        """Keep a request; when it is answered with Accepted, what was not rejected is on disk."""
        started = self._clock.monotonic()
        try:
            accepted = self._accept(request, sender)
        except ControlPlaneError as error:
            return self.refuse(refusal_of(error))
        except Exception:
            log.exception("receive_failed", signal=request.signal)
            broken = "the collector failed on this request. Its log has the reason"
            return self.refuse(Refusal(500, "internal_error", broken))
        telemetry.ACK_SECONDS.observe(self._clock.monotonic() - started)
        return accepted

    def refuse(self, refusal: Refusal) -> Refusal:
        """Count a refusal."""
        telemetry.REJECTED.labels(refusal.reason).inc()
        return refusal

    def _accept(self, request: Request, sender: Sender) -> Accepted:
        body = inflate(request.body, encoding=request.encoding, limits=self.limits)
        payload = Payload(body, request.content_type, request.signal)
        count = count_items(payload, limits=self.limits)
        if request.signal == "traces" and count:
            self._spool.append(SpoolEntry(payload, sender, self._clock.now()))
        telemetry.RECEIVED_SPANS.labels(request.signal).inc(count)
        if request.signal != "traces":
            return _not_stored(request.signal, count)
        return Accepted(request.signal)


def _not_stored(signal: Signal, count: int) -> Accepted:
    if not count:
        return Accepted(signal)
    telemetry.REJECTED.labels(NOT_STORED).inc(count)
    items = ITEMS[signal].replace("_", " ")
    message = f"{items} are not stored by this version. Set OTEL_{signal.upper()}_EXPORTER=none"
    return Accepted(signal, count, message)
