"""An emitter whose clock is two hours ahead, from the writer to the page (C8)."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.pipelines.settle import rebuild, settle_tick
from controlplane.signals.queries import CallQuery
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

NOW = datetime(2026, 11, 30, 23, 50, tzinfo=UTC)
SKEW = timedelta(hours=2)
MONTH = Window(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))

Rows = Callable[..., pa.Table]


def ahead(n: int, *, sent: datetime = NOW, took: float = 1.0, **said: object) -> dict[str, Any]:
    """A span that began and was received within seconds, by a clock of its own."""
    return {
        "span_id": n,
        "trace_lo": n,
        "content_hash": n,
        "start_time": sent + SKEW,
        "received_at": sent + timedelta(seconds=took),
        "service_name": "skewed",
        **said,
    }


def calls_of(store: DuckDbSpanStore, window: Window) -> list[dict[str, Any]]:
    settle_tick(store, now=NOW + timedelta(minutes=1), ledger=None)
    return store.calls(CallQuery(tenants=("default",), window=window)).to_pylist()


def test_a_start_in_the_future_is_accounted_when_it_arrived(span_rows: Rows) -> None:
    """Taken at its word it would be next month's, and no budget of this one's."""
    store = DuckDbSpanStore(None)
    store.write(span_rows(ahead(1)), batch_id="a")
    (call,) = calls_of(store, MONTH)
    ((_, stored),) = list(store.batches())
    store.close()
    assert NOW + timedelta(seconds=1) == call["start_time"]
    (span,) = stored.to_pylist()
    assert NOW + SKEW == span["start_time"] + timedelta(microseconds=span["clock_ahead_us"])


def test_a_span_sent_again_is_known_also_after_a_restart(tmp_path: Path, span_rows: Rows) -> None:
    store = DuckDbSpanStore(tmp_path / "spans.duckdb")
    store.write(span_rows(ahead(1), ahead(2)), batch_id="a")
    assert (
        2 == store.write(span_rows(ahead(1, took=40), ahead(2, took=90)), batch_id="b").duplicates
    )
    store.close()
    store = DuckDbSpanStore(tmp_path / "spans.duckdb")
    written = store.write(span_rows(ahead(2, took=200), ahead(3, took=250)), batch_id="c")
    assert (1, 1) == (written.stored, written.duplicates)
    assert 3 == len(calls_of(store, MONTH))
    store.close()


def test_a_span_sent_again_is_known_when_its_start_is_no_longer_ahead(span_rows: Rows) -> None:
    """Three hours later the wrong start is in the past, and would be believed."""
    store = DuckDbSpanStore(None)
    store.write(span_rows(ahead(1), ahead(2)), batch_id="a")
    later = 3 * 3600.0
    written = store.write(span_rows(ahead(1, took=later), ahead(3, took=later)), batch_id="b")
    store.close()
    assert (1, 1) == (written.stored, written.duplicates)


def test_a_revision_keeps_the_start_of_what_it_revises(span_rows: Rows) -> None:
    store = DuckDbSpanStore(None)
    store.write(span_rows(ahead(1)), batch_id="a")
    store.write(span_rows(ahead(1, took=4000.0, content_hash=77)), batch_id="b")
    calls = calls_of(store, MONTH)
    store.close()
    assert 1 == len(calls)


def test_copies_in_one_batch_are_one_span(span_rows: Rows) -> None:
    """One was received when its start was ahead, the other when it was not."""
    store = DuckDbSpanStore(None)
    written = store.write(span_rows(ahead(1), ahead(1, took=3 * 3600.0)), batch_id="a")
    store.close()
    assert (1, 1) == (written.stored, written.duplicates)


def test_what_is_learned_later_moves_nothing_that_is_stored(span_rows: Rows) -> None:
    """Starts all over a day, as no one clock makes them: every batch teaches another estimate."""
    store = DuckDbSpanStore(None)
    batches = [
        [
            ahead(100 * at + n, start_time=NOW + timedelta(days=5, minutes=37 * n + 11 * at))
            for n in range(40)
        ]
        for at in range(7)
    ]
    for at, batch in enumerate(batches):
        store.write(span_rows(*batch), batch_id=f"first-{at}")
    again = [
        store.write(span_rows(*batch), batch_id=f"again-{at}") for at, batch in enumerate(batches)
    ]
    store.close()
    assert [(0, 40)] * 7 == [(written.stored, written.duplicates) for written in again]


def test_a_skewed_client_still_joins_its_proxy(span_rows: Rows) -> None:
    """Moved, the two overlap again; two hours apart an id would join nothing."""
    store = DuckDbSpanStore(None)
    client = ahead(1, response_id="chatcmpl-0123456789")
    proxy = client | {"span_id": 9, "trace_lo": 9, "start_time": NOW, "layer": "proxy"}
    proxy |= {"scope_name": "litellm", "service_name": "gate"}
    store.write(span_rows(client, proxy), batch_id="a")
    (call,) = calls_of(store, MONTH)
    store.close()
    assert (2, NOW) == (call["reports"], call["start_time"])


def test_reports_join_though_our_clock_was_wrong_when_one_came(span_rows: Rows) -> None:
    """The proxy's report came in while our clock was hours behind: its start was moved for nothing."""
    store = DuckDbSpanStore(None)
    client = ahead(1, start_time=NOW, response_id="chatcmpl-0123456789")
    proxy = client | {"span_id": 9, "trace_lo": 9, "content_hash": 9, "layer": "proxy"}
    proxy |= {"scope_name": "litellm", "received_at": NOW - timedelta(hours=5)}
    store.write(span_rows(client), batch_id="a")
    store.write(span_rows(proxy), batch_id="b")
    settle_tick(store, now=NOW + timedelta(minutes=1), ledger=None)
    calls = store.calls(CallQuery(tenants=("default",), window=MONTH)).to_pylist()
    store.close()
    assert [2] == [call["reports"] for call in calls]


def test_a_rebuild_moves_nothing_twice(span_rows: Rows) -> None:
    store, again = DuckDbSpanStore(None), DuckDbSpanStore(None)
    store.write(span_rows(ahead(1), ahead(2, service_name="other")), batch_id="a")
    store.write(span_rows(ahead(3, sent=NOW + timedelta(seconds=30))), batch_id="b")
    expected = calls_of(store, MONTH)
    rebuild(store, again, now=NOW)
    found = calls_of(again, MONTH)
    store.close()
    again.close()
    assert [{**row, "version": 0} for row in expected] == [{**row, "version": 0} for row in found]


def test_a_clock_that_is_right_is_believed(span_rows: Rows) -> None:
    store = DuckDbSpanStore(None)
    store.write(span_rows(ahead(1), ahead(2, start_time=NOW)), batch_id="a")
    starts = {row["span_id"]: row["start_time"] for row in calls_of(store, MONTH)}
    store.close()
    assert {1: NOW + timedelta(seconds=1), 2: NOW} == starts
