"""A billing currency: FOCUS rows and bills in EUR at dated rates, exact, and never guessed."""

import csv
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.exports.manifest import Manifest, public_pem
from controlplane.exports.sharing import SharedRule
from controlplane.exports.verify import verify_export
from controlplane.pipelines.export import write_export
from controlplane.pipelines.export_request import ExportRequest, ExportSources, check_request
from controlplane.pipelines.reconcile import reconcile_bill
from controlplane.pipelines.reconcile_ledger import ReconcileRequest
from controlplane.pipelines.reconcile_report import ReconciliationReport
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.signed_directory import Stamp
from controlplane.pricing.contracts import Contract
from controlplane.pricing.currency import ExchangeRate, RateTable, read_rates_csv
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.signals.billing import BillLine
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.pdf_texts import texts
from tests.priced_calls import draw_calls, priced

OCT = Window(datetime(2026, 10, 5, tzinfo=UTC), datetime(2026, 10, 9, tzinfo=UTC))
NOW = OCT.end
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RATES = "day,currency,usd_per_unit\n2026-10-05,EUR,1.0873\n2026-10-07,eur,1.0911\n"


class Kept:
    """Rates of a CSV, as the metadata database answers them."""

    def __init__(self, text: str) -> None:
        self.rates = read_rates_csv(text, source="ecb", now=NOW)

    def add(self, rates: Any) -> None:
        self.rates += rates

    def of(self, currency: str) -> list[ExchangeRate]:
        return [rate for rate in self.rates if rate.currency == currency]

    def currencies(self) -> list[str]:
        return sorted({rate.currency for rate in self.rates})


@pytest.fixture(scope="module")
def book() -> PriceBook:
    agreed = [Contract(id="c", provider="anthropic", commitment_usd="0.5", holder="acme",
                       valid_from=OCT.start.date())]  # fmt: skip
    return PriceBook(seed_version(), listed_providers(), contracts=agreed)


@pytest.fixture(scope="module")
def store(span_rows: Callable[..., pa.Table], book: PriceBook) -> DuckDbSpanStore:
    store = DuckDbSpanStore(None)
    store.write(priced(span_rows, draw_calls(5, 400, OCT), book), batch_id="b")
    settle_tick(store, now=NOW, ledger=None)
    return store


def export(store: DuckDbSpanStore, book: PriceBook, out: Path, **said: Any) -> Manifest:
    request = ExportRequest(tenant="acme", window=OCT, **{"kind": "focus", **said})
    stamp = Stamp(export_id="e", created_at=NOW, software="t")
    return write_export(ExportSources(store, book, Kept(RATES)), request, out, key=KEY, stamp=stamp)


def rows_of(out: Path) -> list[dict[str, Any]]:
    files = sorted(out.glob("focus-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_every_row_is_converted_once_at_its_own_days_rate(
    store: DuckDbSpanStore, book: PriceBook, tmp_path: Path
) -> None:
    """Beside the same export in USD: amounts within a billionth, in exact fractions."""
    manifest = export(store, book, tmp_path / "eur", currency="EUR")
    in_usd = export(store, book, tmp_path / "usd")
    euros, dollars = rows_of(tmp_path / "eur"), rows_of(tmp_path / "usd")
    assert len(euros) == len(dollars) > 100
    rates = {date(2026, 10, 5): "1.0873", date(2026, 10, 6): "1.0873",
             date(2026, 10, 7): "1.0911", date(2026, 10, 8): "1.0911"}  # fmt: skip
    for eur, usd in zip(euros, dollars, strict=True):
        rate = Fraction(rates[eur["ChargePeriodStart"].date()])
        assert Decimal(rates[eur["ChargePeriodStart"].date()]) == eur["x_ExchangeRateUsdPerUnit"]
        assert ("EUR", "USD", "ecb") == (
            eur["BillingCurrency"], eur["PricingCurrency"], eur["x_ExchangeRateSource"]
        )  # fmt: skip
        for name in ("BilledCost", "EffectiveCost"):
            off = Fraction(eur[name]) - Fraction(usd[name]) / rate
            assert abs(off) < Fraction(1, 10**9)
        for kind in ("Contracted", "List"):
            unit = eur[f"{kind}UnitPrice"]
            assert Fraction(eur[f"{kind}Cost"]) == Fraction(unit) * Fraction(eur["PricingQuantity"])
            off = Fraction(unit) - Fraction(usd[f"{kind}UnitPrice"]) / rate
            assert abs(off) <= Fraction(1, 2 * 10**12)
        assert usd["EffectiveCost"] == eur["x_UsdEffectiveCost"]
        assert usd["PricingCurrencyEffectiveCost"] == eur["PricingCurrencyEffectiveCost"]
        if eur["EffectiveCost"]:
            assert eur["x_RoundingCost"] == eur["EffectiveCost"] - eur["ContractedCost"]
    assert in_usd.total_nusd == manifest.total_nusd
    files = {path.name: path.read_bytes() for path in (tmp_path / "eur").iterdir()}
    assert verify_export(files, trusted_key=public_pem(KEY.public_key())).ok


def shared_by(rule: SharedRule) -> dict[str, Any]:
    shares = {"search": 3, "has-no-call": 2} if rule is SharedRule.FIXED else {}
    return {"kind": "statement", "shared_rule": rule, "shares": shares}


@pytest.mark.parametrize("rule", list(SharedRule))
def test_statements_in_euros_add_up_and_can_be_worked_out_again(
    store: DuckDbSpanStore, book: PriceBook, tmp_path: Path, rule: SharedRule
) -> None:
    """A row is cost / rate but for a billionth a call; USD is as without a currency; the PDF says the rates."""
    export(store, book, tmp_path / "usd", **shared_by(rule))
    said = export(store, book, tmp_path / "eur", currency="EUR", **shared_by(rule))
    files = {path.name: path.read_bytes() for path in (tmp_path / "eur").iterdir()}
    assert verify_export(files, trusted_key=public_pem(KEY.public_key())).ok
    dollars = json.loads((tmp_path / "usd" / "statements.json").read_bytes())
    euros = json.loads(files["statements.json"])
    assert len(euros) == len(dollars) >= 3
    whole = Decimal(0)
    for number, (eur, usd) in enumerate(zip(euros, dollars, strict=True)):
        assert (usd["owner"], usd["total_usd"], True) == (
            eur["owner"], eur["total_usd"], eur["id"] != usd["id"]
        )  # fmt: skip
        (pdf,) = (tmp_path / "eur").glob(f"statement-{number:04d}-*.pdf")
        with pdf.with_suffix(".csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        by_rate: dict[str, Decimal] = {}
        for row in rows:
            if row["is_shared"] == "true":
                assert rule is not SharedRule.NONE
                continue
            rate = {"2026-10-05": "1.0873", "2026-10-07": "1.0911"}[row["rate_day"]]
            exact = Fraction(row["cost_usd"]) / Fraction(rate)
            assert (rate, "ecb", "EUR") == (
                row["usd_per_unit"], row["rate_source"], row["currency"]
            )  # fmt: skip
            assert abs(exact - Fraction(row["amount"])) * 10**9 < int(row["calls"])
            by_rate[rate] = by_rate.get(rate, Decimal(0)) + Decimal(row["amount"])
        total = sum((Decimal(row["amount"]) for row in rows), Decimal(0))
        assert Decimal(eur["total_amount"]) == total
        assert Decimal(eur["total_usd"]) == sum(Decimal(row["cost_usd"]) for row in rows)
        whole += total
        told = texts(pdf.read_bytes())
        assert f"Total EUR {eur['total_amount']} (USD {eur['total_usd']})" in told
        assert any(text.startswith("USD is the accounting unit") for text in told)
        for rate, amount in by_rate.items():
            at = told.index(rate, told.index("USD for 1 EUR"))
            assert amount == Decimal(told[at + 2])
    if rule is SharedRule.NONE:
        assert {"1.0873", "1.0911"} == {
            rate["usd_per_unit"] for one in euros for rate in one["rates"]
        }
    else:
        assert "0" == next(one["total_amount"] for one in euros if one["owner"] == "unattributed")
        alone = tmp_path / "alone"
        export(store, book, alone, kind="statement", currency="EUR")
        index = json.loads((alone / "statements.json").read_bytes())
        assert whole == sum(Decimal(one["total_amount"]) for one in index)
    assert said.total_nusd == sum(round(Decimal(one["total_usd"]) * 10**9) for one in dollars)


def test_a_statement_without_a_rate_is_refused_by_its_day(
    store: DuckDbSpanStore, book: PriceBook, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="no CHF rate up to 2026-10-05"):
        export(store, book, tmp_path / "out", kind="statement", currency="CHF")
    assert not (tmp_path / "out").exists()


def test_a_day_without_a_rate_is_refused_by_name(
    store: DuckDbSpanStore, book: PriceBook, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="no CHF rate up to 2026-10-05"):
        export(store, book, tmp_path / "out", currency="CHF")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InvalidInputError, match="currency"):
        check_request(ExportRequest(tenant="acme", window=OCT, kind="calls", currency="EUR"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("day,usd_per_unit\n", "no column currency"),
        ("currency,day,usd_per_unit\n", "has no rates"),
        ("currency,day,usd_per_unit\nEUR,yesterday,1\n", "line 2: day 'yesterday'"),
        ("currency,day,usd_per_unit\nEUR,2026-01-01,1\nEUR,2026-01-02,-1\n", "line 3"),
        ("currency,day,usd_per_unit\nUSD,2026-01-01,1\n", "line 2"),
    ],
)
def test_a_file_of_rates_is_taken_whole_or_not_at_all(text: str, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        read_rates_csv(text, source="ecb", now=NOW)


def euro_bill(store: DuckDbSpanStore) -> list[BillLine]:
    """OpenAI's bill in EUR by day and model, in cents: what the calls cost, at the rates above."""
    sums: dict[tuple[date, str], int] = {}
    for row in store.batches():
        for call in row[1].to_pylist():
            if call["provider"] == "openai" and call["cost_nusd"] is not None:
                key = (call["start_time"].date(), call["billing_model"])
                sums[key] = sums.get(key, 0) + call["cost_nusd"]
    lines = []
    for (day, model), nusd in sorted(sums.items()):
        rate = Fraction("1.0873" if day < date(2026, 10, 7) else "1.0911")
        cents = round(Fraction(nusd, 10**7) / rate)
        lines.append(
            BillLine(day=day, model=model, cost_usd=Decimal(cents).scaleb(-2), decimals=2,
                     currency="EUR")
        )  # fmt: skip
    return lines


def reconciled(
    store: DuckDbSpanStore, book: PriceBook, lines: list[BillLine]
) -> ReconciliationReport:
    asked = ReconcileRequest(tenants=("acme",), provider="openai")
    kept = Kept(RATES)
    return reconcile_bill(
        store, book, ([], lines), asked=asked, rates_of=lambda code: RateTable(kept.of(code))
    )


def test_an_invoice_in_euros_reconciles(store: DuckDbSpanStore, book: PriceBook) -> None:
    """What its cents round away is rounding; the report says the rates and the sum in EUR."""
    lines = euro_bill(store)
    report = reconciled(store, book, lines)
    assert {"rounding"} >= {name for name, usd in report.classes.items() if usd != "0"}
    assert (0.0, True) == (report.unexplained_ratio, report.within_tolerance)
    total = sum((line.cost_usd for line in lines if line.cost_usd), Decimal(0))
    assert {"EUR": format(total, "f")} == report.billed_in
    assert [("EUR", "1.0873"), ("EUR", "1.0911")] == [
        (rate.currency, rate.usd_per_unit) for rate in report.rates
    ]
    assert Decimal(report.billed_usd) > total


def test_a_bill_of_a_day_without_a_rate_is_refused(store: DuckDbSpanStore, book: PriceBook) -> None:
    early = BillLine(day=OCT.start.date() - timedelta(days=1), cost_usd=Decimal(1), currency="EUR")
    with pytest.raises(InvalidInputError, match="no EUR rate up to 2026-10-04"):
        reconciled(store, book, [early])
