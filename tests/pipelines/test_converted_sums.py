"""One amount for one cost: statements, FOCUS rows and cost answers in a currency, to the last digit."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.calendar import Period, Window, windows
from controlplane.core.fiscal import GREGORIAN
from controlplane.exports.charges import amounts_of, charges_of
from controlplane.exports.focus import Layout, focus_rows
from controlplane.exports.focus_currency import in_currency
from controlplane.exports.statement import StatementPlan
from controlplane.pipelines.converted_costs import ConvertedSums, convert_costs
from controlplane.pipelines.export_statements import StatementRequest, make_statements
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.currency import ExchangeRate, RateTable
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.queries import CallQuery, CostQuery
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.priced_calls import draw_calls, priced

ZONE = "Asia/Kolkata"
DAYS = Window(datetime(2026, 10, 4, 18, 30, tzinfo=UTC), datetime(2026, 10, 7, 18, 30, tzinfo=UTC))
NANO = 10**9
CELL = ("tenant", "team", "project", "feature", "customer", "api_key", "environment", "region",
        "provider", "billing_model", "operation", "price_id", "cost_state")  # fmt: skip


@pytest.fixture(scope="module")
def store(span_rows: Callable[..., pa.Table], book: PriceBook) -> DuckDbSpanStore:
    store = DuckDbSpanStore(None)
    store.write(priced(span_rows, draw_calls(11, 150, DAYS), book), batch_id="b")
    settle_tick(store, now=DAYS.end, ledger=None)
    return store


def table_of(rates: Iterable[int]) -> RateTable:
    """Rates of the 4th on, a day each, in millionths."""
    return RateTable(
        ExchangeRate(currency="EUR", day=date(2026, 10, 5 + n),
                     usd_per_unit=str(Decimal(usd).scaleb(-6)), source="s", recorded_at=DAYS.end)
        for n, usd in enumerate(rates)
    )  # fmt: skip


def worked_out(store: DuckDbSpanStore, rates: list[int], by: str) -> dict[str | None, int]:
    """Sum by hand: calls of a local day, owner and price, each rounded once, as ADR 060 says."""
    cells: dict[tuple[Any, ...], int] = defaultdict(int)
    for batch in store.call_batches(CallQuery(tenants=("acme",), window=DAYS)):
        for call in batch.to_pylist():
            day = call["start_time"].astimezone(ZoneInfo(ZONE)).date()
            cells[(day, *(call[name] for name in CELL))] += call["cost_nusd"] or 0
    found: dict[str | None, int] = defaultdict(int)
    for (day, *who), nusd in cells.items():
        usd_per_unit = Fraction(rates[day.day - 5], 10**6)
        found[who[CELL.index(by)]] += round(nusd / usd_per_unit)
    return {name: amount for name, amount in found.items() if amount}


def nonzero(sums: ConvertedSums) -> dict[str | None, int]:
    return {name: one.nano for name, one in sums.groups.items() if one.nano}


def exported(
    store: DuckDbSpanStore, book: PriceBook, rates: RateTable, width: Period
) -> list[dict[str, Any]]:
    periods = tuple(windows(width, DAYS, zone=ZONE))
    layout = Layout(window=DAYS, periods=periods, zone=ZONE, calendar=GREGORIAN)
    batches = store.call_batches(CallQuery(tenants=("acme",), window=DAYS))
    charges = charges_of(batches, book, periods=periods)
    days = [period.start.astimezone(ZoneInfo(ZONE)).date() for period in periods]
    amounts = amounts_of(charges.charges, days, rates)
    rows = focus_rows(charges, layout, book)
    return list(in_currency(rows, rates, currency="EUR", zone=ZONE, amounts=amounts))


@settings(max_examples=6)  # each makes every view
@given(
    rates=st.lists(st.integers(1_000, 10**8), min_size=3, max_size=3),
    width=st.sampled_from([Period.DAY, Period.HOUR]),
)
def test_every_view_says_the_same_amount(
    store: DuckDbSpanStore, book: PriceBook, rates: list[int], width: Period
) -> None:
    """By team and by model, filtered and whole, whatever the rates: equal to a sum made by hand."""
    table = table_of(rates)
    query = CostQuery(tenants=("acme",), window=DAYS, zone=ZONE)
    by_team = worked_out(store, rates, "team")
    assert by_team == nonzero(convert_costs(store, query, table, by="team"))
    by_model = worked_out(store, rates, "billing_model")
    assert by_model == nonzero(convert_costs(store, query, table, by="model"))
    only = CostQuery(tenants=("acme",), window=DAYS, zone=ZONE, filters={"team": ("search",)})
    filtered = convert_costs(store, only, table, by=None)
    assert by_team["search"] == sum(one.nano for one in filtered.days.values())
    by_status = convert_costs(store, query, table, by="status")  # is no part of a cell
    assert sum(by_team.values()) == sum(one.nano for one in by_status.groups.values())

    plan = StatementPlan(tenant="acme", by="team", window=DAYS, period="p", zone=ZONE)
    asked = StatementRequest(plan=plan, currency="EUR")
    made = make_statements(store, book, asked, rates=table)
    told = {one.owner: one.billing.total_nano for one in made if one.billing}
    assert by_team == {owner: nano for owner, nano in told.items() if nano}

    teams: dict[str | None, int] = defaultdict(int)
    models: dict[str | None, int] = defaultdict(int)
    for row in exported(store, book, table, width):
        amount = int(row["EffectiveCost"] * NANO)
        teams[json.loads(row["Tags"] or "{}").get("team")] += amount
        models[row["SkuId"].split("/", 1)[1]] += amount
    assert by_team == {name: nano for name, nano in teams.items() if nano}
    assert by_model == {name: nano for name, nano in models.items() if nano}
