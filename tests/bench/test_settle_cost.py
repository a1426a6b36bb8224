"""A tick costs what is new, not what is stored; late and resent spans cost what they are (I2)."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from controlplane.pipelines.settle import settle_tick
from controlplane.signals.schema import SPAN_SCHEMA
from controlplane.store.spans.database import SpanDatabase, transaction
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.store.spans.neighborhood import find_new_keys

AT = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = 30
CHUNK = 250_000
HISTORY = """
INSERT INTO span_fact BY NAME
SELECT plain.* REPLACE (
    hash(n) AS trace_hi, hash(n, 'lo') AS trace_lo, hash(n, 'span') AS span_id, n AS content_hash,
    hash(n, 'call') AS call_hi, hash(n, 'call lo') AS call_lo,
    concat('chatcmpl-', printf('%016x', hash(n))) AS response_id,
    $at + to_microseconds((n * $per_span_us)::BIGINT) AS start_time,
    $at + to_microseconds((n * $per_span_us)::BIGINT + 2000000) AS received_at,
    $seq AS batch_seq
)
FROM (SELECT range::UBIGINT AS n FROM range($first, $end)) CROSS JOIN plain
"""
NEW = 2_000
PAIRED = 0.2
"""Of new reports, those that a proxy reports too."""
LATE = 0.001
RESENT = 0.05
TICKS = {True: 15, False: 8}
SIZES = {True: (1_000_000, 10_000_000, 50_000_000), False: (20_000, 80_000)}
MOST_GROWTH = 2.0
"""A tick over the largest store may take this much longer than over the smallest, whose history is
a fiftieth (here a quarter) as long: late reports look through the days around theirs, and next to
nothing else grows."""

Rows = Callable[..., pa.Table]


class Feed:
    """Makes batches of spans quickly: one row, repeated, with columns of its own."""

    def __init__(self, span_rows: Rows) -> None:
        self._row = span_rows({"scope_name": "opentelemetry.instrumentation.openai.v1"})
        self._draw = np.random.default_rng(7)
        self.made = 0

    def batch(self, rows: int, *, start: datetime, spread: timedelta) -> pa.Table:
        """Lone reports whose starts ascend from `start` over `spread`."""
        first = self.made
        self.made += rows
        numbers = np.arange(first, first + rows, dtype=np.uint64)
        at = np.linspace(0, spread / timedelta(microseconds=1), rows).astype(np.int64)
        starts = at + int(start.timestamp()) * 1_000_000
        # Ids as random as real ones; a multiplication by an odd number has no collisions.
        ids = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
        return self._with(
            self._row.take(np.zeros(rows, dtype=np.int64)),
            trace_hi=pa.array(ids),
            trace_lo=pa.array(ids ^ np.uint64(0xABCDEF)),
            span_id=pa.array(ids >> np.uint64(1) | np.uint64(1)),
            content_hash=pa.array(numbers),
            start_time=pa.array(starts).cast(SPAN_SCHEMA.field("start_time").type),
            received_at=pa.array(starts + 2_000_000).cast(SPAN_SCHEMA.field("start_time").type),
            response_id=pa.array([f"chatcmpl-{one:016x}" for one in ids.tolist()]),
        )

    def proxies_of(self, clients: pa.Table) -> pa.Table:
        """What a proxy says of the same calls."""
        rows = clients.num_rows
        spans = np.asarray(clients.column("span_id").to_numpy(), dtype=np.uint64)
        return self._with(
            clients,
            span_id=pa.array(spans ^ np.uint64(2)),
            layer=pa.array(["proxy"] * rows),
            scope_name=pa.array(["litellm"] * rows),
            service_name=pa.array(["gate"] * rows),
        )

    def some(self, spans: pa.Table, share: float) -> pa.Table:
        """Draw a share of the rows, at least one."""
        count = max(1, round(share * spans.num_rows))
        rows = np.sort(self._draw.choice(spans.num_rows, count, replace=False))
        return spans.take(rows)

    @staticmethod
    def _with(spans: pa.Table, **columns: "pa.Array[Any]") -> pa.Table:
        for name, values in columns.items():
            at = SPAN_SCHEMA.get_field_index(name)
            spans = spans.set_column(at, SPAN_SCHEMA.field(at), values)
        return spans.cast(SPAN_SCHEMA)


def _fill(path: Path, *, first: int, upto: int, total: int) -> None:
    """Put history into a closed store as settled lone reports; all of it would fill thirty days.

    Through the writer 50 M spans take an hour. Rows are made by the database, alike the one that is
    there; their keys are made by settlement's own statement.
    """
    database = SpanDatabase(path)
    connection = database.connect()
    connection.execute("CREATE TEMP TABLE plain AS FROM span_fact LIMIT 1")
    (seq,) = connection.execute("SELECT through FROM settle_state").fetchone() or (0,)
    per_span_us = timedelta(days=DAYS) / total / timedelta(microseconds=1)
    for start in range(first, upto, CHUNK):
        end = min(start + CHUNK, upto)
        seq += 1
        with transaction(connection):
            connection.execute(
                HISTORY,
                {"first": start, "end": end, "at": AT, "per_span_us": per_span_us, "seq": seq},
            )
            find_new_keys(connection, after=seq - 1, through=seq)
            connection.execute("INSERT INTO report_key FROM new_key")
            connection.execute(
                "INSERT INTO ingest_batch VALUES (?, ?, ?, 0)", [f"fill-{seq}", seq, end - start]
            )
            connection.execute("UPDATE settle_state SET through = $1, posted = $1", [seq])
    connection.close()
    database.close()


def _measure(store: DuckDbSpanStore, feed: Feed, *, now: datetime, count: int) -> dict[str, Any]:
    """Write and settle batches of new reports at `now`, and time both."""
    writes, ticks, calls, known = [], [], 0, feed.batch(10, start=now, spread=timedelta(seconds=1))
    for tick in range(count):
        clients = feed.batch(NEW, start=now, spread=timedelta(milliseconds=400))
        proxies = feed.proxies_of(feed.some(clients, PAIRED))
        late = feed.batch(max(1, round(LATE * NEW)), start=AT, spread=timedelta(days=DAYS - 1))
        resent = feed.some(known, min(1.0, RESENT * NEW / known.num_rows))
        spans = pa.concat_tables([clients, proxies, late, resent])
        fresh = clients.num_rows + proxies.num_rows + late.num_rows
        began = time.process_time()
        written = store.write(spans, batch_id=f"new-{feed.made}-{tick}")
        wrote = time.process_time()
        outcome = settle_tick(store, now=now, ledger=None)
        ticks.append(time.process_time() - wrote)
        writes.append(wrote - began)
        resends = 0 if tick == 0 else resent.num_rows
        assert (fresh + (resent.num_rows - resends), resends) == (
            written.stored,
            written.duplicates,
        )
        calls += outcome.changed_calls
        known = clients
        now += timedelta(milliseconds=500)
    # The first batches read the filters of the hours they touch; that is paid once an hour.
    milliseconds = {"write": writes[3:], "tick": ticks[3:]}
    told: dict[str, Any] = {
        f"{name}_cpu_ms_median": round(1_000 * statistics.median(took), 2)
        for name, took in milliseconds.items()
    }
    told["tick_cpu_ms_max"] = round(1_000 * max(ticks[3:]), 2)
    new = NEW * (1 + PAIRED) + max(1, round(LATE * NEW))
    told["tick_cpu_us_per_new_report"] = round(1_000 * told["tick_cpu_ms_median"] / new, 2)
    return told


@pytest.mark.slow
@pytest.mark.timeout(7_000)
def test_a_tick_costs_what_is_new(
    tmp_path: Path,
    span_rows: Rows,
    full_size: bool,  # noqa: FBT001 - a fixture
    write_proof: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    sizes = SIZES[full_size]
    path, feed, stored = tmp_path / "spans.duckdb", Feed(span_rows), 0
    figures: dict[str, Any] = {}
    store = DuckDbSpanStore(path)
    store.write(feed.batch(1, start=AT, spread=timedelta(0)), batch_id="first")
    settle_tick(store, now=AT + timedelta(hours=1), ledger=None)
    for size in sizes:
        store.close()
        _fill(path, first=stored, upto=size, total=sizes[-1])
        store, stored = DuckDbSpanStore(path), size
        now = AT + timedelta(days=DAYS * size / sizes[-1])
        figures[str(size)] = _measure(store, feed, now=now, count=TICKS[full_size])
    store.close()
    growth = (
        figures[str(sizes[-1])]["tick_cpu_ms_median"] / figures[str(sizes[0])]["tick_cpu_ms_median"]
    )
    told = {
        "new_reports_per_tick": NEW,
        "paired_ratio": PAIRED,
        "late_ratio": LATE,
        "resent_ratio": RESENT,
        "stored_spans": figures,
        "disk_bytes": path.stat().st_size,
        "growth_ratio": round(growth, 2),
        "limit": MOST_GROWTH,
        "is_within_limits": growth <= MOST_GROWTH,
    }
    with capsys.disabled():
        sys.stdout.write(json.dumps(told) + "\n")
    write_proof("settle_cost", told)
    assert growth <= MOST_GROWTH
