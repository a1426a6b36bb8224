"""A long re-rate does not leave its old versions in memory and in the log: it checkpoints.

Each part is committed before; whoever writes meanwhile is not waited for.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from controlplane.core.calendar import Window
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.price import price, reprice
from controlplane.pricing.price_book import ListedModel, ListedProvider, PriceBook
from controlplane.pricing.rates import ALWAYS, PriceRow, Rate, Tier
from controlplane.pricing.rerate import RerateOrder
from controlplane.signals.schema import ATTRIBUTED_SCHEMA
from controlplane.store.spans.database import transaction
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
NOW = AT + timedelta(days=1)
HOURS, CALLS = 6, 30
WINDOW = Window(AT, AT + timedelta(hours=HOURS))
ORDER = RerateOrder(run_id="r", window=WINDOW, price_version="new")


def _book(version: str, nusd: int) -> PriceBook:
    row = PriceRow(
        price_id=version, validity=ALWAYS, tiers=(Tier(-1, {"output_text": Rate(nusd, 1)}),)
    )
    model = ListedModel(model="m", rows=(row,), spellings=("m",))
    return PriceBook(version, [ListedProvider(provider="p", models=[model])])


@pytest.fixture
def store(tmp_path: Path, span_rows: Callable[..., pa.Table]) -> Iterator[DuckDbSpanStore]:
    """Some hours of calls, settled and in the file; a part is an hour, a checkpoint every other."""
    opened = DuckDbSpanStore(tmp_path / "spans.duckdb")
    old = _book("old", 3)
    rows = [
        {"trace_lo": at + 1, "span_id": at + 1, "start_time": AT + timedelta(hours=at // CALLS),
         "provider": "p", "billing_model": "m", "output_tokens": 5, "output_text": 5}
        for at in range(HOURS * CALLS)
    ]  # fmt: skip
    opened.write(price(span_rows(*rows).select(ATTRIBUTED_SCHEMA.names), old), batch_id="b")
    settle_tick(opened, now=NOW, ledger=None, reprice=lambda rows: reprice(rows, old))
    opened.close()
    opened = DuckDbSpanStore(tmp_path / "spans.duckdb")
    opened.rerates.most = 1
    opened.rerates.parts_a_checkpoint = 2
    yield opened
    opened.close()


def _apply(store: DuckDbSpanStore, part: Window) -> None:
    """Re-rate a part; each call of 5 tokens moves from 3 nano-USD a token to 7."""
    made = store.rerates.apply(ORDER, part, lambda rows: reprice(rows, _book("new", 7)), now=NOW)
    assert [15] * CALLS == made["old_cost_nusd"].to_pylist()
    assert [35] * CALLS == made["new_cost_nusd"].to_pylist()


def test_the_log_is_written_into_the_file_every_few_parts(
    store: DuckDbSpanStore, tmp_path: Path
) -> None:
    log = tmp_path / "spans.duckdb.wal"
    sizes = []
    for part in store.rerates.days(WINDOW):
        _apply(store, part)
        sizes.append(log.stat().st_size)
    first, second, third, fourth, fifth, sixth = sizes
    assert first < second, "nothing is written after one part"
    assert third < second > fifth, "of two parts none is left in the log"
    assert third < fourth
    assert fifth < sixth


def test_who_writes_meanwhile_is_not_waited_for(store: DuckDbSpanStore, tmp_path: Path) -> None:
    """The parts are committed all the same, and the next checkpoint has the log."""
    log = tmp_path / "spans.duckdb.wal"
    parts = store.rerates.days(WINDOW)
    other = store._database.connect()
    with transaction(other):
        other.execute("INSERT INTO tombstone VALUES ('x', now())")
        for part in parts[:5]:
            _apply(store, part)
        held = log.stat().st_size
    other.close()
    _apply(store, parts[5])
    assert log.stat().st_size < held
