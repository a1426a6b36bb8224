"""Takes batches from the spool, ingests them, and drops what the store has made durable."""

import threading
import traceback
from collections.abc import Callable
from typing import Final

import structlog

from controlplane import telemetry
from controlplane.core.errors import UnavailableError
from controlplane.ingest.ports import SpoolBatch, SpoolQueue
from controlplane.pipelines.ingest import IngestOutcome

MAX_BATCH_BYTES: Final = 32 * 2**20
"""About 60,000 spans: large enough that a transaction's fixed cost does not count, here and in all
that follows (a quarter of this costs a third more per span). Taken only when so much waits."""
MAX_BATCH_ENTRIES: Final = 2_000
EAGER_BYTES: Final = 2**20
"""This much does not linger for company."""
LINGER_SECONDS: Final = 0.1
IDLE_SECONDS: Final = 0.5
FIRST_RETRY_SECONDS: Final = 0.1
MAX_RETRY_SECONDS: Final = 5.0
DRAIN_SECONDS: Final = 10.0
MAX_SCOPES: Final = 100
"""Label values of a metric are kept for as long as the process lives, and senders choose these."""
MAX_SCOPE_CHARS: Final = 120
OTHER_SCOPES: Final = "other"
POISON: Final = "poison_entry"

log = structlog.stdlib.get_logger()


def no_fail_point(_step: str) -> None:
    """Go on."""


class IngestLoop:
    """One thread between a spool and a store.

    `ingest` is `pipelines.ingest.ingest_batch` with everything but the batch given. `fail_point`
    is called with the name of each step reached; a test ends the process in one.
    """

    def __init__(
        self,
        queue: SpoolQueue,
        *,
        ingest: Callable[[SpoolBatch], IngestOutcome],
        linger_seconds: float = LINGER_SECONDS,
        fail_point: Callable[[str], None] = no_fail_point,
    ) -> None:
        self._queue = queue
        self._ingest = ingest
        self._linger_seconds = linger_seconds
        self._fail_point = fail_point
        self._scopes: set[str] = set()
        self._stopping = threading.Event()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self) -> None:
        """Begin, with what an earlier run left unfinished."""
        self._thread.start()

    def stop(self, *, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Store what is spooled, for `drain_seconds` at most; the rest keeps until the next start.

        Receivers are stopped before, or there is no end to what is spooled.
        """
        self._stopping.set()
        self._thread.join(drain_seconds)
        self._given_up.set()
        self._thread.join()

    def _run(self) -> None:
        delay = FIRST_RETRY_SECONDS
        while not self._given_up.is_set():
            try:
                if not self._round():
                    return
            except Exception as error:  # noqa: BLE001 - outermost loop of a worker: it goes on
                telemetry.WORKER_ERRORS.labels("ingest").inc()
                _log_failure(error)
                if self._stopping.is_set():
                    return  # a store that is away is not waited for; the spool keeps
                self._stopping.wait(delay)
                delay = min(2 * delay, MAX_RETRY_SECONDS)
            else:
                delay = FIRST_RETRY_SECONDS

    def _round(self) -> bool:
        """Ingest one batch; answer whether to go on."""
        waiting = self._queue.wait(0.0 if self._stopping.is_set() else IDLE_SECONDS)
        if not waiting:
            return not self._stopping.is_set()
        if waiting < EAGER_BYTES:
            self._stopping.wait(self._linger_seconds)
        batch = self._queue.claim(max_bytes=MAX_BATCH_BYTES, max_entries=MAX_BATCH_ENTRIES)
        if batch is not None:
            self._fail_point("after_claim")
            self._store(batch)
            self._fail_point("before_drop")
            self._queue.drop(batch.batch_id)
        return True

    def _store(self, batch: SpoolBatch) -> None:
        if not batch.entries:
            return
        try:
            self._ingest_and_count(batch)
        except (UnavailableError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the other entries are stored
            log.warning("batch_failed_and_is_split", entries=len(batch.entries))
            _log_failure(error)
            self._store_each_alone(batch)

    def _store_each_alone(self, batch: SpoolBatch) -> None:
        """Find the entries that no attempt can ingest; store all others.

        Each gets an id of its own under the batch's, the same after a restart.
        """
        for entry_id, entry in zip(batch.entry_ids, batch.entries, strict=True):
            alone = SpoolBatch(f"{batch.batch_id}.{entry_id}", (entry,), (entry_id,))
            try:
                self._ingest_and_count(alone)
            except (UnavailableError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 - this entry, and only this one, is at fault
                _log_failure(error)
                self._queue.set_aside(entry_id, reason=POISON)

    def _ingest_and_count(self, batch: SpoolBatch) -> None:
        outcome = self._ingest(batch)
        self._fail_point("after_commit")
        telemetry.STORED_SAMPLES.inc(outcome.samples)
        telemetry.STORED_EVENTS.inc(outcome.events)
        if outcome.replayed:
            return  # counted by the run that was interrupted, as far as it got
        telemetry.STORED_SPANS.inc(outcome.stored)
        telemetry.DUPLICATE_SPANS.inc(outcome.duplicates)
        for reason, count in outcome.rejected.items():
            telemetry.REJECTED.labels(reason).inc(count)
        for reservation, count in outcome.refused_claims.items():
            telemetry.REFUSED_CLAIMS.labels(reservation).inc(count)
        for scope, count in outcome.unknown_dialects.items():
            telemetry.UNKNOWN_DIALECTS.labels(self._scope_label(scope)).inc(count)

    def _scope_label(self, scope: str) -> str:
        """Name a scope while there are few; the rest share a name."""
        label = scope[:MAX_SCOPE_CHARS]
        if label not in self._scopes and len(self._scopes) >= MAX_SCOPES:
            return OTHER_SCOPES
        self._scopes.add(label)
        return label


def _log_failure(error: Exception) -> None:
    """Log where it failed, not what with: a message may quote the payload, which holds prompts."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-5:]]
    says = str(error) if isinstance(error, UnavailableError) else ""
    log.error("ingest_failed", error=type(error).__name__, says=says, where=where)
