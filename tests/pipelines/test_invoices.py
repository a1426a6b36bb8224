"""FX-30: rows name an invoice where they sum to what is payable on it, and none where they do not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collectors.billing.files import read_bill
from controlplane.core.calendar import Period, Window
from controlplane.pipelines.export import write_export
from controlplane.pipelines.export_request import ExportRequest, ExportSources
from controlplane.pipelines.invoices import DIFFERS, NO_COSTS, NOT_NAMED, NOT_WHOLE, SEVERAL
from controlplane.pipelines.reconcile import reconcile_bill
from controlplane.pipelines.reconcile_ledger import ReconcileRequest
from controlplane.pipelines.reconcile_report import ReconciliationReport
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.signed_directory import Stamp
from controlplane.pricing.contracts import Contract
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.signals.billing import BillFile, BillLine
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.usage.ports import KeptReconciliation
from tests.pipelines.golden_bill_formats import MODEL, PRICES
from tests.pipelines.golden_calls import DAYS, FOLDER, START, Lines, calls, lines_of
from tests.priced_calls import priced

METERS = {"input": "input_uncached", "cache read": "cache_read", "output": "output"}
PAYABLE = Decimal("7.791")
"""1,884,000 tokens at 3, 640,000 at 0.30 and 129,800 at 15 dollars a million."""
SPAN = Window(START - timedelta(days=1), START + timedelta(days=DAYS + 1))


class Kept:
    """Recorded reports in a list, newest first."""

    def __init__(self, *reports: ReconciliationReport) -> None:
        self.rows = [
            KeptReconciliation(
                id=f"rec_{n}", tenants=one.tenants, provider=one.provider, start=one.start,
                end=one.end, recorded_at=SPAN.end, body=msgspec.json.encode(one).decode(),
            )
            for n, one in enumerate(reports)
        ]  # fmt: skip

    def keep(self, one: KeptReconciliation) -> None:
        self.rows.insert(0, one)

    def kept(self, *, limit: int) -> list[KeptReconciliation]:
        return self.rows[:limit]


def bill(lines: Lines, *, invoice: str | None = "INV-1", **said: Any) -> list[BillLine]:
    return [
        BillLine(day=(START + timedelta(days=day)).date(), model=MODEL, meter=METERS[meter],
                 quantity=int(quantity), cost_usd=usd, decimals=9, invoice_id=invoice, **said)
        for (day, meter), (quantity, usd) in lines.items()
    ]  # fmt: skip


def reconciled(
    store: DuckDbSpanStore, book: PriceBook, lines: list[BillLine], **file: Any
) -> ReconciliationReport:
    told = BillFile(name="bill", source="plain", sha256="", lines=len(lines), **file)
    asked = ReconcileRequest(tenants=("acme",), provider="anthropic")
    return reconcile_bill(store, book, ([told], lines), asked=asked)


def exported(sources: ExportSources, out: Path, **said: Any) -> dict[str | None, Decimal]:
    """Return what rows sum to by the invoice that they name."""
    request = ExportRequest(tenant="acme", window=SPAN, kind="focus", **said)
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    stamp = Stamp(export_id="e", created_at=SPAN.end, software="t")
    write_export(sources, request, out, key=key, stamp=stamp)
    sums: dict[str | None, Decimal] = {}
    for row in pq.read_table(out / "focus-00000.parquet").to_pylist():
        assert row["InvoiceId"] is None or row["ProviderName"] == "Anthropic"
        sums[row["InvoiceId"]] = sums.get(row["InvoiceId"], Decimal(0)) + row["BilledCost"]
    return sums


def test_rows_of_an_invoice_that_ties_out_name_it_and_sum_to_it(
    billed: DuckDbSpanStore, book: PriceBook, tmp_path: Path
) -> None:
    """Of its provider alone; by the hour as by the day."""
    report = reconciled(billed, book, bill(lines_of(calls(), PRICES)))
    assert ("INV-1", "") == (report.invoice_id, report.invoice_note)
    sources = ExportSources(billed, book, reconciliations=Kept(report))
    days = exported(sources, tmp_path / "d")
    assert {"INV-1", None} == {*days}
    assert PAYABLE == days["INV-1"]
    hours = exported(sources, tmp_path / "h", charge_period=Period.HOUR)
    assert days == hours
    assert {None} == {*exported(ExportSources(billed, book), tmp_path / "none")}


def test_what_is_not_proven_is_not_named(
    billed: DuckDbSpanStore, book: PriceBook, tmp_path: Path
) -> None:
    """Days of another zone cut the invoice; the newest report decides; a commitment is not billed."""
    tied = reconciled(billed, book, bill(lines_of(calls(), PRICES)))
    other = reconciled(billed, book, bill(lines_of(calls()[1:], PRICES)))
    agreed = [Contract(id="c", provider="anthropic", commitment_usd="1", holder="acme")]
    committed = PriceBook(seed_version(), listed_providers(), contracts=agreed)
    for n, (name, kept, with_book) in enumerate([
        ("Asia/Kolkata", Kept(tied), book), ("UTC", Kept(other, tied), book), ("UTC", Kept(tied), committed),
    ]):  # fmt: skip
        sources = ExportSources(billed, with_book, reconciliations=kept)
        assert {None} == {*exported(sources, tmp_path / str(n), zone=name)}, n
    newest = ExportSources(billed, book, reconciliations=Kept(tied, other))
    assert PAYABLE == exported(newest, tmp_path / "newest")["INV-1"]


def test_a_report_says_why_its_invoice_is_not_named(
    billed: DuckDbSpanStore, book: PriceBook
) -> None:
    exact = bill(lines_of(calls(), PRICES))
    first = [msgspec.structs.replace(exact[0], invoice_id=None), *exact[1:]]
    for lines, file, said in (
        (bill(lines_of(calls(), PRICES), invoice=None), {}, (None, NOT_NAMED)),
        (first, {}, (None, SEVERAL)),
        (exact, {"other_invoices": ("INV-1",)}, ("INV-1", NOT_WHOLE)),
        (exact, {"other_invoices": ("INV-2",)}, ("INV-1", "")),
        (exact, {"rejected_lines": 1}, ("INV-1", NOT_WHOLE)),
        (bill(lines_of(calls()[1:], PRICES)), {}, ("INV-1", DIFFERS)),
        ([msgspec.structs.replace(line, cost_usd=None) for line in exact], {}, ("INV-1", NO_COSTS)),
    ):
        report = reconciled(billed, book, lines, **file)
        assert said == (report.invoice_id, report.invoice_note)


def test_cents_that_are_not_the_invoices_are_not_rounding(
    billed: DuckDbSpanStore, book: PriceBook
) -> None:
    """Lines to the cent: here they sum to 7.79 of 7.791, in AWS' recorded report to two cents less than ours."""
    cents = {
        at: [quantity, usd.quantize(Decimal("0.01"))]
        for at, (quantity, usd) in lines_of(calls(), PRICES).items()
    }
    same = [msgspec.structs.replace(line, decimals=2) for line in bill(cents)]
    assert Decimal("7.79") == sum(line.cost_usd or 0 for line in same)
    assert "" == reconciled(billed, book, same).invoice_note
    file, lines = read_bill(FOLDER / "rounding.cur.csv")
    named = [msgspec.structs.replace(line, invoice_id="A-1") for line in lines]
    asked = ReconcileRequest(tenants=("acme",), provider="aws.bedrock")
    report = reconcile_bill(billed, book, ([file], named), asked=asked)
    assert {"rounding": "-0.0201"} == {
        name: usd for name, usd in report.classes.items() if Decimal(usd)
    }
    assert ("A-1", DIFFERS) == (report.invoice_id, report.invoice_note)


def test_a_ledger_that_changed_since_names_no_invoice(
    span_rows: Callable[..., pa.Table], book: PriceBook, tmp_path: Path
) -> None:
    """A call that came after the report was made is on no invoice that it knows."""
    store = DuckDbSpanStore(None)

    def write(number: int) -> None:
        row = {
            "tenant": "acme", "trace_lo": number, "span_id": number, "content_hash": number,
            "start_time": datetime(2026, 10, 6, 12, tzinfo=UTC), "provider": "anthropic",
            "billing_model": MODEL, "input_tokens": 100_000, "input_uncached": 100_000,
        }  # fmt: skip
        store.write(priced(span_rows, [row], book), batch_id=f"b{number}")
        settle_tick(store, now=SPAN.end, ledger=None)

    write(1)
    day = (datetime(2026, 10, 6, tzinfo=UTC) - START).days
    one: Lines = {(day, "input"): [Decimal(10**5), Decimal("0.3")]}
    sources = ExportSources(store, book, reconciliations=Kept(reconciled(store, book, bill(one))))
    assert {"INV-1": Decimal("0.3")} == exported(sources, tmp_path / "before")
    write(2)
    assert {None: Decimal("0.6")} == exported(sources, tmp_path / "after")
    store.close()
