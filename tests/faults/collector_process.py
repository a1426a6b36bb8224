"""A collector that a test kills: real spool, receivers, pipeline and store, in one process.

Arguments: directory, store (`duckdb`, `careless`, `settling`: DuckDB with settlement and a
ledger beside it, or `closing`: the same while periods close), the step to die in and at which of its
occurrences (`never 0` to live). It prints its ports and stops when its stdin closes.
"""

import functools
import json
import os
import signal
import sys
import threading
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from collectors.otlp.collector import OtlpCollector
from collectors.spool import SqliteSpool
from controlplane import log
from controlplane.attribution.rules import with_organisation
from controlplane.bootstrap.system import UlidIds, secret_file
from controlplane.ingest.limits import DEFAULT_LIMITS
from controlplane.pipelines.ingest import BatchWriter, ingest_batch
from controlplane.signals.ports import Written
from controlplane.signals.sender import KEYLESS_SENDER, Sender
from controlplane.signals.signal_ports import SignalBatch, SignalsWritten
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.workers.ingest_loop import IngestLoop
from tests.faults.faults import arrange_a_full_disk, clock
from tests.faults.settler import Settler, price_book


class Keyless:
    """Everybody on loopback is the default tenant."""

    def resolve(self, authorization: str | None, *, now: datetime) -> Sender:
        del authorization, now
        return KEYLESS_SENDER


class CarelessStore:
    """What a store is without a batch ledger and without the anti-join: it just inserts."""

    def __init__(self, path: Path) -> None:
        self._connection = duckdb.connect(str(path))
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS span (trace_hi UBIGINT, trace_lo UBIGINT, span_id UBIGINT)"
        )

    def write(self, spans: pa.Table, *, batch_id: str) -> Written:
        del batch_id
        self._connection.register("batch", spans.select(["trace_hi", "trace_lo", "span_id"]))
        self._connection.execute("INSERT INTO span SELECT * FROM batch")
        return Written(spans.num_rows, 0, replayed=False)

    def write_signals(self, batch: SignalBatch, *, batch_id: str) -> SignalsWritten:
        del batch, batch_id
        return SignalsWritten(
            samples=0, duplicate_samples=0, events=0, duplicate_events=0, replayed=False
        )

    def close(self) -> None:
        self._connection.close()


class DieAt:
    """A fail point that kills its own process at the n-th time a step is reached."""

    def __init__(self, step: str, occurrence: int) -> None:
        self._step = step
        self._left = occurrence
        self._lock = threading.Lock()

    def __call__(self, step: str) -> None:
        with self._lock:
            if step != self._step:
                return
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def main(directory: Path, store_kind: str, step: str, occurrence: int) -> None:
    log.configure()
    told_time = clock()
    die = DieAt(step, occurrence)
    spool = SqliteSpool(
        directory / "spool" / "spool.sqlite",
        key=secret_file(directory / "keys" / "spool"),
        ids=UlidIds(),
        fail_point=die,
    )
    path = directory / "spans.duckdb"
    store: DuckDbSpanStore | CarelessStore
    settler: Settler | None = None
    if store_kind == "careless":
        store = CarelessStore(path)
    else:
        store = DuckDbSpanStore(path)
        if store_kind in {"settling", "closing"}:
            closes = store_kind == "closing"
            settler = Settler(store, directory, fail_point=die, clock=told_time, closes=closes)
    writer: BatchWriter = store
    ingest = functools.partial(
        ingest_batch,
        book=price_book(),  # of one model: the seed takes a second to read
        rules=with_organisation([]),
        limits=DEFAULT_LIMITS,
        writer=writer,
    )
    loop = IngestLoop(spool, ingest=ingest, linger_seconds=0.02, fail_point=die)
    collector = OtlpCollector(
        keys=Keyless(), spool=spool, clock=told_time, grpc_port=0, http_port=0
    )
    loop.start()
    collector.start()
    if settler:
        settler.start()
    arrange_a_full_disk()
    sys.stdout.write(json.dumps({"http": collector.http_port, "grpc": collector.grpc_port}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    collector.stop()
    loop.stop(drain_seconds=60)
    if settler:
        settler.finish()
    spool.close()
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
