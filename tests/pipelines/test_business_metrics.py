"""Metrics of the business over OTLP: a value a day, whatever is sent twice, late or restarted."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from controlplane.core.fiscal import Dates
from controlplane.ingest.metrics import decode_metrics
from controlplane.ingest.ports import Payload, SpoolEntry
from controlplane.pipelines.business_metrics import keep_business_metrics
from controlplane.signals.samples import ACCOUNT_SCHEMA, EVENT_SCHEMA, REJECTION_SCHEMA
from controlplane.signals.sender import Sender
from controlplane.signals.signal_ports import SignalBatch
from controlplane.store.metadata.finance import FinanceRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

ZONE = "Asia/Kolkata"
MIDNIGHT = datetime(2026, 11, 19, 18, 30, tzinfo=UTC)  # the 20th begins in Kolkata
NOW = MIDNIGHT + timedelta(hours=20)
DAY = date(2026, 11, 20)
NAMES = ("business.*", "orders")


@pytest.fixture
def store() -> Iterator[DuckDbSpanStore]:
    made = DuckDbSpanStore(None)
    yield made
    made.close()


@pytest.fixture
def kept(metadata_engine: Engine) -> FinanceRepository:
    return FinanceRepository(metadata_engine)


def nano(at: datetime) -> str:
    return str(int(at.timestamp()) * 10**9)


def metric(name: str, kind: str, *points: tuple[datetime, float], **said: Any) -> dict[str, Any]:
    """A metric as OTLP/JSON has it; a sum is a counter that began at midnight unless told."""
    began = said.pop("began", MIDNIGHT - timedelta(days=30))
    data: dict[str, Any] = {
        "dataPoints": [
            {"timeUnixNano": nano(at), "asDouble": value, "startTimeUnixNano": nano(began),
             "attributes": [{"key": "shop", "value": {"stringValue": said.get("shop", "a")}}]}
            for at, value in points
        ]
    }  # fmt: skip
    if kind == "sum":
        data |= {"isMonotonic": True, "aggregationTemporality": said.get("temporality", 2)}
    return {"name": name, kind: data}


def send(
    store: DuckDbSpanStore, batch: str, *metrics: dict[str, Any], tenant: str = "acme"
) -> None:
    """Write a request as ingest does."""
    body = {"resourceMetrics": [{"resource": {}, "scopeMetrics": [{"metrics": metrics}]}]}
    payload = Payload(json.dumps(body).encode(), "json", "metrics")
    samples = decode_metrics([SpoolEntry(payload, Sender(tenant=tenant, key_id=tenant), NOW)])
    assert not samples.rejected
    store.write_signals(
        SignalBatch(
            samples=samples.rows,
            events=EVENT_SCHEMA.empty_table(),
            accounts=ACCOUNT_SCHEMA.empty_table(),
            rejections=REJECTION_SCHEMA.empty_table(),
        ),
        batch_id=batch,
    )


def keep(store: DuckDbSpanStore, kept: FinanceRepository) -> int:
    tenants = store.gpu.sample_tenants()
    return keep_business_metrics(
        store.signals, kept, tenants=tenants, names=NAMES, zone=ZONE, now=NOW
    )


def days(kept: FinanceRepository, name: str, tenant: str = "acme") -> dict[date, Decimal]:
    return kept.metric(tenant, name, days=Dates(date(2026, 11, 1), date(2026, 12, 1)))


def after(**said: float) -> datetime:
    return MIDNIGHT + timedelta(**said)


def test_counters_give_what_they_grew_and_gauges_their_last_value(
    store: DuckDbSpanStore, kept: FinanceRepository
) -> None:
    """Two shops of one counter: 130 - 100 before midnight's reading, a restart to 7, 12 new."""
    send(
        store, "b1",
        metric("business.tickets", "sum", (after(hours=-1), 100), (after(hours=1), 130),
               (after(hours=2), 7)),
        metric("business.tickets", "sum", (after(hours=3), 12), shop="b", began=after(hours=1)),
        metric("business.seats", "gauge", (after(hours=1), 40), (after(hours=5), 41.5)),
        metric("orders", "sum", (after(hours=1), 3), (after(hours=2), 4), temporality=1),
        metric("orders_total", "sum", (after(hours=1), 9), temporality=1),
    )  # fmt: skip
    send(store, "b2", metric("orders", "sum", (after(hours=1), 5), temporality=1), tenant="globex")
    assert 0 < keep(store, kept)
    assert Decimal(30 + 7 + 12) == days(kept, "business.tickets")[DAY]
    assert {DAY: Decimal("41.5")} == days(kept, "business.seats")
    assert {DAY: Decimal(7)} == days(kept, "orders")
    assert {DAY: Decimal(5)} == days(kept, "orders", "globex")
    assert ["business.seats", "business.tickets", "orders"] == [
        name for _, name in kept.metric_names(("acme",))
    ]


def test_what_is_sent_again_changes_nothing_and_what_is_late_is_counted(
    store: DuckDbSpanStore, kept: FinanceRepository
) -> None:
    first = metric("orders", "sum", (after(hours=1), 3), temporality=1)
    send(store, "b1", first)
    assert 1 == keep(store, kept)
    send(store, "b2", first)
    send(store, "b1", first)
    assert 0 == keep(store, kept)
    assert {DAY: Decimal(3)} == days(kept, "orders")
    late = (after(hours=-2), 10), (after(minutes=30), 2)
    send(store, "b3", metric("orders", "sum", *late, temporality=1))
    assert 2 == keep(store, kept)
    assert {DAY: Decimal(5), date(2026, 11, 19): Decimal(10)} == days(kept, "orders")


def test_a_name_is_matched_whole_and_as_it_is_written(
    store: DuckDbSpanStore, kept: FinanceRepository
) -> None:
    """A point in a setting is a point."""
    for number, name in enumerate(("businessXorders", "my.business.orders", "orders.new")):
        send(store, f"b{number}", metric(name, "gauge", (after(hours=1), 1)))
    assert 0 == keep(store, kept)
