"""Samples, events and accounts: exactly once, and growth that survives restarts."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.calendar import Window
from controlplane.signals.samples import (
    ACCOUNT_SCHEMA,
    EVENT_SCHEMA,
    INSTANCE_SCHEMA,
    MAX_INSTANCES,
    REJECTION_SCHEMA,
    SAMPLE_SCHEMA,
)
from controlplane.signals.signal_ports import SignalBatch, SignalWriter
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.store.spans.flight_client import FlightSpanWriter
from controlplane.store.spans.flight_server import SpanFlightServer

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
WINDOW = Window(AT, AT + timedelta(hours=1))
TENANTS = ("acme",)


@pytest.fixture(params=["in process", "across a socket"])
def stores(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[DuckDbSpanStore, SignalWriter]]:
    store = DuckDbSpanStore(None)
    if request.param == "in process":
        yield store, store
    else:
        with SpanFlightServer(tmp_path / "s", store):
            client = FlightSpanWriter(tmp_path / "s")
            yield store, client
            client.close()
    store.close()


def _rows(schema: pa.Schema, *rows: dict[str, Any]) -> pa.Table:
    def blank(field: Any) -> Any:
        if field.nullable:
            return None
        if pa.types.is_timestamp(field.type):
            return AT
        return "" if pa.types.is_string(field.type) else 0

    filled = [{f.name: row.get(f.name, blank(f)) for f in schema} for row in rows]
    return pa.Table.from_pylist(filled, schema=schema)


def _batch(
    *,
    samples: list[dict[str, Any]] | None = None,
    events: list[dict[str, Any]] | None = None,
    accounts: list[dict[str, Any]] | None = None,
    rejections: list[dict[str, Any]] | None = None,
) -> SignalBatch:
    plain = {"tenant": "acme", "hour": AT}
    return SignalBatch(
        samples=_rows(SAMPLE_SCHEMA, *({**plain, **row} for row in samples or [])),
        events=_rows(EVENT_SCHEMA, *({**plain, **row} for row in events or [])),
        accounts=_rows(ACCOUNT_SCHEMA, *({**plain, **row} for row in accounts or [])),
        rejections=_rows(REJECTION_SCHEMA, *({**plain, **row} for row in rejections or [])),
    )


def _sample(minute: int, value: float, **said: Any) -> dict[str, Any]:
    return {
        "series_hash": 1, "meaning": "input_tokens", "kind": "counter",
        "temporality": "cumulative", "time": AT + timedelta(minutes=minute), "value": value, **said,
    }  # fmt: skip


Stores = tuple[DuckDbSpanStore, SignalWriter]


def test_a_batch_counts_once_however_often_it_comes(stores: Stores) -> None:
    store, writer = stores
    batch = _batch(
        samples=[_sample(1, 5), _sample(1, 5), _sample(2, 6)],
        events=[{"event_hash": 9, "time": AT, "kind": "guardrail", "action": "blocked"}],
        accounts=[{"signal": "metrics", "received": 4}],
        rejections=[{"signal": "metrics", "reason": "missing_time", "rejected": 1}],
    )
    first = writer.write_signals(batch, batch_id="a")
    assert (2, 1, 1, 0) == (
        first.samples,
        first.duplicate_samples,
        first.events,
        first.duplicate_events,
    )
    assert writer.write_signals(batch, batch_id="a").replayed
    resent = writer.write_signals(batch, batch_id="b")
    assert (0, 3, 0, 1) == (
        resent.samples,
        resent.duplicate_samples,
        resent.events,
        resent.duplicate_events,
    )
    (account,) = store.signals.emitters(TENANTS, WINDOW).to_pylist()
    assert (8, 2, 4, 2) == tuple(
        account[name] for name in ("received", "stored", "duplicates", "rejected")
    )
    assert [{"name": "", "action": "blocked", "events": 1}] == store.signals.guardrails(
        TENANTS
    ).to_pylist()


def test_a_gateway_is_heard_whichever_tenant_it_sends_for(stores: Stores) -> None:
    store, writer = stores
    said = {"signal": "traces", "key_id": "k", "service_name": "gateway", "received": 1}
    later = AT + timedelta(minutes=50)
    accounts = [
        {**said, "last_received": AT},
        {**said, "tenant": "beta", "last_received": later},
        {
            **said,
            "tenant": "beta",
            "key_id": "other",
            "last_received": later + timedelta(minutes=1),
        },
    ]
    writer.write_signals(_batch(accounts=accounts), batch_id="a")
    (row,) = store.signals.emitters(TENANTS, WINDOW).to_pylist()
    assert (AT, later) == (row["last_received"], row["last_heard"])


def test_replicas_are_known_up_to_a_number_and_forgotten_after_a_week(stores: Stores) -> None:
    store, writer = stores

    def send(names: list[str], at: datetime) -> list[tuple[str, int]]:
        rows = [
            {"tenant": "acme", "service_name": "app", "instance": name, "received": 5,
             "last_received": at}
            for name in names
        ]  # fmt: skip
        batch = msgspec.structs.replace(_batch(), instances=_rows(INSTANCE_SCHEMA, *rows))
        writer.write_signals(batch, batch_id=str(at))
        found = store.signals.instances(TENANTS, Window(AT, AT + timedelta(days=30)))
        return [(row["instance"], row["received"]) for row in found.to_pylist()]

    assert [("a", 5), ("b", 5)] == send(["a", "b"], AT)
    assert [("a", 10), ("b", 5), ("c", 5)] == send(["a", "c"], AT + timedelta(hours=1))
    crowd = [f"f{n:03}" for n in range(100)]
    many = send(["a", *crowd], AT + timedelta(hours=2))
    assert MAX_INSTANCES == len(many)
    assert ("a", 15) == many[0]
    assert [("z", 5)] == send(["z"], AT + timedelta(days=8))


@pytest.mark.parametrize(
    ("samples", "grown"),
    [
        # The first sample of a series that is older than the window only sets the mark.
        ([_sample(1, 100), _sample(2, 130), _sample(3, 150)], 50),
        # A restart counts from zero: 30 before it, 20 after.
        ([_sample(1, 100), _sample(2, 130), _sample(3, 20)], 50),
        # A restart that overtook the old value shows in its start.
        (
            [
                _sample(1, 100, start_time=AT - timedelta(days=1)),
                _sample(2, 300, start_time=AT + timedelta(minutes=1)),
            ],
            300,
        ),
        # A series that began in the window counts from its start.
        ([_sample(1, 40, start_time=AT), _sample(2, 45, start_time=AT)], 45),
        # Deltas add up.
        ([_sample(m, 10, temporality="delta") for m in (1, 2, 3)], 30),
        # Order of arrival is nothing.
        ([_sample(3, 150), _sample(1, 100), _sample(2, 130)], 50),
        # What was before the window is where growth starts from.
        ([_sample(-5, 100), _sample(5, 160)], 60),
    ],
)
def test_growth_of_a_counter(stores: Stores, samples: list[dict[str, Any]], grown: float) -> None:
    store, writer = stores
    for number, sample in enumerate(samples):
        writer.write_signals(_batch(samples=[sample]), batch_id=str(number))
    found = store.signals.growth(TENANTS, WINDOW).to_pylist()
    assert [grown] == [row["increase"] for row in found]
    assert [] == store.signals.growth(("other",), WINDOW).to_pylist()


@given(
    samples=st.lists(
        st.builds(
            lambda minute, value, series, delta, began: _sample(
                minute,
                float(value),
                series_hash=series,
                temporality="delta" if delta else "cumulative",
                start_time=None if began is None else AT + timedelta(minutes=began),
            ),
            minute=st.integers(-50, 59),
            value=st.integers(0, 1_000),
            series=st.integers(1, 2),
            delta=st.booleans(),
            began=st.one_of(st.none(), st.integers(-70, 50)),
        ),
        max_size=10,
        unique_by=lambda row: (row["series_hash"], row["time"]),
    )
)
@settings(max_examples=60)
def test_growth_is_what_reading_row_by_row_says(samples: list[dict[str, Any]]) -> None:
    store = DuckDbSpanStore(None)
    store.write_signals(_batch(samples=samples), batch_id="a")
    rows = store.signals.growth(TENANTS, WINDOW).to_pylist()
    ordered = sorted(samples, key=lambda row: row["time"])
    expected = 0.0
    for series in (1, 2):
        before: dict[str, Any] | None = None
        for row in (r for r in ordered if r["series_hash"] == series):
            step = row["value"]
            if row["temporality"] == "cumulative" and before is not None:
                both = row["start_time"] is not None and before["start_time"] is not None
                restarted = both and row["start_time"] > before["start_time"]
                if not restarted and row["value"] >= before["value"]:
                    step = row["value"] - before["value"]
            elif row["temporality"] == "cumulative":
                step = row["value"] if row["start_time"] and row["start_time"] >= AT else 0.0
            expected += step if row["time"] >= AT else 0.0
            before = row
    assert expected == pytest.approx(sum(row["increase"] for row in rows))
    store.close()


def test_series_grow_apart(stores: Stores) -> None:
    store, writer = stores
    samples = [_sample(m, 10 * m * s, series_hash=s) for m in (1, 2) for s in (1, 2)]
    writer.write_signals(_batch(samples=samples), batch_id="a")
    assert [30.0] == [row["increase"] for row in store.signals.growth(TENANTS, WINDOW).to_pylist()]


def test_old_samples_are_forgotten(stores: Stores) -> None:
    store, writer = stores
    writer.write_signals(_batch(samples=[_sample(1, 1), _sample(30, 2)]), batch_id="a")
    assert 1 == store.forget_samples(before=AT + timedelta(minutes=10))
    assert 0 == store.forget_samples(before=AT + timedelta(minutes=10))
