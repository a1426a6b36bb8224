"""Scrapes every target of every job in its interval, and spools what it read."""

import contextlib
import heapq
import ssl
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx
import structlog

from collectors.scrape.discover import Discovery, Lookup, resolve
from collectors.scrape.exposition import OPENMETRICS, TooManySamplesError, read_exposition
from collectors.scrape.fetch import ScrapeError, fetch
from collectors.scrape.jobs import ScrapeJob, Target
from controlplane import telemetry
from controlplane.core.clock import Clock
from controlplane.core.errors import ConfigError, ControlPlaneError
from controlplane.core.instants import to_nanos
from controlplane.ingest.metrics import SERVICE_INSTANCE
from controlplane.ingest.ports import Payload, Spool, SpoolEntry
from controlplane.signals.semconv import SERVICE_NAME
from controlplane.signals.sender import Sender
from controlplane.signals.vocabulary import KeyRole

THREADS: Final = 8
"""Scrapes at once; targets that do not answer hold one each until their timeout."""
KEY_ID: Final = "scrape"
_STOP_SECONDS: Final = 15.0

log = structlog.stdlib.get_logger()


class Scraper:
    """One thread that keeps time and a few that fetch; `start` and `stop` are each called once."""

    def __init__(
        self, jobs: Sequence[ScrapeJob], *, spool: Spool, clock: Clock, lookup: Lookup = resolve
    ) -> None:
        """Prepare; nothing is asked before `start`.

        Raises:
            ConfigError: a CA file can not be read, or two jobs have one name.
        """
        names = [job.job for job in jobs]
        if len(set(names)) < len(names):
            raise ConfigError("collector.scrape", "two jobs have one name", "Rename one")
        self._runs = [_JobRun(job, spool=spool, clock=clock, lookup=lookup) for job in jobs]
        self._clock = clock
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="scrape")
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no other scrape, and wait for those in progress."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)
        self._pool.shutdown(wait=True, cancel_futures=True)
        for run in self._runs:
            run.close()

    def _run(self) -> None:
        due = [(self._clock.monotonic(), number) for number in range(len(self._runs))]
        while due and not self._stopping.is_set():
            at, number = due[0]
            if self._stopping.wait(max(0.0, at - self._clock.monotonic())):
                return
            run = self._runs[number]
            try:
                for target in run.due(self._clock.monotonic()):
                    self._pool.submit(run.scrape, target)
            except Exception:
                telemetry.WORKER_ERRORS.labels("scrape").inc()
                log.exception("scrape_round_failed", job=run.job.job)
            after = max(at, self._clock.monotonic() - run.job.interval_seconds)
            heapq.heapreplace(due, (after + run.job.interval_seconds, number))


class _JobRun:
    """One job at work."""

    def __init__(self, job: ScrapeJob, *, spool: Spool, clock: Clock, lookup: Lookup) -> None:
        self.job = job
        self._spool = spool
        self._clock = clock
        self._discovery = Discovery(job, lookup=lookup)
        self._targets: list[Target] = []
        self._look_at = float("-inf")
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._client = httpx.Client(trust_env=False, verify=_trust(job))
        self._sender = Sender(tenant=job.tenant, key_id=KEY_ID, key_role=KeyRole.ENGINE)

    def close(self) -> None:
        self._client.close()

    def due(self, now: float) -> list[Target]:
        """Answer the targets to scrape now; one that still answers the last time is left out."""
        if now >= self._look_at:
            self._look_at = now + self.job.refresh_seconds
            found = self._discovery.targets()
            for gone in {t.address for t in self._targets} - {t.address for t in found}:
                _forget(self.job.job, gone)
            self._targets = found
        with self._lock:
            free = [t for t in self._targets if t.address not in self._busy]
            self._busy.update(target.address for target in free)
        return free

    def scrape(self, target: Target) -> None:
        """Fetch, read and spool one target; it never raises."""
        up = telemetry.SCRAPE_UP.labels(self.job.job, target.address)
        try:
            samples = self._scrape(target)
        except ScrapeError as error:
            up.set(0)
            telemetry.SCRAPE_FAILURES.labels(self.job.job, error.reason).inc()
        except Exception:
            up.set(0)
            telemetry.SCRAPE_FAILURES.labels(self.job.job, "internal_error").inc()
            log.exception("scrape_failed", job=self.job.job)
        else:
            up.set(1)
            telemetry.SCRAPE_SAMPLES.labels(self.job.job).inc(samples)
            last = telemetry.SCRAPE_LAST_SUCCESS.labels(self.job.job, target.address)
            last.set(self._clock.now().timestamp())
        finally:
            with self._lock:
                self._busy.discard(target.address)

    def _scrape(self, target: Target) -> int:
        kind, text = fetch(self._client, self.job, target.address)
        now = self._clock.now()
        resource = {
            **self.job.labels,
            **dict(target.labels),
            SERVICE_NAME: self.job.job,
            SERVICE_INSTANCE: target.address,
        }
        try:
            data = read_exposition(
                text,
                is_openmetrics=kind.startswith(OPENMETRICS),
                resource=resource,
                now_nanos=to_nanos(now),
                limit=self.job.max_samples,
            )
        except TooManySamplesError:
            raise ScrapeError("too_many_samples") from None
        except ValueError:
            raise ScrapeError("malformed") from None
        body = data.SerializeToString()
        try:
            self._spool.append(SpoolEntry(Payload(body, "protobuf", "metrics"), self._sender, now))
        except ControlPlaneError as error:
            raise ScrapeError(error.code) from None
        return len(data.resource_metrics[0].scope_metrics[0].metrics)


def _trust(job: ScrapeJob) -> ssl.SSLContext | bool:
    if job.scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used, and quick to make
    if job.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=job.ca_file)
    except OSError:
        raise ConfigError(
            "collector.scrape", f"{job.ca_file} holds no certificates", "Name a PEM file"
        ) from None


def _forget(job: str, address: str) -> None:
    for metric in (telemetry.SCRAPE_UP, telemetry.SCRAPE_LAST_SUCCESS):
        with contextlib.suppress(KeyError):  # it was never scraped
            metric.remove(job, address)
