"""From a real store to a directory that verifies offline, and back to the same numbers."""

import csv
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError, StoreUnavailableError
from controlplane.core.money import parse_usd
from controlplane.exports.manifest import Manifest, public_pem
from controlplane.exports.verify import Verification, verify_export
from controlplane.pipelines.export import write_export
from controlplane.pipelines.export_request import ExportRequest, ExportSources
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.signed_directory import Stamp
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.queries import CallQuery, CostQuery
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

START = datetime(2026, 11, 20, 10, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(hours=1))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STAMP = Stamp(export_id="exp_1", created_at=WINDOW.end, software="test 1")
COUNT = 2_500
BOOK = PriceBook("none", [])

Rows = Callable[..., pa.Table]


@pytest.fixture(scope="module")
def store(span_rows: Rows) -> DuckDbSpanStore:
    """2,500 calls of `acme`, every seventh unpriced; one just outside the window; one of another."""
    store = DuckDbSpanStore(None)
    calls = [
        {
            "tenant": "acme",
            "trace_lo": n + 1,
            "start_time": START + timedelta(seconds=n // 2),  # two at each instant
            "content_hash": n,
            "cost_nusd": None if n % 7 == 0 else 1_000_000_000 + n,
            "cost_state": "unpriced" if n % 7 == 0 else "priced",
            "request_model": "=1+1" if n == 5 else "gpt-4o",
        }
        for n in range(COUNT)
    ]
    outside = {**calls[1], "trace_lo": 10**6, "start_time": WINDOW.end}
    foreign = {**calls[1], "trace_lo": 10**6 + 1, "tenant": "globex"}
    store.write(span_rows(*calls, outside, foreign), batch_id="b")
    settle_tick(store, now=WINDOW.end, ledger=None)
    return store


EXPECTED = sum(1_000_000_000 + n for n in range(COUNT) if n % 7)
UNPRICED = len(range(0, COUNT, 7))


def _export(store: DuckDbSpanStore, out: Path, **asked: object) -> Manifest:
    request = ExportRequest(tenant="acme", window=WINDOW, **asked)  # type: ignore[arg-type]  # the test's own words
    return write_export(ExportSources(store, BOOK), request, out, key=KEY, stamp=STAMP)


def _verified(out: Path) -> Verification:
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    return verify_export(files, trusted_key=public_pem(KEY.public_key()))


def test_parquet_holds_each_call_once_and_sums_to_the_store(
    store: DuckDbSpanStore, tmp_path: Path
) -> None:
    """Over file and page boundaries; the total is the store's own and that of the calls made."""
    manifest = _export(store, tmp_path / "out", rows_per_file=1_000)
    assert [1_000, 1_000, 500] == [entry.rows for entry in manifest.files]
    assert (COUNT, EXPECTED, UNPRICED) == (
        manifest.rows,
        manifest.total_nusd,
        manifest.unpriced_rows,
    )
    costs = store.costs(CostQuery(tenants=("acme",), window=WINDOW)).to_pylist()
    assert [EXPECTED] == [row["cost_nusd"] for row in costs]
    tables = [pq.read_table(tmp_path / "out" / entry.name) for entry in manifest.files]
    traces = [str(text) for table in tables for text in table["trace_id"].to_pylist()]
    assert [f"{n:032x}" for n in range(1, COUNT + 1)] == sorted(traces)
    result = _verified(tmp_path / "out")
    assert (True, ()) == (result.ok, result.findings)
    assert (COUNT, EXPECTED) == (result.rows, result.total_nusd)


def test_csv_says_the_same_and_is_safe_to_open(store: DuckDbSpanStore, tmp_path: Path) -> None:
    """Read by another reader than ours."""
    manifest = _export(store, tmp_path / "out", file_format="csv")
    assert manifest.csv_escaped
    with (tmp_path / "out" / "calls-00000.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert EXPECTED == sum(parse_usd(row["cost_usd"]) for row in rows if row["cost_usd"])
    assert UNPRICED == sum(row["cost_state"] == "unpriced" for row in rows)
    assert {"gpt-4o": COUNT - 1, "'=1+1": 1} == {
        model: sum(row["request_model"] == model for row in rows)
        for model in {row["request_model"] for row in rows}
    }
    assert _verified(tmp_path / "out").ok


def test_the_same_question_is_the_same_bytes(store: DuckDbSpanStore, tmp_path: Path) -> None:
    """Nothing of the moment is in an export but what it is stamped with."""
    for name in ("one", "two"):
        _export(store, tmp_path / name)
    copies = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    ]
    assert copies[0] == copies[1]


def test_an_empty_window_is_an_export_too(store: DuckDbSpanStore, tmp_path: Path) -> None:
    """That nothing happened can be proven."""
    request = ExportRequest(tenant="nobody", window=WINDOW)
    sources = ExportSources(store, BOOK)
    manifest = write_export(sources, request, tmp_path / "out", key=KEY, stamp=STAMP)
    assert (1, 0, 0) == (len(manifest.files), manifest.rows, manifest.total_nusd)
    assert _verified(tmp_path / "out").ok


def test_what_is_there_is_never_written_over(store: DuckDbSpanStore, tmp_path: Path) -> None:
    """Nor is an unknown format guessed."""
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInputError, match="exists"):
        _export(store, tmp_path / "out")
    with pytest.raises(InvalidInputError, match="Write parquet or csv"):
        _export(store, tmp_path / "new", file_format="xlsx")
    assert ["out"] == [path.name for path in tmp_path.iterdir()]


class _FailsOnTheSecondBatch:
    def __init__(self, store: DuckDbSpanStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def call_batches(self, query: CallQuery) -> Iterator[pa.Table]:
        yield next(self._store.call_batches(query))
        raise StoreUnavailableError("gone")


def test_a_store_that_goes_away_leaves_nothing(store: DuckDbSpanStore, tmp_path: Path) -> None:
    """Whole or not at all."""
    with pytest.raises(StoreUnavailableError):
        _export(_FailsOnTheSecondBatch(store), tmp_path / "out")  # type: ignore[arg-type]  # it answers for one
    assert [] == list(tmp_path.iterdir())
