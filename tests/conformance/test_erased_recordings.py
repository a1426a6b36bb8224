"""Erasure keeps what calls used: settled again without the person, every recording counts as before."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from controlplane.attribution.rules import with_organisation
from controlplane.core.calendar import Window
from controlplane.ingest.limits import DEFAULT_LIMITS
from controlplane.ingest.ports import Payload, SpoolBatch, SpoolEntry
from controlplane.ingest.subjects import Subject
from controlplane.pipelines.ingest import ingest_batch
from controlplane.pipelines.settle import rebuild, settle_tick
from controlplane.pricing.price import reprice
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.signals.queries import CallQuery
from controlplane.signals.sender import Sender
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.conformance.judge import Scenario, scenarios

NOW = datetime(2026, 11, 26, tzinfo=UTC)
EVER = Window(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
ADA = Subject("default", "ada")
KEY = b"k" * 32


def test_what_is_settled_again_after_an_erasure_is_what_it_was() -> None:
    """Everything that was ever recorded, of one person; each run is an installation of its own."""
    book = PriceBook(seed_version(), listed_providers())
    store, late = DuckDbSpanStore(None, subject_key=KEY), DuckDbSpanStore(None, subject_key=KEY)
    runs = [one for one in scenarios() if one.payloads]
    _ingest(runs, store, book)
    before = _settled(store, book)
    assert len(runs) <= len(before)
    assert {"ada"} == {call["user_id"] for call in before}
    assert store.erase(ADA, now=NOW, apply=True).applied
    rebuilt = DuckDbSpanStore(None, subject_key=KEY)
    rebuild(store, rebuilt, now=NOW, reprice=lambda rows: reprice(rows, book))
    # And so is what comes from a backup when the person is erased already.
    late.erase(ADA, now=NOW, apply=True)
    _ingest(runs, late, book)
    nobodys = [{**call, "user_id": None, "version": None} for call in before]
    for again in (_settled(rebuilt, book), _settled(late, book)):
        assert nobodys == [{**call, "version": None} for call in again]
    for one in (store, rebuilt, late):
        one.close()


def _ingest(runs: list[Scenario], store: DuckDbSpanStore, book: PriceBook) -> None:
    entries = tuple(
        SpoolEntry(
            Payload(path.read_bytes(), "json" if path.suffix == ".json" else "protobuf"),
            Sender(domain=run.name, key_id=run.name, dimensions={"user_id": "ada"}),
            NOW,
        )
        for run in runs
        for path in run.payloads
    )
    batch = SpoolBatch("everything", entries, tuple(range(len(entries))))
    ingest_batch(batch, book=book, rules=with_organisation([]), limits=DEFAULT_LIMITS, writer=store)


def _settled(store: DuckDbSpanStore, book: PriceBook) -> list[dict[str, Any]]:
    through = -1
    while (
        done := settle_tick(store, now=NOW, ledger=None, reprice=lambda rows: reprice(rows, book))
    ).through != through:
        through = done.through  # fmt: skip
    found: pa.Table = store.calls(CallQuery(tenants=("default",), window=EVER, limit=10_000))
    return sorted(found.to_pylist(), key=lambda call: str(call["call_id"]))
