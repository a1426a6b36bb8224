"""FOCUS from real calls: it sums to the ledger, and every rule that the validator can not see holds."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.core.calendar import Period, Window
from controlplane.core.errors import InvalidInputError
from controlplane.core.fiscal import FiscalCalendar, Pattern, Weekday
from controlplane.exports.manifest import Manifest, public_pem
from controlplane.exports.vendors import UNITS, pricing_unit
from controlplane.exports.verify import verify_export
from controlplane.pipelines.export import write_export
from controlplane.pipelines.export_request import ExportRequest, ExportSources
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.signed_directory import Stamp
from controlplane.pricing.overrides import compile_overrides
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.signals.queries import CostQuery
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.priced_calls import draw_calls, priced

START = datetime(2026, 10, 24, 18, 30, tzinfo=UTC)  # midnight in Kolkata
WINDOW = Window(START, START + timedelta(days=10))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STAMP = Stamp(export_id="exp_1", created_at=WINDOW.end, software="test 1")
ZONE = "Asia/Kolkata"
CONTRACTS = [
    {"provider": "self-hosted", "model": "house-13b", "usd": {"input_uncached": "0.0375",
     "output_text": "0.11"}},
    {"provider": "openai", "model": "gpt-4o", "usd": {"input_uncached": "2.10",
     "cache_read": "1.00", "cache_write_5m": "2.10", "output_text": "9"}},
]  # fmt: skip

Rows = Callable[..., pa.Table]


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook(seed_version(), listed_providers(), overrides=compile_overrides(CONTRACTS))


@pytest.fixture(scope="module")
def calls(span_rows: Rows, book: PriceBook) -> pa.Table:
    return priced(span_rows, draw_calls(7, 3_000, WINDOW, tenants=("acme", "globex")), book)


@pytest.fixture(scope="module")
def store(calls: pa.Table) -> DuckDbSpanStore:
    store = DuckDbSpanStore(None)
    store.write(calls, batch_id="b")
    settle_tick(store, now=WINDOW.end, ledger=None)
    return store


def export(store: DuckDbSpanStore, book: PriceBook, out: Path, **asked: Any) -> Manifest:
    said = {"tenant": "acme", "window": WINDOW, "kind": "focus", "zone": ZONE, **asked}
    sources = ExportSources(store, book)
    return write_export(sources, ExportRequest(**said), out, key=KEY, stamp=STAMP)


@pytest.fixture(scope="module")
def made(store: DuckDbSpanStore, book: PriceBook, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export that most tests look at."""
    out = tmp_path_factory.mktemp("focus") / "out"
    export(store, book, out)
    return out


def sql(made: Path, text: str) -> list[tuple[Any, ...]]:
    """Ask the file itself, with another reader than ours."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        view = f"CREATE VIEW focus AS FROM '{made}/focus-*.parquet'"
        connection.execute(view)
        return connection.execute(text).fetchall()


def spent(calls: pa.Table, tenant: str = "acme") -> int:
    rows = [row for row in calls.to_pylist() if row["tenant"] == tenant]
    return sum(row["cost_nusd"] or 0 for row in rows)


def test_billed_cost_is_the_ledger_to_the_nano_dollar(
    made: Path, store: DuckDbSpanStore, calls: pa.Table
) -> None:
    """The export, the cost answer and the calls themselves; no call of another tenant."""
    (answer,) = store.costs(CostQuery(tenants=("acme",), window=WINDOW)).to_pylist()
    ((billed, effective),) = sql(made, "SELECT sum(BilledCost), sum(EffectiveCost) FROM focus")
    assert spent(calls) == answer["cost_nusd"] == billed * 10**9 == effective * 10**9
    assert spent(calls) > 0


def test_the_export_verifies_and_says_what_it_leaves_out(made: Path, calls: pa.Table) -> None:
    """Usage without a price is in a file of its own, counted, and in no cost."""
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    result = verify_export(files, trusted_key=public_pem(KEY.public_key()))
    assert (True, ()) == (result.ok, result.findings)
    assert spent(calls) == result.total_nusd
    unpriced = [
        row
        for row in calls.to_pylist()
        if row["tenant"] == "acme" and row["cost_state"] == "unpriced"
    ]
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT sum(calls), sum(input_tokens), count(cost_nusd) FROM '{made}/unpriced.parquet'"  # noqa: S608 - our own path
        ).fetchall()
    assert [(len(unpriced), sum(row["input_tokens"] for row in unpriced), 0)] == found
    assert len(unpriced) > 50


def test_meters_hold_exactly_the_tokens_of_the_calls(made: Path, calls: pa.Table) -> None:
    """Per meter; a meter of another unit would be another number."""
    names = {
        "Input tokens": "input_uncached",
        "Cached input tokens": "cache_read",
        "Cache write tokens, 5 minutes": "cache_write_5m",
        "Output tokens": "output_text",
        "Reasoning tokens": "output_reasoning",
    }
    expected: Counter[str] = Counter()
    for row in calls.to_pylist():
        if row["tenant"] == "acme" and row["cost_nusd"] is not None:
            expected.update({meter: row[bucket] or 0 for meter, bucket in names.items()})
    found = sql(made, "SELECT SkuMeter, sum(ConsumedQuantity) FROM focus GROUP BY ALL")
    assert dict(expected) == {meter: int(quantity) for meter, quantity in found}
    wrong = "SELECT count(*) FROM focus WHERE PricingQuantity * 1000000 <> ConsumedQuantity"
    assert [(0,)] == sql(made, wrong)


@pytest.mark.parametrize(
    "rule",
    [
        # FX-33: list and contracted cost are unit price times quantity, exactly
        "ListCost <> ListUnitPrice * PricingQuantity",
        "ContractedCost <> ContractedUnitPrice * PricingQuantity",
        # what rounding did is said, and is at most half a nano-dollar a call
        "BilledCost - ContractedCost <> x_RoundingCost",
        "abs(x_RoundingCost) > 0.0000000005 * x_CallCount",
        # FX-32: a missing list price is never 0
        "ListCost = 0 AND ContractedCost > 0",
        # FX-28, FX-22
        "(ConsumedQuantity IS NULL) <> (ConsumedUnit IS NULL)",
        "(RegionId IS NULL) <> (RegionName IS NULL)",
        "(SubAccountId IS NULL) <> (SubAccountName IS NULL)",
        "BillingAccountId = '' OR SkuId = '' OR Tags = ''",
        # FX-26
        "BillingCurrency <> 'USD' OR PricingCurrency <> 'USD'",
        # FX-20: half-open periods inside their billing period
        "ChargePeriodStart >= ChargePeriodEnd",
        "ChargePeriodStart < BillingPeriodStart OR ChargePeriodEnd > BillingPeriodEnd",
        # unpriced usage has no row
        "x_CostState NOT IN ('priced', 'free')",
    ],
)
def test_no_row_breaks_a_rule(made: Path, rule: str) -> None:
    """FX-60 to FX-62: what the validator can not check."""
    assert [(0,)] == sql(made, f"SELECT count(*) FROM focus WHERE {rule}")  # noqa: S608 - the test's own


def test_a_contract_is_beside_the_list_price(made: Path) -> None:
    """OpenAI's page: gpt-4o is 2.50 in, 10 out; ours is 2.10 and 9. The house model has no list."""
    found = sql(
        made,
        """SELECT DISTINCT SkuId, SkuMeter, ListUnitPrice, ContractedUnitPrice FROM focus
        WHERE SkuMeter IN ('Input tokens', 'Output tokens')
            AND SkuId IN ('openai/gpt-4o', 'self-hosted/house-13b') ORDER BY ALL""",
    )
    assert [
        ("openai/gpt-4o", "Input tokens", Decimal("2.50"), Decimal("2.10")),
        ("openai/gpt-4o", "Output tokens", Decimal(10), Decimal(9)),
        ("self-hosted/house-13b", "Input tokens", Decimal("0.0375"), Decimal("0.0375")),
        ("self-hosted/house-13b", "Output tokens", Decimal("0.11"), Decimal("0.11")),
    ] == found


def test_context_tiers_are_rows_of_their_own(made: Path) -> None:
    """Google's page: gemini-2.5-pro input is 1.25 up to 200k tokens and 2.50 above."""
    found = sql(
        made,
        """SELECT DISTINCT x_ContextTierAboveTokens, ListUnitPrice FROM focus
        WHERE SkuId = 'google/gemini-2.5-pro' AND SkuMeter = 'Input tokens' ORDER BY 2""",
    )
    assert [(None, Decimal("1.25")), (200_000, Decimal("2.50"))] == found


def test_columns_are_the_specs_then_ours(made: Path) -> None:
    """FX-24, FX-61: custom columns have the prefix and come last."""
    names = [row[0] for row in sql(made, "DESCRIBE focus")]
    ours = [name for name in names if name.startswith("x_")]
    assert names[-len(ours) :] == ours
    assert 57 == len(names) - len(ours)  # every column of FOCUS 1.2, also those that are null here
    listed = json.loads((made / "focus-metadata.json").read_text())["Schema"][0]
    assert "1.2" == listed["FocusVersion"]
    assert names == [column["ColumnName"] for column in listed["ColumnDefinition"]]


def _flat(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(pairs) == len({key for key, _ in pairs}), "a key twice"
    assert all(isinstance(value, str | int | float | bool) for _, value in pairs), pairs
    return dict(pairs)


def test_fx23_tags_and_details_are_flat_objects_of_unique_keys(made: Path) -> None:
    """Every one is read, keys one by one; details of ours have the prefix, no tag is empty."""
    seen = 0
    for tags, details in sql(made, "SELECT DISTINCT Tags, SkuPriceDetails FROM focus"):
        for text in filter(None, (tags, details)):
            said = json.loads(text, object_pairs_hook=_flat)
            assert said
            assert all(key for key in said)
            assert "" not in said.values()
            seen += 1
        assert details is None or all(key.startswith("x_") for key in json.loads(details))
    assert seen > 10


_UNIT = re.compile(
    r"([1-9]\d* )?(Tokens|Requests|Pages|Seconds|Images|Characters|Hours|Months|USD)"
)
"""UnitFormat: a plural noun or a currency, or a whole number of them."""


def test_fx25_units_are_plural_nouns_or_whole_numbers_of_them(made: Path) -> None:
    """Of every meter that there is, and of every row; `per 1M tokens` is none."""
    units = {unit for name in ("PricingUnit", "ConsumedUnit")
             for (unit,) in sql(made, f"SELECT DISTINCT {name} FROM focus")}  # fmt: skip  # noqa: S608 - the test's own
    assert {"Tokens", "1000000 Tokens"} <= units
    for unit in {*units, *UNITS.values(), *map(pricing_unit, UNITS)}:
        assert _UNIT.fullmatch(unit), unit
    assert not _UNIT.fullmatch("per 1M tokens")


def test_fx30_no_row_claims_an_invoice_that_only_its_issuer_numbers(made: Path) -> None:
    """InvoiceId is null: what an invoice comes to is tied to these rows by reconciliation (RC-06)."""
    assert [(None,)] == sql(made, "SELECT DISTINCT InvoiceId FROM focus")


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_fx31_the_metadata_document_describes_the_files_beside_it(
    store: DuckDbSpanStore, book: PriceBook, tmp_path: Path, file_format: str
) -> None:
    """Schema id, version, generator, date, and a definition a column that the data keeps to."""
    out = tmp_path / "out"
    export(store, book, out, file_format=file_format)
    document = json.loads((out / "focus-metadata.json").read_text())
    (schema,) = document["Schema"]
    assert {"DataGenerator": "test 1"} == document["DataGenerator"]
    assert ("FOCUS 1.2+test 1", "1.2") == (schema["SchemaId"], schema["FocusVersion"])
    assert WINDOW.end == datetime.fromisoformat(schema["CreationDate"])
    kinds = {"STRING", "JSON", "DECIMAL", "DATETIME", "INTEGER"}
    with duckdb.connect() as connection:
        connection.execute(
            f"CREATE VIEW focus AS FROM '{out}/focus-*.parquet'" if file_format == "parquet" else
            f"CREATE VIEW focus AS FROM read_csv('{out}/focus-*.csv', all_varchar=true)"
        )  # fmt: skip
        for column in schema["ColumnDefinition"]:
            name, kind = column["ColumnName"], column["DataType"]
            assert kind in kinds
            if kind in {"STRING", "JSON"}:
                assert "UTF-8" == column["StringEncoding"]
                (found,) = connection.execute(
                    f'SELECT coalesce(max(length("{name}")), 0) FROM focus'  # noqa: S608 - the test's own
                ).fetchall()
                assert (column["StringMaxLength"],) == found, name
            if kind == "DECIMAL":
                assert (38, 18) == (column["NumericPrecision"], column["NumberScale"])


def test_csv_says_the_same(store: DuckDbSpanStore, book: PriceBook, tmp_path: Path) -> None:
    """FX-20, FX-21 by form; a formula in a tag stays inside its JSON text."""
    manifest = export(store, book, tmp_path / "out", file_format="csv")
    assert manifest.csv_escaped
    with (tmp_path / "out" / "focus-00000.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert manifest.total_nusd == sum(Decimal(row["BilledCost"]) for row in rows) * 10**9
    for row in rows:
        for name in ("ChargePeriodStart", "BillingPeriodEnd"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row[name])
        for name in ("BilledCost", "ConsumedQuantity", "ListUnitPrice"):
            assert re.fullmatch(r"-?\d+\.\d+", row[name])
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert verify_export(files, trusted_key=public_pem(KEY.public_key())).ok


def test_days_and_months_are_the_organisations(
    store: DuckDbSpanStore, book: PriceBook, tmp_path: Path, calls: pa.Table
) -> None:
    """A 4-4-5 year from the week of 1 February: October's month starts on a Monday."""
    weeks = FiscalCalendar(pattern=Pattern.W445, year_start_month=2, week_start=Weekday.MONDAY)
    export(store, book, tmp_path / "out", calendar=weeks, charge_period=Period.HOUR)
    found = sql(
        tmp_path / "out",
        """SELECT DISTINCT BillingPeriodStart::TIMESTAMP, BillingPeriodEnd::TIMESTAMP
        FROM focus ORDER BY 1""",
    )
    # Fiscal 2027 starts on Monday 2 February 2026; its third quarter on 3 August, its fourth on
    # 2 November; the last month of the third has five weeks: 28 September to 1 November.
    local = timedelta(hours=5, minutes=30)
    assert [
        (datetime(2026, 9, 28, tzinfo=UTC) - local, datetime(2026, 11, 2, tzinfo=UTC) - local),
        (datetime(2026, 11, 2, tzinfo=UTC) - local, datetime(2026, 11, 30, tzinfo=UTC) - local),
    ] == [(start.replace(tzinfo=UTC), end.replace(tzinfo=UTC)) for start, end in found]
    longest = "SELECT max(ChargePeriodEnd - ChargePeriodStart), sum(BilledCost) FROM focus"
    ((width, billed),) = sql(tmp_path / "out", longest)
    assert timedelta(hours=1) == width
    assert spent(calls) == billed * 10**9


def test_the_same_question_is_the_same_bytes(
    made: Path, store: DuckDbSpanStore, book: PriceBook, tmp_path: Path
) -> None:
    """FX-02, FX-29: a month that is closed is exported byte for byte as before."""
    export(store, book, tmp_path / "again")
    first, again = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (made, tmp_path / "again")
    )
    assert "manifest.json" in first
    assert first == again


def test_a_price_that_left_the_book_is_a_row_of_whole_calls(
    store: DuckDbSpanStore, tmp_path: Path, calls: pa.Table
) -> None:
    """Nothing is apportioned by guess: the sum and the identities still hold."""
    emptied = PriceBook("other", [])
    export(store, emptied, tmp_path / "out")
    found = sql(
        tmp_path / "out",
        """SELECT sum(BilledCost), count(*) FILTER (SkuMeter <> 'Calls'),
        count(*) FILTER (ContractedCost <> ContractedUnitPrice * PricingQuantity),
        count(*) FILTER (BilledCost <> ContractedCost) FROM focus""",
    )
    assert [(Decimal(spent(calls)) / 10**9, 0, 0, 0)] == found


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"kind": "bills"}, "kind"), ({"file_format": "xlsx"}, "format"),
     ({"charge_period": Period.MONTH}, "charge_period")],
)  # fmt: skip
def test_what_can_not_be_made_is_refused(
    store: DuckDbSpanStore, book: PriceBook, tmp_path: Path, asked: Any, field: str
) -> None:
    """With the field and what it takes."""
    with pytest.raises(InvalidInputError) as caught:
        export(store, book, tmp_path / "out", **asked)
    assert field == caught.value.field


def test_an_empty_window_is_an_export_too(
    store: DuckDbSpanStore, book: PriceBook, tmp_path: Path
) -> None:
    """That nothing was spent can be proven."""
    manifest = export(store, book, tmp_path / "out", tenant="nobody")
    assert (0, 0) == (manifest.rows, manifest.total_nusd)
    assert [(0,)] == sql(tmp_path / "out", "SELECT count(*) FROM focus")
