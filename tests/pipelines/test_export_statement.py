"""Statements from real calls: they sum to the ledger, in the PDF as in the CSV, and name their content."""

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.core.fiscal import GREGORIAN, FiscalCalendar
from controlplane.exports.manifest import public_pem
from controlplane.exports.sharing import SharedRule
from controlplane.exports.statement_pdf import written
from controlplane.exports.verify import verify_export
from controlplane.pipelines.export import write_export
from controlplane.pipelines.export_request import ExportRequest, ExportSources, check_request
from controlplane.pipelines.export_statements import name_of
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.signed_directory import Stamp
from controlplane.pricing.price_book import PriceBook
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.pdf_texts import texts
from tests.priced_calls import draw_calls, priced

NOVEMBER = Window(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
SPAN = Window(NOVEMBER.start - timedelta(days=30), NOVEMBER.end)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STAMP = Stamp(export_id="exp_1", created_at=NOVEMBER.end, software="test 1")

Rows = Callable[..., pa.Table]


@pytest.fixture(scope="module")
def calls(span_rows: Rows, book: PriceBook) -> pa.Table:
    drawn = draw_calls(13, 600, SPAN)
    drawn[0] |= {"team": "Ingeniería 中文", "start_time": NOVEMBER.start, "billing_model": "gpt-4o",
                 "provider": "openai"}  # fmt: skip
    return priced(span_rows, drawn, book)


@pytest.fixture(scope="module")
def store(calls: pa.Table) -> DuckDbSpanStore:
    store = DuckDbSpanStore(None)
    store.write(calls, batch_id="b")
    settle_tick(store, now=SPAN.end, ledger=None)
    return store


def export(store: DuckDbSpanStore, book: PriceBook, out: Path, **asked: Any) -> list[Any]:
    """Write statements and return the index; the directory verifies."""
    request = ExportRequest(tenant="acme", window=NOVEMBER, kind="statement", **asked)
    write_export(ExportSources(store, book), request, out, key=KEY, stamp=STAMP)
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert verify_export(files, trusted_key=public_pem(KEY.public_key())).ok
    index: list[Any] = json.loads((out / "statements.json").read_text())
    return index


def spent(calls: pa.Table, window: Window = NOVEMBER, **wanted: Any) -> int:
    return sum(
        row["cost_nusd"] or 0
        for row in calls.to_pylist()
        if window.contains(row["start_time"]) and all(row[k] == v for k, v in wanted.items())
    )


def test_every_owner_has_one_and_all_sum_to_the_ledger(
    store: DuckDbSpanStore, book: PriceBook, calls: pa.Table, tmp_path: Path
) -> None:
    """Of the month, with the month before beside it; unpriced calls are said."""
    index = export(store, book, tmp_path / "out")
    assert ["Ingeniería 中文", "search", "support", "unattributed"] == [x["owner"] for x in index]
    assert Decimal(spent(calls)) / 10**9 == sum(Decimal(x["total_usd"]) for x in index)
    before = Window(NOVEMBER.start - timedelta(days=30), NOVEMBER.start)
    for one in index:
        team = None if one["owner"] == "unattributed" else one["owner"]
        assert Decimal(spent(calls, team=team)) / 10**9 == Decimal(one["total_usd"])
        assert Decimal(spent(calls, before, team=team)) / 10**9 == Decimal(one["previous_usd"])
    unpriced = [
        row for row in calls.to_pylist()
        if NOVEMBER.contains(row["start_time"]) and row["cost_state"] == "unpriced"
    ]  # fmt: skip
    assert len(unpriced) == sum(one["unpriced_calls"] for one in index)


def test_pdf_and_csv_hold_the_same_lines_and_the_same_total(
    store: DuckDbSpanStore, book: PriceBook, tmp_path: Path
) -> None:
    """Read from the files; over a page break, too."""
    index = export(store, book, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.pdf"))) == len(index) > 1
    for number, one in enumerate(index):
        (pdf,) = (tmp_path / "out").glob(f"statement-{number:04d}-*.pdf")
        with pdf.with_suffix(".csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {one["id"]} == {row["statement_id"] for row in rows}
        said = texts(pdf.read_bytes())
        amounts = said[said.index("USD") :]
        total = Decimal(one["total_usd"])
        assert total == sum(Decimal(row["cost_usd"]) for row in rows)
        assert f"Total USD {one['total_usd']}" in said
        assert one["total_usd"] == amounts[amounts.index("Total USD") + 1]
        for row in rows:
            assert row["cost_usd"] in amounts
        assert f"{one['id']}  sha256 {one['sha256']}" in said


@pytest.mark.parametrize("rule", [SharedRule.PROPORTIONAL, SharedRule.EVEN])
def test_shared_cost_moves_and_the_sum_does_not(
    store: DuckDbSpanStore, book: PriceBook, calls: pa.Table, tmp_path: Path, rule: SharedRule
) -> None:
    """UX-14: what has no owner becomes 0, and the whole stays the ledger to the nano-dollar."""
    index = export(store, book, tmp_path / "out", shared_rule=rule)
    by_owner = {one["owner"]: Decimal(one["total_usd"]) for one in index}
    assert 0 == by_owner["unattributed"]
    assert Decimal(spent(calls)) / 10**9 == sum(by_owner.values())
    own = Decimal(spent(calls, team="search")) / 10**9
    ownerless = Decimal(spent(calls, team=None)) / 10**9
    owned = Decimal(spent(calls)) / 10**9 - ownerless
    part = ownerless * own / owned if rule is SharedRule.PROPORTIONAL else ownerless / 3
    assert abs(by_owner["search"] - own - part) <= Decimal("1e-9")


def test_fixed_weights_share_whatever_was_spent(
    store: DuckDbSpanStore, book: PriceBook, calls: pa.Table, tmp_path: Path
) -> None:
    """UX-14: 3 of 4 to search, 1 to a team without a call, none to the others; also in the PDF."""
    weights = {"search": 3, "platform": 1}
    index = export(store, book, tmp_path / "out", shared_rule=SharedRule.FIXED, shares=weights)
    by_owner = {one["owner"]: Decimal(one["total_usd"]) for one in index}
    nano = Decimal("1e-9")
    ownerless, own = spent(calls, team=None), spent(calls, team="search")
    assert 0 == by_owner["unattributed"]
    assert nano * spent(calls) == sum(by_owner.values())
    assert nano * spent(calls, team="support") == by_owner["support"]
    assert abs(by_owner["platform"] - nano * ownerless / 4) < nano
    assert abs(by_owner["search"] - nano * (own + Decimal(ownerless) * 3 / 4)) < nano
    (pdf,) = (tmp_path / "out").glob("statement-*-search.pdf")
    assert "Cost without an owner is shared by fixed weights, here 3 of 4." in texts(
        pdf.read_bytes()
    )
    other = export(
        store, book, tmp_path / "two", shared_rule=SharedRule.FIXED,
        shares={name: 2 * weight for name, weight in weights.items()},
    )  # fmt: skip
    assert [one["total_usd"] for one in index] == [one["total_usd"] for one in other]
    search = [one["id"] for some in (index, other) for one in some if one["owner"] == "search"]
    assert search[0] != search[1], "it says other weights"


@pytest.mark.parametrize(
    ("rule", "shares"),
    [
        (SharedRule.FIXED, {}),
        (SharedRule.EVEN, {"search": 1}),
        (SharedRule.FIXED, {"search": 0}),
        (SharedRule.FIXED, {"search": -1, "support": 2}),
        (SharedRule.FIXED, {"unattributed": 1}),
    ],
)
def test_weights_that_share_nothing_are_refused(rule: SharedRule, shares: dict[str, int]) -> None:
    request = ExportRequest(
        tenant="acme", window=NOVEMBER, kind="statement", shared_rule=rule, shares=shares
    )
    with pytest.raises(InvalidInputError, match="shares"):
        check_request(request)


def test_an_id_names_the_content(store: DuckDbSpanStore, book: PriceBook, tmp_path: Path) -> None:
    """The same again is the same bytes; another rule is another statement."""
    first = export(store, book, tmp_path / "one")
    export(store, book, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    shared = export(store, book, tmp_path / "three", shared_rule=SharedRule.EVEN)
    assert set() == {one["id"] for one in first} & {one["id"] for one in shared}


def test_one_owner_and_other_dimensions(
    store: DuckDbSpanStore, book: PriceBook, calls: pa.Table, tmp_path: Path
) -> None:
    """A customer's; names with formulas stay text."""
    (only,) = export(store, book, tmp_path / "c", by="customer", owner="c1")
    assert Decimal(spent(calls, customer="c1")) / 10**9 == Decimal(only["total_usd"])
    export(store, book, tmp_path / "f", by="feature")
    (formula,) = (tmp_path / "f").glob("*SUM*.csv")
    assert b",'=SUM(A1)," in formula.read_bytes()
    with pytest.raises(InvalidInputError, match="Use one of team"):
        export(store, book, tmp_path / "x", by="user_id")


def test_periods_are_called_by_their_names() -> None:
    """A whole month by the calendar; anything else by its days."""
    assert "2026-11" == name_of(NOVEMBER, zone="UTC", calendar=GREGORIAN)
    april = FiscalCalendar(year_start_month=4)
    assert "FY2027-P08" == name_of(NOVEMBER, zone="UTC", calendar=april)
    year = Window(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    assert "2026" == name_of(year, zone="UTC", calendar=GREGORIAN)
    week = Window(NOVEMBER.start, NOVEMBER.start + timedelta(days=7))
    assert "2026-11-01 to 2026-11-07" == name_of(week, zone="UTC", calendar=GREGORIAN)


def test_letters_that_the_font_lacks_are_written_as_code_points() -> None:
    assert "Ingeniería \\u4e2d\\u6587\\u0000" == written("Ingeniería 中文\x00")
