"""A flood of late spans delays those on time by little (I2): what it costs to write a batch."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from controlplane.signals.schema import SPAN_SCHEMA, TIMESTAMP
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

NOW = datetime(2026, 11, 26, tzinfo=UTC)
ROWS = 32_768
WRITES = 7
MIXES = {
    "on_time": (0.0, 1),
    "half_late_over_24_hours": (0.5, 24),
    "one_in_50_late_over_600_hours": (0.02, 600),
    "half_late_over_600_hours": (0.5, 600),
}
"""Share of late spans, and the hours over which they are spread."""
MOST_RATIO = 4.0
"""A flood may cost this much more than spans on time. With a query an hour it was fifteen."""


def _batch(plain: pa.Table, number: int, *, share: float, hours: int) -> pa.Table:
    """Draw spans of the last second and, evenly over the hours before it, late ones."""
    draw = np.random.default_rng(number)
    late = round(ROWS * share)
    starts = np.full(ROWS, NOW.timestamp() * 1e6, dtype=np.int64) + number * 1_000_000
    starts += draw.integers(0, 1_000_000, ROWS)
    starts[:late] -= np.linspace(3_600e6, (hours + 1) * 3_600e6, late).astype(np.int64)
    came = starts.max() + 1_000_000
    columns = {
        "start_time": pa.array(starts).cast(TIMESTAMP),
        "received_at": pa.array(np.full(ROWS, came)).cast(TIMESTAMP),
    }
    for name in ("trace_hi", "trace_lo", "span_id", "content_hash"):
        columns[name] = pa.array(draw.integers(1, 2**63, ROWS, dtype=np.uint64))
    batch = plain.take(np.zeros(ROWS, dtype=np.int64))
    for name, values in columns.items():
        at = SPAN_SCHEMA.get_field_index(name)
        batch = batch.set_column(at, SPAN_SCHEMA.field(at), values)
    return batch


def _cost(path: Path, plain: pa.Table, *, share: float, hours: int) -> float:
    """Return the median of processor milliseconds that a write takes."""
    store, took = DuckDbSpanStore(path), []
    batches = [_batch(plain, number, share=share, hours=hours) for number in range(WRITES)]
    for number, batch in enumerate(batches):
        began = time.process_time()
        assert ROWS == store.write(batch, batch_id=f"{number}").stored
        took.append(1_000 * (time.process_time() - began))
    assert 0 == store.write(batches[0], batch_id="resent").stored
    store.close()
    return round(statistics.median(took), 1)


def test_a_flood_of_late_spans_costs_little_more_than_spans_on_time(
    tmp_path: Path, span_rows: Callable[..., pa.Table], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = span_rows({})
    told = {
        name: _cost(tmp_path / name, plain, share=share, hours=hours)
        for name, (share, hours) in MIXES.items()
    }
    with capsys.disabled():
        sys.stdout.write(json.dumps({"spans": ROWS, "write_cpu_ms_median": told}) + "\n")
    assert max(told.values()) <= MOST_RATIO * told["on_time"]
