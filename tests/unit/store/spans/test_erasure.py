"""What an erasure leaves in the file, and what later batches can not bring back."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from controlplane.ingest.subjects import Subject, subject_hash
from controlplane.signals.content import CONTENT_SCHEMA
from controlplane.signals.queries import TraceQuery
from controlplane.signals.samples import (
    ACCOUNT_SCHEMA,
    EVENT_SCHEMA,
    REJECTION_SCHEMA,
    SAMPLE_SCHEMA,
)
from controlplane.signals.signal_ports import SignalBatch
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
KEY = b"k" * 32
ADA = Subject("default", "ada")

Rows = Callable[..., pa.Table]


def said(trace_lo: int, text: str) -> SignalBatch:
    """Recorded text of a trace's span."""
    row: dict[str, Any] = {
        "domain": "default",
        "tenant": "default",
        "trace_hi": 0,
        "trace_lo": trace_lo,
        "span_id": trace_lo,
        "start_time": AT,
        "side": "input",
        "name": "gen_ai.prompt",
        "text": text,
        "is_cut": False,
    }
    return SignalBatch(
        samples=SAMPLE_SCHEMA.empty_table(),
        events=EVENT_SCHEMA.empty_table(),
        accounts=ACCOUNT_SCHEMA.empty_table(),
        rejections=REJECTION_SCHEMA.empty_table(),
        contents=pa.Table.from_pylist([row], schema=CONTENT_SCHEMA),
    )


def texts(store: DuckDbSpanStore, trace_lo: int) -> list[str | None]:
    query = TraceQuery(tenants=("default",), trace_hi=0, trace_lo=trace_lo)
    return store.contents.content(query).column("text").to_pylist()


def test_recorded_text_goes_with_the_person_and_does_not_come_back(
    tmp_path: Path, span_rows: Rows
) -> None:
    """Over a restart: of a trace that was erased, and of one that comes late."""
    path = tmp_path / "spans.duckdb"
    store = DuckDbSpanStore(path, subject_key=KEY)
    for trace_lo, user in ((1, "ada"), (2, "bob")):
        span = {"trace_lo": trace_lo, "span_id": trace_lo, "user_id": user}
        store.write(span_rows(span), batch_id=user)
        store.write_signals(said(trace_lo, f"words of {user}"), batch_id=user)
    store.erase(ADA, now=AT + timedelta(hours=1), apply=True)
    assert ([], ["words of bob"]) == (texts(store, 1), texts(store, 2))
    store.close()
    store = DuckDbSpanStore(path, subject_key=KEY)
    store.write_signals(said(1, "again"), batch_id="again")
    store.write(span_rows({"trace_lo": 3, "span_id": 3, "user_id": "ada"}), batch_id="late")
    store.write_signals(said(3, "late"), batch_id="late")
    assert [] == texts(store, 1) + texts(store, 3)
    tables = store._database.connect().execute("SELECT subject_hash FROM tombstone").fetchall()
    assert [subject_hash(KEY, ADA)] == [name for (name,) in tables]
    store.close()


def test_a_hash_names_one_subject_and_only_with_its_key() -> None:
    names = {
        subject_hash(key, Subject(*names))
        for key in (KEY, b"other")
        for names in (("a", "bc"), ("ab", "c"), ("abc", ""))
    }
    assert 6 == len(names)
