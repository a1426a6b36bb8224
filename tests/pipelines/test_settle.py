"""Settling bit by bit, in any order, is settling everything at once; the ledger gets each cent."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from controlplane.core.calendar import Window
from controlplane.core.errors import StoreUnavailableError, UnavailableError
from controlplane.ingest.calls import settle
from controlplane.pipelines.settle import rebuild, settle_tick
from controlplane.signals.queries import CallQuery, CostQuery, Granularity
from controlplane.store.memory.span_store import MemorySpanStore
from controlplane.store.spans import settle_tables
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
WINDOW = Window(AT - timedelta(days=40), AT + timedelta(days=1))
TENANTS = ("a", "b")
SCOPES = (
    "com.anthropic.sdk.python",
    "opentelemetry.instrumentation.anthropic",
    "openinference.instrumentation.langchain",
)

Rows = Callable[..., pa.Table]


class Ledger:
    """Posts each version once, as a database with a unique key would; fails when told to."""

    def __init__(self) -> None:
        self.posted: dict[int, list[dict[str, Any]]] = {}
        self.failures = 0
        self.has_budgets = True

    def counts_calls(self) -> bool:
        return self.has_budgets

    def post(self, changes: pa.Table, now: datetime) -> None:
        del now
        if self.failures:
            self.failures -= 1
            raise UnavailableError("the ledger is down")
        versions: dict[int, list[dict[str, Any]]] = {}
        for row in changes.to_pylist():
            versions.setdefault(row["version"], []).append(row)
        for version, rows in versions.items():
            again = self.posted.setdefault(version, rows)
            assert _bag(again) == _bag(rows)

    def total(self) -> int:
        rows = (row for rows in self.posted.values() for row in rows)
        return sum(row["sign"] * (row["cost_nusd"] or 0) for row in rows)

    def calls(self) -> dict[str, int]:
        """Calls that stand after every change, by how often they do: 1, or the ledger is wrong."""
        standing: dict[str, int] = {}
        for rows in self.posted.values():
            for row in rows:
                standing[row["call_id"]] = standing.get(row["call_id"], 0) + row["sign"]
        return {call_id: count for call_id, count in standing.items() if count}


def _bag(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(repr(sorted(row.items())) for row in rows)


def _random_span(rng: random.Random, number: int) -> dict[str, Any]:
    """One of a few thousand confusable spans: shared ids, traces, revisions, late starts."""
    age = rng.choice([0, 0, 0, 0, 1, 2, 40, 60 * 24 * 29])
    return {
        "trace_lo": rng.randrange(1, 40),
        "span_id": rng.randrange(1, 200),
        "parent_span_id": rng.randrange(200),
        "content_hash": number,
        "start_time": AT - timedelta(minutes=age, seconds=rng.randrange(3)),
        "duration_us": rng.choice([0, 1_000_000, 90_000_000]),
        "report_kind": rng.choice(["call", "call", "call", "none", "aggregate"]),
        "layer": rng.choice(["client", "client", "proxy", "engine", "agent"]),
        "key_role": rng.choice(["unknown", "unknown", "proxy", "agent"]),
        "scope_name": rng.choice(SCOPES),
        "response_id": rng.choice(
            [
                *(None, None, f"chatcmpl-{rng.randrange(60):08d}", "chatcmpl-7"),
                f"cmpl-{rng.randrange(20):08d}-{rng.randrange(3)}",
                f"cmpl-{rng.randrange(20):08d}",
            ]
        ),
        "gateway_call_id": rng.choice(
            [None, None, f"gw-{rng.randrange(40):08d}", "gw-constant-id"]
        ),
        "status": rng.choice(["ok", "ok", "error"]),
        "input_tokens": rng.choice([10, 20]),
        "cost_nusd": rng.randrange(1_000),
        "tenant": rng.choice(TENANTS),
        "team": rng.choice([None, "x", "y"]),
        "service_name": rng.choice(["app", "gate"]),
        "attributed_by": rng.choice([None, '{"team":"r1"}', '{"team":"r2","user":"r3"}']),
    }


def _calls(store: Any) -> list[dict[str, Any]]:
    table = store.calls(CallQuery(tenants=TENANTS, window=WINDOW, limit=10_000))
    return [{**row, "version": 0} for row in table.to_pylist()]


def _answers(store: Any) -> list[Any]:
    """Everything a reader can be told, apart from versions."""
    calls = _calls(store)
    ids = [call["call_id"] for call in calls]
    costs = [
        store.costs(
            CostQuery(
                tenants=TENANTS,
                window=WINDOW,
                granularity=granularity,
                group_by=("team", "cost_state"),
                zone="Asia/Kolkata",
            )
        ).to_pylist()
        for granularity in (Granularity.TOTAL, Granularity.DAY, Granularity.QUARTER_HOUR)
    ]
    suppressed = store.suppressed(ids).to_pylist()
    accounting = store.accounting(TENANTS).to_pylist()
    return [calls, suppressed, costs, accounting, store.data_through(TENANTS)]


@pytest.mark.parametrize("seed", range(6))
def test_any_interleaving_equals_a_rebuild_and_the_reference(
    seed: int, tmp_path: Path, span_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late spans, resends, revisions, ticks in between, roll-ups, and a ledger that goes down."""
    monkeypatch.setattr(settle_tables, "MAX_ACCOUNT_ROWS", 20)
    rng = random.Random(seed)
    store, reference = DuckDbSpanStore(None), MemorySpanStore()
    ledger, now, sent = Ledger(), AT, 0
    rows: list[dict[str, Any]] = []
    for batch in range(25):
        fresh = [_random_span(rng, sent + n) for n in range(rng.randrange(1, 25))]
        sent += len(fresh)
        resent = rng.sample(rows, min(len(rows), 3))
        rows += fresh
        for engine in (store, reference):
            engine.write(span_rows(*fresh, *resent), batch_id=str(batch))
        now += timedelta(seconds=rng.choice([0, 1, 30, 900]))
        ledger.failures = rng.choice([0, 0, 1])
        for _ in range(rng.randrange(3)):
            settle_tick(store, now=now, ledger=ledger)
    ledger.failures = 0
    now += timedelta(hours=1)
    settle_tick(store, now=now, ledger=ledger)
    settle_tick(reference, now=now, ledger=None)
    assert _answers(reference) == _answers(store)

    rebuilt = DuckDbSpanStore(tmp_path / "rebuilt.duckdb")
    assert 25 == rebuild(store, rebuilt, now=now)
    assert _answers(store) == _answers(rebuilt)

    calls = _calls(store)
    assert sum(call["cost_nusd"] or 0 for call in calls) == ledger.total()
    assert {call["call_id"]: 1 for call in calls} == ledger.calls()
    rebuilt.close()
    store.close()


def test_ids_that_an_emitter_repeats_are_learned_and_join_nothing_from_the_next_hour(
    span_rows: Rows, tmp_path: Path
) -> None:
    """C2: a client that reuses ten long ids; an hour later a proxy's report has one of them."""
    store, reference = DuckDbSpanStore(None), MemorySpanStore()

    def call(number: int, minutes: int, **said: Any) -> dict[str, Any]:
        return {
            "tenant": "a",
            "span_id": number + 1,
            "trace_lo": number + 1,
            "start_time": AT + timedelta(minutes=minutes, milliseconds=number),
            "response_id": f"chatcmpl-0000000{number % 10}",
            **said,
        }

    def write(*rows: dict[str, Any]) -> None:
        for engine in (store, reference):
            engine.write(span_rows(*rows), batch_id=str(rows[0]["span_id"]))

    other = {"service_name": "with good ids", "response_id": None}
    proxy = {"layer": "proxy", "service_name": "gate"}
    write(*(call(n, 1) for n in range(80)), *(call(n, 1, **other) for n in range(80, 160)))
    learned = settle_tick(store, now=AT + timedelta(minutes=3), ledger=None).learned
    assert [("default", "app")] == [(one.domain, one.service_name) for one in learned]
    assert (AT + timedelta(hours=1)).timestamp() * 1e6 == learned[0].since_us
    assert () == settle_tick(store, now=AT + timedelta(minutes=4), ledger=None).learned
    assert () == settle_tick(store, now=AT + timedelta(minutes=30), ledger=None).learned
    reference.take_over(learned)
    write(call(200, 70), call(201, 70, **proxy, response_id="chatcmpl-00000000"))
    same_hour = {"response_id": "chatcmpl-aaaaaaaa"}
    write(call(300, 50, **same_hour), call(301, 50, **proxy, **same_hour))
    for engine in (store, reference):
        settle_tick(engine, now=AT + timedelta(hours=2), ledger=None)
    assert [2] == [row["reports"] for row in _calls(store) if row["reports"] > 1]
    assert _calls(reference) == _calls(store)
    rebuilt = DuckDbSpanStore(tmp_path / "rebuilt.duckdb")
    rebuild(store, rebuilt, now=AT + timedelta(hours=2))
    assert (_calls(store), store.weak_emitters()) == (_calls(rebuilt), rebuilt.weak_emitters())
    rebuilt.close()
    store.close()


def test_a_tick_that_finds_nothing_new_changes_nothing(span_rows: Rows) -> None:
    store, ledger = DuckDbSpanStore(None), Ledger()
    store.write(span_rows({"tenant": "a"}), batch_id="a")
    assert 1 == settle_tick(store, now=AT, ledger=ledger).changed_calls
    outcome = settle_tick(store, now=AT, ledger=ledger)
    assert (0, 0, 0) == (outcome.reports, outcome.changed_calls, outcome.posted_changes)
    assert 1 == len(ledger.posted)


def test_a_store_made_anew_or_put_back_is_posted_to_the_ledger_that_stayed(
    tmp_path: Path, span_rows: Rows
) -> None:
    """The ledger posts a version once; a store that lost its batches must not count them again."""
    ledger, path = Ledger(), tmp_path / "spans.duckdb"

    def live(span_id: int, cost_nusd: int) -> None:
        store = DuckDbSpanStore(path)
        row = {"tenant": "a", "span_id": span_id, "cost_nusd": cost_nusd}
        store.write(span_rows(row), batch_id=str(span_id))
        settle_tick(store, now=AT, ledger=ledger)
        store.close()

    live(1, 7)
    copy = path.read_bytes()
    live(2, 100)
    path.write_bytes(copy)
    live(3, 3_000)
    path.unlink()
    live(4, 50_000)
    assert 53_107 == ledger.total()


def test_a_ledger_that_is_down_delays_posting_and_never_pages(span_rows: Rows) -> None:
    store, ledger = DuckDbSpanStore(None), Ledger()
    ledger.failures = 1
    store.write(span_rows({"tenant": "a", "cost_nusd": 7}), batch_id="a")
    assert settle_tick(store, now=AT, ledger=ledger).is_ledger_behind
    assert 1 == len(_calls(store))
    assert 0 == ledger.total()
    assert 1 == settle_tick(store, now=AT, ledger=ledger).posted_changes
    assert 7 == ledger.total()


def test_calls_from_before_the_first_budget_are_not_kept_for_it(span_rows: Rows) -> None:
    """While nobody counts, a tick reads no calls and leaves none to be posted."""
    store, ledger = DuckDbSpanStore(None), Ledger()
    ledger.has_budgets = False
    store.write(span_rows({"tenant": "a", "span_id": 1, "cost_nusd": 7}), batch_id="a")
    outcome = settle_tick(store, now=AT, ledger=ledger)
    assert (1, 0, False) == (
        outcome.changed_calls,
        outcome.posted_changes,
        outcome.is_ledger_behind,
    )
    ledger.has_budgets = True
    store.write(span_rows({"tenant": "a", "span_id": 2, "cost_nusd": 100}), batch_id="b")
    assert 1 == settle_tick(store, now=AT, ledger=ledger).posted_changes
    assert 100 == ledger.total()


def test_a_mark_made_during_a_roll_up_survives_it(
    span_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I1: settle reads a bucket's marks, another mark is made, settle deletes what it read."""
    store = DuckDbSpanStore(None)
    store.write(span_rows({"tenant": "a", "span_id": 1}), batch_id="a")
    settle_tick(store, now=AT, ledger=None)
    later = AT + timedelta(hours=1)
    recompute = store._tables._recompute

    def recompute_after_another_mark() -> int:
        store.write(span_rows({"tenant": "a", "span_id": 2}), batch_id="b")
        store.apply(settle(store.take()), now=later)
        return recompute()

    monkeypatch.setattr(store._tables, "_recompute", recompute_after_another_mark)
    assert 1 == store.roll_up(now=later)
    monkeypatch.undo()
    query = CostQuery(tenants=TENANTS, window=WINDOW)
    assert [2] == store.costs(query).column("calls").to_pylist()
    assert 1 == store.roll_up(now=later + timedelta(hours=1))
    assert 0 == store.roll_up(now=later + timedelta(hours=2))
    assert [2] == store.costs(query).column("calls").to_pylist()


def test_a_tick_that_fails_half_way_is_done_again(
    span_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without groups before it: what the failed transaction made is not relied upon."""
    store, execute = DuckDbSpanStore(None), settle_tables.SettleTables._execute
    shared = {"tenant": "a", "response_id": "chatcmpl-0123456789"}
    batches = [
        [{**shared, "span_id": 1}],
        [{"tenant": "a", "span_id": 9, "trace_lo": 9}],
        [{**shared, "span_id": 2, "layer": "proxy"}],
        [{"tenant": "a", "span_id": 10, "trace_lo": 10}],
    ]

    def fail(tables: settle_tables.SettleTables, name: str, **parameters: Any) -> None:
        execute(tables, name, **parameters)
        if name == "progress":
            raise StoreUnavailableError("the disk is full")

    for number, rows in enumerate(batches):
        store.write(span_rows(*rows), batch_id=str(number))
        monkeypatch.setattr(settle_tables.SettleTables, "_execute", fail)
        with pytest.raises(StoreUnavailableError):
            settle_tick(store, now=AT, ledger=None)
        monkeypatch.undo()
        settle_tick(store, now=AT, ledger=None)
    assert [1, 1, 2] == sorted(call["reports"] for call in _calls(store))
    (account,) = store.accounting(("a",)).to_pylist()
    assert (4, 3, 1) == (account["stored"], account["calls"], account["suppressed"])


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """A file that is not a database is refused by name, and nothing is written over it."""
    path = tmp_path / "spans.duckdb"
    path.write_bytes(b"not a database, but somebody's" * 400)
    with pytest.raises(StoreUnavailableError, match="can not open"):
        DuckDbSpanStore(path)
    assert path.read_bytes().startswith(b"not a database")
