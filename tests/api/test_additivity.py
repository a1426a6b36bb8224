"""Sums that agree: any range, six zones, every group-by; rollup, calls, API, page and export.

The truth is the calls as they were made and the corrections of those that were closed, added up in
Python. Clocks change in three of the zones while these calls are made, on Lord Howe by half an hour.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from controlplane.core.calendar import Window
from controlplane.core.fiscal import GREGORIAN, FiscalCalendar, Pattern, Weekday
from controlplane.core.money import format_usd
from controlplane.exports.sharing import UNATTRIBUTED
from controlplane.exports.statement import BY
from controlplane.pipelines.export import write_export
from controlplane.pipelines.export_request import ExportRequest, ExportSources
from controlplane.pipelines.rerate import apply_rerate
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.signed_directory import Stamp
from controlplane.pipelines.unit_costs import group_costs
from controlplane.pricing.overrides import compile_overrides
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.rerate import RerateOrder
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.signals.queries import CallQuery, CostQuery, Granularity
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.usage.dimensions import DIMENSIONS
from dashboard.client import read_table
from tests.priced_calls import draw_calls, priced

SPAN: Final = Window(datetime(2026, 3, 5, tzinfo=UTC), datetime(2026, 4, 9, tzinfo=UTC))
TENANTS: Final = ("acme", "globex")
ZONES: Final = (
    "UTC",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/New_York",
    "Europe/Madrid",
)
CALENDARS: Final = (
    GREGORIAN,
    FiscalCalendar(pattern=Pattern.W445, year_start_month=2, week_start=Weekday.SUNDAY),
    FiscalCalendar(year_start_month=4, month_start_day=6),
)
QUARTERS: Final = (SPAN.end - SPAN.start) // timedelta(minutes=15)
BUCKETS: Final = ("input_uncached", "cache_read", "output_text", "output_reasoning")
SUMMED: Final = ("cost_nusd", "input_tokens", "output_tokens", *BUCKETS)
ARROW: Final = {"accept": "application/vnd.apache.arrow.stream"}
FULL: Final = os.environ.get("CONTROLPLANE_TEST_FULL") == "1"
SAME: Final = settings(
    max_examples=1_000 if FULL else 40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

CLOSED: Final = datetime(2026, 3, 14, 13, tzinfo=UTC)
"""Midnight on Lord Howe: the organisation's zone, which names the day of a correction."""
HOME: Final = "Australia/Lord_Howe"
BOOKED: Final = datetime(2026, 3, 31, 5, 7, 11, 13, tzinfo=UTC)
COLUMNS: Final = {"model": "billing_model", "user": "user_id", "service": "service_name"}
"""Of a call, where a dimension's value is when it is not under its own name."""

Rows = Callable[..., pa.Table]
Call = dict[str, Any]


@st.composite
def ranges(draw: st.DrawFn, *, most_days: int = 35) -> Window:
    """Draw a window on quarter hours, as every cost question is."""
    first = draw(st.integers(0, QUARTERS - 1))
    length = draw(st.integers(1, min(QUARTERS - first, most_days * 96)))
    start = SPAN.start + first * timedelta(minutes=15)
    return Window(start, start + length * timedelta(minutes=15))


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook(seed_version(), listed_providers())


@pytest.fixture(scope="module")
def dearer() -> PriceBook:
    """What two models should have cost, one of them cheaper, and one that had no price."""
    own = [
        {"provider": provider, "model": model, "usd": {"input_uncached": usd, "output_text": usd}}
        for provider, model, usd in (
            ("openai", "gpt-4o", "1.1"),
            ("anthropic", "claude-sonnet-4-5", "77.7"),
            ("openai", "no-such-model", "3"),
        )
    ]
    return PriceBook(seed_version(), listed_providers(), overrides=compile_overrides(own))


@pytest.fixture(scope="module")
def made(span_rows: Rows, book: PriceBook) -> list[Call]:
    return priced(span_rows, draw_calls(11, 1_200, SPAN, tenants=TENANTS), book).to_pylist()


@pytest.fixture(scope="module")
def calls(span_rows: Rows, made: list[Call], dearer: PriceBook) -> list[Call]:
    """The calls, and what was booked about the closed ones."""
    rated = priced(span_rows, draw_calls(11, 1_200, SPAN, tenants=TENANTS), dearer).to_pylist()
    booked = [
        {
            **new,
            **dict.fromkeys((*SUMMED, "status", "error_type", "service_name", "dialect")),
            "start_time": BOOKED,
            "corrects": f"{old['start_time'].astimezone(ZoneInfo(HOME)):%Y-%m-%d}",
            "cost_nusd": (new["cost_nusd"] or 0) - (old["cost_nusd"] or 0),
        }
        for old, new in zip(made, rated, strict=True)
        if old["start_time"] < CLOSED and old["cost_nusd"] != new["cost_nusd"]
    ]
    assert len(booked) > 100
    return [*({**call, "corrects": None} for call in made), *booked]


@pytest.fixture(scope="module")
def store(span_rows: Rows, made: list[Call], dearer: PriceBook) -> Iterator[DuckDbSpanStore]:
    """Most buckets rolled up; the last third arrived late and its buckets still move.

    What closed before the middle of March was re-rated and corrected at its end.
    """
    store = DuckDbSpanStore(None)
    early, late = made[:800], made[800:]
    store.write(span_rows(*early), batch_id="early")
    for hours in range(3):
        settle_tick(store, now=SPAN.end + timedelta(hours=hours), ledger=None)
    store.write(span_rows(*late), batch_id="late")
    settle_tick(store, now=SPAN.end + timedelta(hours=3), ledger=None)
    order = RerateOrder(
        run_id="r",
        window=Window(SPAN.start, CLOSED),
        price_version="dearer",
        closed_before=CLOSED,
        zone=HOME,
    )
    apply_rerate(store.rerates, order, dearer, now=BOOKED)
    yield store
    store.close()


@pytest.fixture
def reader(store: DuckDbSpanStore) -> DuckDbSpanStore:
    """What the API of this module reads."""
    return store


def truth(calls: list[Call], window: Window, **wanted: Any) -> dict[str, int]:
    """Add up the calls that were made in a window."""
    kept = [
        call
        for call in calls
        if window.contains(call["start_time"]) and all(call[k] == v for k, v in wanted.items())
    ]
    return {name: sum(call[name] or 0 for call in kept) for name in SUMMED}


def added(table: pa.Table, names: tuple[str, ...] = SUMMED) -> dict[str, int]:
    columns: dict[str, list[Any]] = {name: table[name].to_pylist() for name in names}
    return {name: sum(one or 0 for one in column) for name, column in columns.items()}


@pytest.mark.slow
@SAME
@given(
    window=ranges(),
    zone=st.sampled_from(ZONES),
    calendar=st.sampled_from(CALENDARS),
    width=st.sampled_from(list(Granularity)),
)
def test_periods_sum_to_the_calls_in_every_zone_and_calendar(
    store: DuckDbSpanStore, calls: list[Call], *, window: Window, zone: str,
    calendar: FiscalCalendar, width: Granularity,
) -> None:  # fmt: skip
    """Hours = days = weeks = months = quarters = total, to the last nano-dollar and token."""
    query = CostQuery(
        tenants=TENANTS, window=window, granularity=width, zone=zone, calendar=calendar,
        buckets=BUCKETS,
    )  # fmt: skip
    assert truth(calls, window) == added(store.costs(query))


@pytest.mark.slow
@SAME
@given(
    window=ranges(most_days=31),
    zone=st.sampled_from(ZONES),
    groups=st.lists(st.sampled_from([d.name for d in DIMENSIONS]), min_size=1, max_size=3),
    width=st.sampled_from([Granularity.TOTAL, Granularity.DAY]),
)
def test_groups_sum_to_the_calls_for_every_group_by(
    store: DuckDbSpanStore, calls: list[Call], *, window: Window, zone: str, groups: list[str],
    width: Granularity,
) -> None:  # fmt: skip
    """Nothing disappears: what has no value is a row of its own (UX-C02)."""
    query = CostQuery(
        tenants=TENANTS, window=window, granularity=width, zone=zone, buckets=BUCKETS,
        group_by=tuple(groups),
    )  # fmt: skip
    assert truth(calls, window) == added(store.costs(query))


@pytest.mark.slow
@SAME
@given(window=ranges(most_days=31), group=st.sampled_from([d.name for d in DIMENSIONS]))
@example(
    window=Window(BOOKED.replace(minute=0, second=0, microsecond=0), SPAN.end), group="cost_reason"
)
def test_each_group_is_the_sum_of_its_own(
    store: DuckDbSpanStore, calls: list[Call], window: Window, group: str
) -> None:
    """Not only the total: every value of every dimension has its own cost and no other's."""
    column = COLUMNS.get(group, group)
    expected: Counter[str | None] = Counter()
    for call in calls:
        if window.contains(call["start_time"]):
            expected[call[column]] += call["cost_nusd"] or 0
    answer = store.costs(CostQuery(tenants=TENANTS, window=window, group_by=(group,)))
    costs = zip(answer[group].to_pylist(), answer["cost_nusd"].to_pylist(), strict=True)
    assert {v: c for v, c in expected.items() if c} == {v: c for v, c in costs if c}


@pytest.mark.slow
def test_a_correction_is_rolled_up_as_it_is_read(store: DuckDbSpanStore, calls: list[Call]) -> None:
    """By its day, read from what was booked and then from the cube."""
    window = Window(BOOKED.replace(minute=0, second=0, microsecond=0), SPAN.end)
    query = CostQuery(tenants=TENANTS, window=window, group_by=("corrects", "model"))
    expected: Counter[tuple[str, str]] = Counter()
    for call in calls:
        if call["corrects"]:
            expected[call["corrects"], call["billing_model"]] += call["cost_nusd"]
    for _ in range(2):
        rows = [row for row in store.costs(query).to_pylist() if row["corrects"]]
        assert {(r["corrects"], r["model"]): r["cost_nusd"] for r in rows} == {
            key: nusd for key, nusd in expected.items() if nusd
        }
        assert {(0, 0, 0)} == {(r["calls"], r["unpriced_calls"], r["output_tokens"]) for r in rows}
        assert "2026-03-14" == max(expected)[0]  # the last day that was over on Lord Howe
        store.roll_up(now=SPAN.end + timedelta(days=1))


@pytest.mark.parametrize("dimension", ["customer", "api_key", "user"])
def test_who_spends_is_told_without_corrections(
    store: DuckDbSpanStore, calls: list[Call], dimension: str
) -> None:
    """A correction may be below zero, and says nothing of who uses what now.

    Of whose calls none has a price, nothing is told either.
    """
    window = Window(BOOKED - timedelta(days=1, minutes=7, seconds=11, microseconds=13), SPAN.end)
    expected: Counter[str | None] = Counter()
    unpriced = set()
    for call in calls:
        if window.contains(call["start_time"]) and call["corrects"] is None:
            name = call[COLUMNS.get(dimension, dimension)]
            expected[name] += call["cost_nusd"] or 0
            if call["cost_nusd"] is None:
                unpriced.add(name)
    for name in unpriced:
        if not expected[name]:
            del expected[name]
    found = group_costs(store, CostQuery(tenants=TENANTS, window=window), dimension)
    assert {name: cost for name, cost in expected.items() if name is not None} == dict(found)


@pytest.mark.slow
@SAME
@given(window=ranges(), tenant=st.sampled_from(TENANTS))
def test_rollups_and_calls_are_the_same_calls(
    store: DuckDbSpanStore, calls: list[Call], window: Window, tenant: str
) -> None:
    """The answer from the cube, and every call read one by one."""
    batches = list(store.call_batches(CallQuery(tenants=(tenant,), window=window)))
    read = [row for table in batches for row in table.select(list(SUMMED)).to_pylist()]
    summed = {name: sum(row[name] or 0 for row in read) for name in SUMMED}
    booked = store.corrections((tenant,), window)["delta_nusd"].to_pylist()
    summed["cost_nusd"] += sum(nusd for nusd in booked if nusd is not None)
    cube = store.costs(CostQuery(tenants=(tenant,), window=window, buckets=BUCKETS))
    assert truth(calls, window, tenant=tenant) == summed == added(cube)


@pytest.mark.slow
@settings(SAME, max_examples=100 if FULL else 8)
@given(
    window=ranges(),
    zone=st.sampled_from(ZONES),
    group=st.sampled_from([d.name for d in DIMENSIONS if d.in_cube]),
    by=st.sampled_from(BY),
)
def test_api_page_and_export_say_the_same(
    api: Any, admin: str, tmp_path_factory: pytest.TempPathFactory, *, calls: list[Call],
    store: DuckDbSpanStore, book: PriceBook, window: Window, zone: str, group: str, by: str,
) -> None:  # fmt: skip
    """One range, one tenant, one zone: the number on a page is the number in a file (UX-C06)."""
    asked = {
        "start": window.start.isoformat(), "end": window.end.isoformat(), "zone": zone,
        "tenant": "acme", "granularity": "total", "group_by": group,
    }  # fmt: skip
    with api.client(admin) as client:
        page = read_table(client.get("/api/v1/costs", params=asked, headers=ARROW).content)
        answer = client.get("/api/v1/costs", params={**asked, "granularity": "month"}).json()
        of_owner = client.get("/api/v1/costs", params={**asked, "group_by": by}).json()
    expected = truth(calls, window, tenant="acme")["cost_nusd"]
    booked = [call for call in calls if call["corrects"] and call["tenant"] == "acme"]
    if window.contains(BOOKED):
        nusd = str(sum(call["cost_nusd"] for call in booked))
        assert [("2026-03", nusd)] == [
            (one["period"], one["cost_nusd"]) for one in page.meta["corrections"]
        ]
    else:
        assert [] == page.meta["corrections"]
    assert expected == added(page.rows, ("cost_nusd",))["cost_nusd"]
    assert str(expected) == page.meta["totals"]["cost_nusd"]
    assert expected == sum(int(row["cost_nusd"] or 0) for row in answer["rows"])
    out: Path = tmp_path_factory.mktemp("export")
    for kind in ("calls", "focus", "statement"):
        manifest = write_export(
            ExportSources(store, book),
            ExportRequest(tenant="acme", window=window, kind=kind, zone=zone, by=by),
            out / kind,
            key=Ed25519PrivateKey.from_private_bytes(bytes(32)),
            stamp=Stamp(export_id="e", created_at=SPAN.end, software="test"),
        )
        assert expected == manifest.total_nusd, kind
    owners: Counter[str | None] = Counter()
    for path in (out / "calls").glob("*.parquet"):
        for row in pq.read_table(path, columns=[by, "cost_nusd"]).to_pylist():
            owners[row[by]] += row["cost_nusd"] or 0
    said = {row[by]: int(row["cost_nusd"] or 0) for row in of_owner["rows"]}
    assert {k: v for k, v in owners.items() if v} == {k: v for k, v in said.items() if v}
    index = json.loads((out / "statement" / "statements.json").read_text())
    assert {k or UNATTRIBUTED: format_usd(v) for k, v in owners.items() if v} == {
        one["owner"]: one["total_usd"] for one in index if float(one["total_usd"])
    }
