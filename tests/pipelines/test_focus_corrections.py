"""A closed month stays as it was; what a re-rate finds wrong in it is a correction row of now."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.core.calendar import Window
from controlplane.exports.manifest import Manifest, public_pem
from controlplane.exports.statement import StatementPlan
from controlplane.exports.verify import verify_export
from controlplane.pipelines.export import write_export
from controlplane.pipelines.export_request import ExportRequest, ExportSources
from controlplane.pipelines.export_statements import StatementRequest, make_statements
from controlplane.pipelines.rerate import apply_rerate
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.signed_directory import Stamp
from controlplane.pricing.overrides import compile_overrides
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.rerate import RerateOrder
from controlplane.signals.queries import CostQuery
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.priced_calls import priced

OCTOBER = Window(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
NOVEMBER = Window(OCTOBER.end, datetime(2026, 12, 1, tzinfo=UTC))
NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STAMP = Stamp(export_id="exp_1", created_at=NOW, software="test 1")


def _book(usd: str) -> PriceBook:
    own = [{"provider": "openai", "model": "gpt-4o", "usd": {"input_uncached": usd,
            "output_text": usd}}]  # fmt: skip
    return PriceBook("book", [], overrides=compile_overrides(own))


def _export(store: DuckDbSpanStore, book: PriceBook, out: Path, window: Window) -> Manifest:
    request = ExportRequest(tenant="acme", window=window, kind="focus")
    return write_export(ExportSources(store, book), request, out, key=KEY, stamp=STAMP)


def test_a_closed_month_is_the_same_bytes_and_its_correction_a_row_of_now(
    span_rows: Callable[..., pa.Table], tmp_path: Path
) -> None:
    """1,000 tokens in October from 2 to 5 USD a million: 0.003 more, booked on 20 November."""
    old, new = _book("2"), _book("5")
    call = {"tenant": "acme", "billing_model": "gpt-4o", "team": "search", "input_tokens": 1_000,
            "input_uncached": 1_000, "output_tokens": None}  # fmt: skip
    calls = [
        {**call, "trace_lo": 1, "span_id": 1, "start_time": OCTOBER.end - timedelta(days=3)},
        {**call, "trace_lo": 2, "span_id": 2, "start_time": NOVEMBER.start + timedelta(days=3)},
    ]
    store = DuckDbSpanStore(None)
    store.write(priced(span_rows, calls, old), batch_id="b")
    settle_tick(store, now=NOW - timedelta(days=1), ledger=None)
    _export(store, old, tmp_path / "before", OCTOBER)
    order = RerateOrder(
        run_id="run_1",
        window=Window(OCTOBER.start, NOVEMBER.end),
        price_version=new.version,
        closed_before=OCTOBER.end,
    )
    assert 1 == apply_rerate(store.rerates, order, new, now=NOW).corrections

    _export(store, old, tmp_path / "after", OCTOBER)
    for path in (tmp_path / "before").iterdir():
        assert path.read_bytes() == (tmp_path / "after" / path.name).read_bytes(), path.name

    manifest = _export(store, new, tmp_path / "november", NOVEMBER)
    assert (
        5_000_000 + 3_000_000 == manifest.total_nusd
    )  # nano-USD: its own call, and the correction
    files = {path.name: path.read_bytes() for path in (tmp_path / "november").iterdir()}
    assert verify_export(files, trusted_key=public_pem(KEY.public_key())).ok
    (row,) = pq.read_table(tmp_path / "november" / "focus-corrections.parquet").to_pylist()
    assert ("Usage", "Correction", Decimal("0.003")) == (
        row["ChargeCategory"],
        row["ChargeClass"],
        row["BilledCost"],
    )
    assert (NOVEMBER.start, NOVEMBER.end) == (row["BillingPeriodStart"], row["BillingPeriodEnd"])
    assert OCTOBER.start == row["x_CorrectsPeriodStart"]
    assert {None} == {row[name] for name in ("PricingQuantity", "ListUnitPrice", "ConsumedUnit")}
    assert '{"team":"search"}' == row["Tags"]


Meters = dict[tuple[str, str | None], tuple[Decimal, Decimal]]


def _by_meter(folder: Path) -> Meters:
    """Quantity and cost by meter and team, over all FOCUS files of an export."""
    sums: Meters = {}
    for path in folder.glob("focus-*.parquet"):
        for row in pq.read_table(path).to_pylist():
            key = (row["SkuMeter"], json.loads(row["Tags"] or "{}").get("team"))
            quantity, cost = sums.get(key, (Decimal(0), Decimal(0)))
            more = row["ConsumedQuantity"] or Decimal(0)
            sums[key] = (quantity + more, cost + row["BilledCost"])
    return {key: value for key, value in sums.items() if any(value)}


def test_what_is_late_is_told_by_meter_and_owner_as_if_it_had_been_in_time(
    span_rows: Callable[..., pa.Table], tmp_path: Path
) -> None:
    """October as it was closed and its corrections are October of a store that closed nothing."""
    names = ("input_uncached", "cache_read", "cache_write_1h", "output_reasoning", "web_searches")
    own = [{"provider": "openai", "model": "gpt-4o",
            "usd": {name: str(2 + number) for number, name in enumerate(names)}}]  # fmt: skip
    book = PriceBook("book", [], overrides=compile_overrides(own))
    plain = {
        "tenant": "acme", "billing_model": "gpt-4o", "start_time": OCTOBER.end - timedelta(days=3),
        "output_tokens": None, "response_id": "chatcmpl-0123456789abcdef", "trace_lo": 1,
    }  # fmt: skip
    first = {**plain, "span_id": 1, "team": "search", "input_uncached": 900, "web_searches": 3}
    proxy = {**plain, "span_id": 2, "layer": "proxy", "key_role": "proxy", "team": "answers",
             "input_uncached": 700, "cache_read": 150, "cache_write_1h": 50, "output_reasoning": 40,
             "web_searches": 4}  # fmt: skip
    fresh = {**plain, "span_id": 3, "trace_lo": 3, "response_id": None, "input_uncached": 77}

    def told(name: str, *, closes: bool) -> Meters:
        store = DuckDbSpanStore(None)
        store.write(priced(span_rows, [first], book), batch_id="b1")
        if closes:
            store.close_before(OCTOBER.end, zone="UTC", now=NOW)
        settle_tick(store, now=NOW, ledger=None)
        store.write(priced(span_rows, [proxy, fresh], book), batch_id="b2")
        settle_tick(store, now=NOW, ledger=None)
        both = Window(OCTOBER.start, NOVEMBER.end)
        manifest = _export(store, book, tmp_path / name, both)
        request = ExportRequest(tenant="acme", window=both, kind="statement")
        said = write_export(
            ExportSources(store, book), request, tmp_path / f"{name}-s", key=KEY, stamp=STAMP
        )
        assert manifest.total_nusd == said.total_nusd
        store.close()
        return _by_meter(tmp_path / name)

    late, in_time = told("late", closes=True), told("in time", closes=False)
    assert in_time == late
    # 50 tokens written for an hour, at 4 USD a million.
    assert (Decimal(50), Decimal("0.0002")) == late["Cache write tokens, 1 hour", "answers"]
    assert not any(team == "search" for _, team in late), "all of it is the other team's"
    (statement,) = [
        path.read_text() for path in (tmp_path / "late-s").glob("statement-*-answers.csv")
    ]
    assert "Reasoning tokens, correction of 2026-10" in statement


def test_late_usage_without_a_price_is_where_usage_without_a_price_is(
    span_rows: Callable[..., pa.Table], tmp_path: Path
) -> None:
    """500 tokens of an unheard-of model come after October was closed; then they get a price."""
    book = _book("2")
    late = {"tenant": "acme", "billing_model": "unheard-of", "team": "search", "trace_lo": 1,
            "span_id": 1, "start_time": OCTOBER.end - timedelta(days=3), "input_tokens": 500,
            "input_uncached": 500, "output_tokens": None}  # fmt: skip
    here = {**late, "trace_lo": 2, "span_id": 2, "start_time": NOVEMBER.start + timedelta(days=1),
            "input_tokens": 40, "input_uncached": 40}  # fmt: skip
    store = DuckDbSpanStore(None)
    store.close_before(OCTOBER.end, zone="UTC", now=NOW)
    store.write(priced(span_rows, [late, here], book), batch_id="b")
    settle_tick(store, now=NOW, ledger=None)

    def unpriced(name: str, prices: PriceBook) -> list[tuple[int, int]]:
        manifest = _export(store, prices, tmp_path / name, NOVEMBER)
        rows = pq.read_table(tmp_path / name / "unpriced.parquet").to_pylist()
        assert manifest.unpriced_rows == len(rows)
        plan = StatementPlan(
            tenant="acme", by="team", window=NOVEMBER, period="2026-11", zone="UTC"
        )
        (statement,) = make_statements(store, prices, StatementRequest(plan=plan))
        asked = CostQuery(tenants=("acme",), window=NOVEMBER)
        (cube,) = store.costs(asked).to_pylist()
        tokens = sum(row["input_tokens"] for row in rows)
        assert (1, tokens) == (statement.unpriced_calls, statement.unpriced_tokens)
        assert (1, 540) == (cube["calls"], cube["input_tokens"])
        return [(row["calls"], row["input_tokens"]) for row in rows]

    assert [(1, 40), (0, 500)] == unpriced("before", book), "a correction is no call"
    own = [{"provider": "openai", "model": "unheard-of", "usd": {"input_uncached": "4"}}]
    new = PriceBook("new", [], overrides=compile_overrides(own))
    order = RerateOrder(
        run_id="run_1", window=OCTOBER, price_version="new", closed_before=OCTOBER.end
    )
    apply_rerate(store.rerates, order, new, now=NOW + timedelta(minutes=10))
    assert [(1, 40)] == unpriced("after", new)
    priced_rows = pq.read_table(tmp_path / "after" / "focus-corrections.parquet").to_pylist()
    assert [(Decimal(500), Decimal("0.002"))] == [
        (row["ConsumedQuantity"], row["BilledCost"]) for row in priced_rows
    ]
    store.close()
