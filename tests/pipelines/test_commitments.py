"""Commitments over real calls: what is drawn, bought, unused and beyond, in sums that agree."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.core.calendar import Window
from controlplane.exports.manifest import Manifest, public_pem
from controlplane.exports.verify import verify_export
from controlplane.pipelines.commitments import drawdowns
from controlplane.pipelines.export import write_export
from controlplane.pipelines.export_request import ExportRequest, ExportSources
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.signed_directory import Stamp
from controlplane.pricing.contracts import Contract
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.priced_calls import draw_calls, priced

OCT = Window(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RUNS_OUT, ENOUGH = "runs-out", "enough"
AGREED = [
    Contract(id=RUNS_OUT, provider="openai", models="gpt-4o", discount_percent="20",
             commitment_usd="1.234567891", holder="acme"),
    Contract(id=ENOUGH, provider="anthropic", discount_percent="10",
             commitment_usd="500", holder="acme"),
    Contract(id="no-promise", provider="google", discount_percent="5"),
]  # fmt: skip


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook(seed_version(), listed_providers(), contracts=AGREED)


@pytest.fixture(scope="module")
def calls(span_rows: Callable[..., pa.Table], book: PriceBook) -> pa.Table:
    drawn = draw_calls(11, 1_500, OCT, tenants=("acme", "globex"))
    return priced(span_rows, drawn, book)


@pytest.fixture(scope="module")
def store(calls: pa.Table) -> DuckDbSpanStore:
    store = DuckDbSpanStore(None)
    store.write(calls, batch_id="b")
    settle_tick(store, now=OCT.end, ledger=None)
    return store


def under(calls: pa.Table, name: str, tenant: str | None = None) -> list[dict[str, Any]]:
    """Calls that a contract priced, in the order they were made; ids order equal starts."""
    rows = [
        row
        for row in calls.to_pylist()
        if f"*{name}@" in (row["price_id"] or "") and tenant in {None, row["tenant"]}
    ]
    return sorted(rows, key=lambda row: row["start_time"])


def export(store: DuckDbSpanStore, book: PriceBook, out: Path, **asked: Any) -> Manifest:
    said = {"tenant": "acme", "window": OCT, "kind": "focus", **asked}
    stamp = Stamp(export_id="e", created_at=asked.pop("now", OCT.end), software="t")
    said.pop("now", None)
    sources = ExportSources(store, book)
    return write_export(sources, ExportRequest(**said), out, key=KEY, stamp=stamp)


def sql(out: Path, text: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW focus AS FROM '{out}/focus-*.parquet'")
        return connection.execute(text).fetchall()


def test_a_drawdown_is_what_calls_of_all_tenants_cost(
    store: DuckDbSpanStore, calls: pa.Table, book: PriceBook
) -> None:
    """Counted by hand, call after call; the contract without a promise has none."""
    found = {one.contract.id: one for one in drawdowns(store, book.contracts, OCT)}
    assert {RUNS_OUT, ENOUGH} == found.keys()
    amount, used, ran_out = 1_234_567_891, 0, None
    for row in under(calls, RUNS_OUT):
        if ran_out is None and used + row["cost_nusd"] > amount:
            ran_out = (row["start_time"], amount - used)
        used += row["cost_nusd"]
    one = found[RUNS_OUT]
    assert one.boundary is not None
    assert ran_out == (one.boundary.start, one.boundary.covered_nusd)
    assert (used, amount, used - amount) == (one.used_nusd, one.drawn_nusd, one.overage_nusd)
    other = found[ENOUGH]
    spent = sum(row["cost_nusd"] for row in under(calls, ENOUGH))
    assert (spent, None, 500 * 10**9 - spent) == (other.used_nusd, other.boundary, other.left_nusd)
    assert spent > 0


@pytest.fixture(scope="module")
def made(store: DuckDbSpanStore, book: PriceBook, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The holder's October, told when it is over."""
    out = tmp_path_factory.mktemp("focus") / "out"
    manifest = export(store, book, out)
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert verify_export(files, trusted_key=public_pem(KEY.public_key())).ok
    assert "focus-commitments.parquet" in {file.name for file in manifest.files}
    return out


def test_the_purchase_is_what_was_used_and_what_was_not(
    made: Path, store: DuckDbSpanStore, book: PriceBook, tmp_path: Path
) -> None:
    """FX-27, over the exports of every tenant: effective used + unused = billed purchase."""
    export(store, book, tmp_path / "globex", tenant="globex")
    text = """SELECT CommitmentDiscountId, ChargeCategory, CommitmentDiscountStatus,
        sum(BilledCost), sum(EffectiveCost), sum(CommitmentDiscountQuantity)
        FROM focus WHERE CommitmentDiscountId IS NOT NULL GROUP BY ALL"""
    sums: dict[tuple[str, str, str | None], Decimal] = {}
    for out in (made, tmp_path / "globex"):
        for name, category, status, billed, effective, quantity in sql(out, text):
            key = (name, category, status)
            sums[key] = sums.get(key, Decimal(0)) + (billed if status is None else effective)
            assert (billed if status is None else effective) == quantity
            assert 0 == (effective if status is None else billed)
    assert Decimal("1.234567891") == sums[RUNS_OUT, "Purchase", None]
    assert Decimal("1.234567891") == sums[RUNS_OUT, "Usage", "Used"]
    assert (RUNS_OUT, "Usage", "Unused") not in sums
    assert Decimal(500) == sums[ENOUGH, "Purchase", None]
    assert Decimal(500) == sums[ENOUGH, "Usage", "Used"] + sums[ENOUGH, "Usage", "Unused"]


def test_usage_costs_the_ledger_and_bills_what_no_commitment_covers(
    made: Path, calls: pa.Table
) -> None:
    """Usage with a call behind it is the ledger in effect; x_UsdEffectiveCost says the same."""
    ledger = sum(row["cost_nusd"] or 0 for row in calls.to_pylist() if row["tenant"] == "acme")
    ((effective, usd, billed, used),) = sql(
        made,
        """SELECT sum(EffectiveCost), sum(x_UsdEffectiveCost), sum(BilledCost),
        sum(EffectiveCost) FILTER (CommitmentDiscountStatus = 'Used')
        FROM focus WHERE x_CallCount IS NOT NULL""",
    )
    assert ledger == effective * 10**9 == usd * 10**9
    assert billed == effective - used


@pytest.mark.parametrize(
    "rule",
    [
        "ContractedCost <> ContractedUnitPrice::DECIMAL(38, 9) * PricingQuantity::DECIMAL(38, 9)",
        "ListCost <> ListUnitPrice::DECIMAL(38, 9) * PricingQuantity::DECIMAL(38, 9)",
        "EffectiveCost - ContractedCost <> x_RoundingCost AND ChargeCategory = 'Usage'",
        "CommitmentDiscountStatus = 'Used' AND (PricingCategory <> 'Committed' OR BilledCost <> 0)",
        "CommitmentDiscountStatus IS NOT NULL AND CommitmentDiscountId IS NULL",
        "ChargeCategory = 'Purchase' AND ConsumedQuantity IS NOT NULL",
        # a price never differs by more than one unit of the meter where an item was split
        (
            "ChargeCategory = 'Usage' AND ContractedUnitPrice > 0 AND abs(x_RoundingCost) >"
            " ContractedUnitPrice / 1000000 + 0.0000000005 * x_CallCount"
        ),
    ],
)
def test_no_row_breaks_a_rule(made: Path, rule: str) -> None:
    assert [(0,)] == sql(made, f"SELECT count(*) FROM focus WHERE {rule}")  # noqa: S608 - the test's own


def test_a_period_that_runs_has_no_unused_row(
    store: DuckDbSpanStore, book: PriceBook, tmp_path: Path
) -> None:
    """And a window inside the month has neither purchase nor unused amount; usage is still marked."""
    export(store, book, tmp_path / "open", now=OCT.end - timedelta(days=1))
    kinds = "SELECT DISTINCT CommitmentDiscountStatus FROM focus WHERE CommitmentDiscountId <> ''"
    assert {(None,), ("Used",)} == set(sql(tmp_path / "open", kinds))
    inside = Window(OCT.start + timedelta(days=3), OCT.start + timedelta(days=6))
    export(store, book, tmp_path / "part", window=inside)
    assert {("Used",)} == set(sql(tmp_path / "part", kinds))
