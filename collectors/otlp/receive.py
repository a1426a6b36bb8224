"""The one path of every export request, whichever transport brought it.

Single items that can not be kept are told as a partial success: the sender knows, does not send
them again, and the rest of its request is stored.
"""

import msgspec
import structlog

from collectors.otlp.envelope import ITEMS, examine
from collectors.otlp.inflate import inflate
from collectors.otlp.replies import Accepted, Refusal, refusal_of
from controlplane import telemetry
from controlplane.core.clock import Clock
from controlplane.core.errors import ControlPlaneError, LimitExceededError
from controlplane.ingest.limits import Limits
from controlplane.ingest.ports import ContentType, KeyResolver, Payload, Signal, Spool, SpoolEntry
from controlplane.signals.sender import Sender

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
        found = examine(payload, limits=self.limits)
        if request.signal == "traces" or found.count > found.rejected:
            if found.count:
                self._spool.append(SpoolEntry(payload, sender, self._clock.now()))
        else:  # nothing of it is worth the disk; what is spooled is counted when it is decoded
            for reason, count in found.flaws.items():
                telemetry.REJECTED.labels(reason).inc(count)
        telemetry.RECEIVED_SPANS.labels(request.signal).inc(found.count)
        return Accepted(request.signal, found.rejected, found.told(ITEMS[request.signal]))
