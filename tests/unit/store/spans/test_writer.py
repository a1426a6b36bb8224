"""Exactly once behind the filter: late rows, restarts, full filters, concurrent writers."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import flight

from controlplane.core.errors import StoreUnavailableError
from controlplane.signals.ports import Written
from controlplane.signals.signal_ports import SignalBatch, SignalsWritten
from controlplane.store.spans import seen_filter
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.store.spans.flight_client import FlightSpanWriter
from controlplane.store.spans.flight_server import SOCKET_MODE, SpanFlightServer
from controlplane.store.spans.rows import from_rows, to_rows
from controlplane.store.spans.seen_filter import BloomFilter, Hashes, SeenFilter

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
Rows = Callable[..., pa.Table]


def test_duplicates_are_found_after_a_restart_whatever_their_age(
    tmp_path: Path, span_rows: Rows
) -> None:
    ages = [timedelta(0), timedelta(hours=1), timedelta(days=29), timedelta(days=400)]
    batch = span_rows(*({"start_time": AT - age} for age in ages))
    store = DuckDbSpanStore(tmp_path / "spans.duckdb")
    assert 4 == store.write(batch, batch_id="a").stored
    store.close()
    store = DuckDbSpanStore(tmp_path / "spans.duckdb")
    assert Written(stored=0, duplicates=4, replayed=True) == store.write(batch, batch_id="a")
    assert Written(stored=0, duplicates=4, replayed=False) == store.write(batch, batch_id="b")
    store.close()


def test_a_filter_that_fills_up_is_made_larger_and_forgets_nothing(
    span_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen_filter, "_FIRST_CAPACITY", 4)
    monkeypatch.setattr(seen_filter, "MAX_HOURS", 2)
    store = DuckDbSpanStore(None)
    rows = [
        {"span_id": n, "start_time": AT + timedelta(hours=n % 5), "content_hash": n}
        for n in range(1, 200)
    ]
    for start in range(0, len(rows), 7):
        assert 0 == store.write(span_rows(*rows[start : start + 7]), batch_id=f"{start}").duplicates
    assert len(rows) == store.write(span_rows(*rows), batch_id="again").duplicates


@given(held=st.sets(st.integers(0, 2**64 - 1)), asked=st.sets(st.integers(0, 2**64 - 1)))
def test_the_filter_never_denies_what_it_holds(held: set[int], asked: set[int]) -> None:
    bloom = BloomFilter(64)
    bloom.add(np.array(sorted(held), dtype=np.uint64))
    questions = sorted(held | asked)
    answers = bloom.may_hold(np.array(questions, dtype=np.uint64))
    assert all(answer for value, answer in zip(questions, answers, strict=True) if value in held)


def test_the_filter_claims_few_that_it_does_not_hold() -> None:
    rng = np.random.default_rng(1)
    bloom = BloomFilter(50_000)
    bloom.add(rng.integers(0, 2**64, 50_000, dtype=np.uint64))
    wrong = bloom.may_hold(rng.integers(0, 2**64, 50_000, dtype=np.uint64)).mean()
    assert wrong < 0.02


def test_an_hour_is_read_from_the_store_once() -> None:
    read: list[int] = []

    def read_hour(hour: int) -> list[Hashes]:
        read.append(hour)
        return [np.array([part], dtype=np.uint64) for part in (7, 900)]

    seen = SeenFilter(read_hour)
    hashes, hours = np.array([900, 500], dtype=np.uint64), np.array([3, 3], dtype=np.int64)
    assert [True, False] == seen.may_hold(hashes, hours).tolist()
    seen.add(hashes[1:], hours[1:])
    assert [True, True] == seen.may_hold(hashes, hours).tolist()
    assert [3] == read


def test_the_same_payload_to_many_writers_at_a_barrier_is_stored_once(span_rows: Rows) -> None:
    """I3: `received = stored + duplicate`, exactly."""
    store, writers, spans = DuckDbSpanStore(None), 6, 50
    batch = span_rows(*({"span_id": n} for n in range(1, spans + 1)))
    barrier = threading.Barrier(writers)
    outcomes: list[Written] = []

    def write(name: str) -> None:
        barrier.wait()
        outcomes.append(store.write(batch, batch_id=name))

    threads = [threading.Thread(target=write, args=(str(n),)) for n in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spans == sum(written.stored for written in outcomes)
    assert (writers - 1) * spans == sum(written.duplicates for written in outcomes)
    store.close()


@given(
    attributes=st.lists(
        st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=8), max_size=4),
        max_size=5,
    )
)
def test_attributes_come_back_as_they_went_in(
    attributes: list[dict[str, str] | None], span_rows: Rows
) -> None:
    maps = [None if entry is None else list(entry.items()) for entry in attributes]
    spans = span_rows(*({"attributes": entry} for entry in maps))
    assert spans == from_rows(to_rows(spans))
    if spans.num_rows > 1:
        assert spans.slice(1) == from_rows(to_rows(spans.slice(1)))


def test_the_socket_is_private_and_gone_after_close(tmp_path: Path) -> None:
    store = DuckDbSpanStore(None)
    with SpanFlightServer(tmp_path / "s", store):
        assert SOCKET_MODE == (tmp_path / "s").stat().st_mode & 0o777
    assert not (tmp_path / "s").exists()


def test_a_writer_reconnects_when_the_owner_is_back(tmp_path: Path, span_rows: Rows) -> None:
    socket, store = tmp_path / "s", DuckDbSpanStore(None)
    client = FlightSpanWriter(socket, timeout_seconds=5)
    with pytest.raises(StoreUnavailableError):
        client.write(span_rows({}), batch_id="a")
    with SpanFlightServer(socket, store):
        assert 1 == client.write(span_rows({}), batch_id="a").stored
    with pytest.raises(StoreUnavailableError):
        client.write(span_rows({}), batch_id="a")
    with SpanFlightServer(socket, store):
        assert client.write(span_rows({}), batch_id="a").replayed
    client.close()


def test_the_owners_failure_and_a_bad_batch_id_reach_the_caller(
    tmp_path: Path, span_rows: Rows
) -> None:
    class Failing:
        def write_compact(self, spans: pa.Table, *, batch_id: str) -> Written:
            del spans, batch_id
            raise StoreUnavailableError("the disk is full")

        def write_signals(self, batch: SignalBatch, *, batch_id: str) -> SignalsWritten:
            del batch, batch_id
            raise StoreUnavailableError("the disk is full")

    with SpanFlightServer(tmp_path / "s", Failing()):
        client = FlightSpanWriter(tmp_path / "s")
        with pytest.raises(StoreUnavailableError, match="the disk is full"):
            client.write(span_rows({}), batch_id="a")
        with pytest.raises(StoreUnavailableError, match="a batch id has"):
            client.write(span_rows({}), batch_id="")
        with pytest.raises(flight.FlightError, match="columns"):
            client._put(span_rows({}).select(["name"]), "b")
        client.close()
