"""A re-rated store is the store that would be, had every report come with the chosen prices."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from typing_extensions import override

from controlplane.core.calendar import Window
from controlplane.core.errors import UnavailableError
from controlplane.pipelines.rerate import (
    RerateReport,
    apply_rerate,
    post_adjustments,
    preview_rerate,
)
from controlplane.pipelines.settle import rebuild, settle_tick
from controlplane.pricing.price import price, reprice
from controlplane.pricing.price_book import ListedModel, ListedProvider, PriceBook
from controlplane.pricing.rates import ALWAYS, PriceRow, Rate, Tier
from controlplane.pricing.rerate import RerateOrder
from controlplane.signals.queries import CallQuery, CostQuery, Granularity
from controlplane.signals.schema import ATTRIBUTED_SCHEMA
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
NOW = AT + timedelta(days=2)
WINDOW = Window(AT - timedelta(days=40), AT + timedelta(days=1))
TENANTS = ("a", "b")
Rows = Callable[..., pa.Table]


def _book(version: str, nusd: int, *, models: tuple[str, ...] = ("m",)) -> PriceBook:
    rates = {name: Rate(nusd, 1) for name in ("input_uncached", "output_text")}
    listed = [
        ListedModel(
            model=name,
            rows=(
                PriceRow(price_id=f"{version}/{name}", validity=ALWAYS, tiers=(Tier(-1, rates),)),
            ),
            spellings=(name,),
        )
        for name in models
    ]
    return PriceBook(version, [ListedProvider(provider="p", models=listed)])


OLD, NEW = _book("old", 3), _book("new", 5, models=("m", "fresh"))


def _span(rng: random.Random, number: int) -> dict[str, Any]:
    """A report that may share ids and traces with others, be revised, or come late."""
    tokens = rng.choice([10, 20])
    return {
        "trace_lo": rng.randrange(1, 60),
        "span_id": rng.randrange(1, 300),
        "parent_span_id": rng.randrange(300),
        "content_hash": number,
        "start_time": AT - timedelta(minutes=rng.choice([0, 0, 1, 2, 40, 60 * 24 * 29])),
        "duration_us": 1_000_000,
        "report_kind": rng.choice(["call", "call", "call", "aggregate"]),
        "layer": rng.choice(["client", "client", "proxy", "engine", "agent"]),
        "key_role": rng.choice(["unknown", "unknown", "proxy", "agent"]),
        "scope_name": rng.choice(["x", "com.anthropic.sdk.python"]),
        "response_id": rng.choice(
            [None, f"chatcmpl-{rng.randrange(60):08d}", f"cmpl-{rng.randrange(20):08d}-0"]
        ),
        "status": rng.choice(["ok", "ok", "error"]),
        "provider": "p",
        "billing_model": rng.choice(["m", "m", "m", "fresh", "unknown"]),
        "usage_state": "exact",
        "input_tokens": tokens,
        "output_tokens": 5,
        "input_uncached": tokens,
        "output_text": 5,
        "tenant": rng.choice(TENANTS),
        "team": rng.choice([None, "x"]),
        "service_name": rng.choice(["app", "gate"]),
    }


@pytest.fixture
def store() -> Iterator[DuckDbSpanStore]:
    opened = DuckDbSpanStore(None)
    yield opened
    opened.close()


def _priced(table: pa.Table, book: PriceBook) -> pa.Table:
    return price(table.select(ATTRIBUTED_SCHEMA.names), book)


def _tick(store: DuckDbSpanStore, book: PriceBook) -> None:
    settle_tick(store, now=NOW, ledger=None, reprice=lambda rows: reprice(rows, book))


def _order(**said: Any) -> RerateOrder:
    return RerateOrder(**{"run_id": "r1", "window": WINDOW, "price_version": "new", **said})


def _calls(store: DuckDbSpanStore) -> list[dict[str, Any]]:
    table = store.calls(CallQuery(tenants=TENANTS, window=WINDOW, limit=1_000))
    return [{**row, "version": 0} for row in table.to_pylist()]


def _costs(store: DuckDbSpanStore) -> list[Any]:
    return [
        store.costs(
            CostQuery(
                tenants=TENANTS,
                window=WINDOW,
                granularity=granularity,
                group_by=("team", "model", "cost_state", "price_id"),
            )
        ).to_pylist()
        for granularity in (Granularity.DAY, Granularity.TOTAL)
    ]


def _answers(store: DuckDbSpanStore) -> list[Any]:
    calls = _calls(store)
    ids = [call["call_id"] for call in calls]
    return [
        calls,
        _costs(store),
        store.suppressed(ids).to_pylist(),
        store.accounting(TENANTS).to_pylist(),
    ]


@pytest.mark.slow
def test_re_rated_late_and_replayed_is_rebuilt(
    span_rows: Rows,
    full_size: bool,  # noqa: FBT001 - a fixture
) -> None:
    """Old prices, a re-rate, late reports, a replay: as if all had come with the new prices."""
    for seed in range(40 if full_size else 2):
        store = DuckDbSpanStore(None)
        store.rerates.most = (250_000, 7)[seed % 2]  # in large parts and in small ones
        _compare(store, span_rows, random.Random(seed))
        store.close()


def _compare(store: DuckDbSpanStore, span_rows: Rows, rng: random.Random) -> None:
    spans = [_span(rng, number) for number in range(240)]
    batches = [span_rows(*spans[at : at + 40]) for at in range(0, 240, 40)]
    early, late = batches[:4], batches[4:]
    for number, batch in enumerate(early):
        store.write(_priced(batch, OLD), batch_id=f"b{number}")
        _tick(store, OLD)
    store.roll_up(now=NOW + timedelta(hours=2))
    before = _answers(store)
    offered = preview_rerate(store.rerates, _order(), NEW)
    assert before == _answers(store), "a preview changes nothing"
    applied = apply_rerate(store.rerates, _order(), NEW, now=NOW)
    assert offered.groups == applied.groups
    assert applied.calls > 50
    for number, batch in enumerate(late):
        store.write(_priced(batch, NEW), batch_id=f"late{number}")
        _tick(store, NEW)
    store.write(_priced(early[0], OLD), batch_id="b0")  # a replay: the batch is known
    _tick(store, NEW)
    assert 0 == apply_rerate(store.rerates, _order(run_id="r2"), NEW, now=NOW).calls
    direct, rebuilt = DuckDbSpanStore(None), DuckDbSpanStore(None)
    for number, batch in enumerate(batches):
        direct.write(_priced(batch, NEW), batch_id=f"b{number}")
        _tick(direct, NEW)
    rebuild(store, rebuilt, now=NOW, reprice=lambda rows: reprice(rows, NEW))
    for other in (store, direct, rebuilt):
        while other.roll_up(now=NOW + timedelta(hours=2)):
            pass
    assert _calls(direct) == _calls(store)
    assert _answers(direct) == _answers(store)
    assert _answers(rebuilt) == _answers(store)
    direct.close()
    rebuilt.close()


class Ledger:
    """Posts each version once, as a database with a unique key would."""

    def __init__(self) -> None:
        self.rows: dict[int, list[dict[str, Any]]] = {}
        self.failures = 0

    def counts_calls(self) -> bool:
        return True

    def post(self, changes: pa.Table, now: datetime) -> None:
        del now
        fresh: dict[int, list[dict[str, Any]]] = {}
        for row in changes.to_pylist():
            fresh.setdefault(row["version"], []).append(row)
        self.rows = {**fresh, **self.rows}

    def restate(self, changes: pa.Table, now: datetime) -> None:
        if self.failures:
            self.failures -= 1
            raise UnavailableError("the ledger is down")
        self.post(changes, now)

    def total(self) -> int:
        return sum(r["sign"] * (r["cost_nusd"] or 0) for rows in self.rows.values() for r in rows)


def _total(store: DuckDbSpanStore) -> int:
    return sum(call["cost_nusd"] or 0 for call in _calls(store))


def test_the_ledger_is_adjusted_once(store: DuckDbSpanStore, span_rows: Rows) -> None:
    """Posted calls move by what they moved; the ledger down in between, and told twice."""
    rng = random.Random(7)
    ledger = Ledger()
    for number in range(4):
        batch = span_rows(*[_span(rng, number * 40 + at) for at in range(40)])
        store.write(_priced(batch, OLD), batch_id=f"b{number}")
        settle_tick(store, now=NOW, ledger=ledger, reprice=lambda rows: reprice(rows, OLD))
    assert _total(store) == ledger.total() > 0
    report = apply_rerate(store.rerates, _order(), NEW, now=NOW)
    ledger.failures = 1
    with pytest.raises(UnavailableError):
        post_adjustments(store.rerates, ledger, now=NOW)
    assert post_adjustments(store.rerates, ledger, now=NOW) > 0
    assert 0 == post_adjustments(store.rerates, ledger, now=NOW)
    assert _total(store) == ledger.total()
    assert report.moved_nusd == report.new_nusd - report.old_nusd
    settle_tick(store, now=NOW, ledger=ledger, reprice=lambda rows: reprice(rows, NEW))
    assert _total(store) == ledger.total()
    assert 0 == apply_rerate(store.rerates, _order(), NEW, now=NOW).calls


def test_a_batch_that_changes_no_call_keeps_no_re_rate_waiting(
    store: DuckDbSpanStore, span_rows: Rows
) -> None:
    """Resends and aggregates are settled, and there is nothing of them to post."""
    ledger, span = Ledger(), _lone(1, start_time=AT)
    for number in range(3):
        store.write(_priced(span_rows(span), OLD), batch_id=f"b{number}")
        settle_tick(store, now=NOW, ledger=ledger)
    store.write(
        _priced(span_rows({**span, "report_kind": "aggregate", "span_id": 9}), OLD), batch_id="a"
    )
    settle_tick(store, now=NOW, ledger=ledger)
    assert 1 == apply_rerate(store.rerates, _order(), NEW, now=NOW).calls


def test_nothing_is_applied_while_the_ledger_is_behind(
    store: DuckDbSpanStore, span_rows: Rows
) -> None:
    """A call that was never posted would be posted at its new price and moved on top."""

    class Down(Ledger):
        @override
        def post(self, changes: pa.Table, now: datetime) -> None:
            raise UnavailableError(f"down at {now}: {changes.num_rows} rows")

    store.write(_priced(span_rows(_span(random.Random(1), 1)), OLD), batch_id="b")
    settle_tick(store, now=NOW, ledger=Down())
    with pytest.raises(UnavailableError, match="the ledger does not have every call"):
        apply_rerate(store.rerates, _order(), NEW, now=NOW)


def _by(costs: pa.Table, name: str) -> dict[Any, Any]:
    return dict(zip(costs[name].to_pylist(), costs["cost_nusd"].to_pylist(), strict=True))


def _lone(number: int, **said: Any) -> dict[str, Any]:
    base = _span(random.Random(number), number)
    return {
        **base,
        "trace_lo": 1_000 + number,
        "span_id": 5_000 + number,
        "parent_span_id": 0,
        "response_id": None,
        "report_kind": "call",
        "billing_model": "m",
        "status": "ok",
        "layer": "client",
        "key_role": "unknown",
        "scope_name": "x",
        "input_tokens": 10,
        "input_uncached": 10,
        **said,
    }


def test_only_the_window_and_the_tenants_asked_for_change(
    store: DuckDbSpanStore, span_rows: Rows
) -> None:
    """Half-open, to the microsecond; the diff says what moved of whom."""
    micro = timedelta(microseconds=1)
    spans = [
        _lone(1, tenant="a", start_time=AT - micro),
        _lone(2, tenant="a", start_time=AT),
        _lone(3, tenant="b", start_time=AT),
        _lone(4, tenant="a", start_time=AT + timedelta(hours=1) - micro),
        _lone(5, tenant="a", start_time=AT + timedelta(hours=1)),
        _lone(6, tenant="a", start_time=AT, billing_model="fresh"),
    ]
    store.write(_priced(span_rows(*spans), OLD), batch_id="b")
    _tick(store, OLD)
    order = _order(window=Window(AT, AT + timedelta(hours=1)), tenants=("a",))
    report = apply_rerate(store.rerates, order, NEW, now=NOW)
    costs = {call["span_id"] - 5_000: call["cost_nusd"] for call in _calls(store)}
    assert {1: 45, 2: 75, 3: 45, 4: 75, 5: 45, 6: 75} == costs
    said = [
        (g.tenant, g.model, g.calls, g.old_nusd, g.new_nusd, g.newly_priced, g.moved_nusd)
        for g in report.groups
    ]
    assert [("a", "fresh", 1, 0, 75, 1, 75), ("a", "m", 2, 90, 150, 0, 60)] == said
    assert ("calls", 3, 135) == (report.basis, report.calls, report.moved_nusd)


def test_closed_periods_stay_and_are_corrected_in_the_open_one(
    store: DuckDbSpanStore, span_rows: Rows
) -> None:
    """The closed call keeps its price; the difference is a row of now, once, in the ledger too."""
    closed = AT - timedelta(days=1)
    spans = [_lone(1, start_time=closed - timedelta(hours=1)), _lone(2, start_time=AT)]
    ledger = Ledger()
    store.write(_priced(span_rows(*spans), OLD), batch_id="b")
    settle_tick(store, now=NOW, ledger=ledger)

    def run(run_id: str, book: PriceBook) -> RerateReport:
        made = apply_rerate(
            store.rerates,
            _order(run_id=run_id, price_version=book.version, closed_before=closed),
            book,
            now=NOW,
        )
        post_adjustments(store.rerates, ledger, now=NOW)
        return made

    first = run("r1", NEW)
    assert (2, 1, 60) == (first.calls, first.corrections, first.moved_nusd)
    assert {5_001: 45, 5_002: 75} == {c["span_id"]: c["cost_nusd"] for c in _calls(store)}
    assert 150 == ledger.total()
    moved = [row for rows in ledger.rows.values() for row in rows if row["version"] < 0]
    assert {NOW, AT} == {row["start_time"] for row in moved}, "booked now, not in the closed day"
    assert (0, 0) == (run("r2", NEW).calls, run("r2", NEW).corrections)
    # Another version corrects the correction: from what was booked, not from the first price.
    third = run("r3", _book("third", 6))
    assert (2, 1, 30) == (third.calls, third.corrections, third.moved_nusd)
    assert 180 == ledger.total()
    by_day = CostQuery(tenants=TENANTS, window=Window(WINDOW.start, NOW + timedelta(hours=1)),
                       group_by=("corrects",))  # fmt: skip
    day = f"{closed - timedelta(hours=1):%Y-%m-%d}"
    assert {None: 45 + 90, day: 45} == _by(store.costs(by_day), "corrects")
    # The first prices again: the corrections are taken back, and nobody's cost is left over.
    fourth = run("r4", OLD)
    assert (2, 1, -90) == (fourth.calls, fourth.corrections, fourth.moved_nusd)
    assert 90 == ledger.total()
    assert {None: 90} == _by(store.costs(by_day), "corrects")
    assert 0 == run("r5", OLD).calls
    run("r6", NEW)
    rebuilt = DuckDbSpanStore(None)
    rebuild(store, rebuilt, now=NOW)
    assert {None: 45 + 75, day: 30} == _by(rebuilt.costs(by_day), "corrects")
    assert store.corrections(TENANTS, by_day.window).equals(
        rebuilt.corrections(TENANTS, by_day.window)
    )
    assert (0, 0) == (rebuilt.rerates.unposted()[0], rebuilt.rerates.unposted()[1].num_rows)
    rebuilt.close()
