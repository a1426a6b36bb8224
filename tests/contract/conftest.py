"""Span stores under test, by name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from controlplane.pipelines.ports import SettleStore
from controlplane.signals.ports import SpanReader, SpanWriter
from controlplane.store.memory.span_store import MemorySpanStore
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.store.spans.flight_client import FlightSpanWriter
from controlplane.store.spans.flight_server import SpanFlightServer


class SpanStore(SpanReader, SettleStore, Protocol):
    """What one engine is."""


class StoreUnderTest:
    """One engine, and the way spans get into it."""

    def __init__(self, store: SpanStore, writer: SpanWriter) -> None:
        self.store = store
        self.writer = writer


@pytest.fixture(params=["memory", "duckdb", "flight"])
def spans(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    """Each engine in turn; `flight` is DuckDB written across a socket."""
    if request.param == "memory":
        memory = MemorySpanStore()
        yield StoreUnderTest(memory, memory)
        return
    store = DuckDbSpanStore(tmp_path / "spans.duckdb")
    if request.param == "duckdb":
        yield StoreUnderTest(store, store)
    else:
        with SpanFlightServer(tmp_path / "s", store):
            client = FlightSpanWriter(tmp_path / "s")
            yield StoreUnderTest(store, client)
            client.close()
    store.close()
