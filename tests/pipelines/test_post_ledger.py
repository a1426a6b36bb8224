"""Calls against budgets: what never asked is counted once, what was held is only corrected."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec
import pyarrow as pa
import pytest
from sqlalchemy import Engine

from controlplane.budgets.book import LeaseTerms, LedgerBook
from controlplane.budgets.budget import Budget
from controlplane.budgets.hold import ChargeReason, Outcome
from controlplane.budgets.ledger import Amounts, WindowKey
from controlplane.core.calendar import Period, Window
from controlplane.ingest.settlement import CHANGE_SCHEMA
from controlplane.pipelines.post_ledger import LedgerPosting
from controlplane.policy.document import Mode
from controlplane.policy.units import Amount
from controlplane.policy.wire import LeaseWant, Settle
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.ledger import LedgerRepository

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
START = datetime(2026, 11, 1, tzinfo=UTC)
MONTH = Window(START, datetime(2026, 12, 1, tzinfo=UTC))
GRACE = 10.0
PLAIN: dict[str, object] = {
    "call_id": "c",
    "domain": "default",
    "trace_hi": 0,
    "trace_lo": 1,
    "span_id": 1,
    "start_time": NOW - timedelta(minutes=5),
    "version": 1,
    "reports": 1,
    "layers": "client",
    "enforced": False,
    "duration_us": 1_000_000,
    "service_name": "app",
    "dialect": "x",
    "status": "ok",
    "usage_state": "exact",
    "tenant": "acme",
    "cost_nusd": 100,
    "cost_state": "priced",
    "request_model": "gpt-4o",
    "billing_model": "gpt-4o-2024",
    "sign": 1,
}


def changes(*rows: Mapping[str, object]) -> pa.Table:
    return pa.Table.from_pylist([{**PLAIN, **row} for row in rows], schema=CHANGE_SCHEMA)


class World:
    """One budget store with its ledger."""

    def __init__(self, engine: Engine) -> None:
        self.repository = BudgetRepository(engine)
        self.ledger = LedgerRepository(engine)
        self.posting = LedgerPosting(self.ledger, unenforced_grace_seconds=GRACE)

    def budget(self, **fields: object) -> Budget:
        plain: dict[str, object] = {
            "id": "b",
            "name": "Acme",
            "owner": "ada",
            "tenant": "acme",
            "limit_nusd": 10_000,
            "period": Period.MONTH,
            "counts_from": START,
        }
        return self.repository.create(msgspec.convert({**plain, **fields}, Budget))

    def post(self, *rows: Mapping[str, object], now: datetime = NOW) -> None:
        self.posting.post(changes(*rows), now)

    def amounts(self, budget: Budget, at: datetime = NOW) -> Amounts:
        return self.repository.balances([budget], at=at)[budget.id]

    def hold(self, budget: Budget, *, cost: int | None, **ids: str) -> None:
        """Grant a lease of 500 and settle one hold of 300 from it."""
        with self.ledger.transaction() as ledger:
            window = WindowKey(budget.id, START)
            book = LedgerBook(
                {budget.id: budget},
                terms=LeaseTerms(),
                now=NOW,
                holders={},
                amounts=ledger.amounts([window]),
            )
            hold_id = ids.get("hold_id", "h")
            lease = book.grant(
                LeaseWant(budget.id, 500, 500), holder="n", new_id=lambda: f"lease-{hold_id}"
            )
            assert lease is not None
            said = Settle(
                hold_id=hold_id,
                leases={budget.id: lease.id},
                held_nusd=300,
                started_at=NOW,
                ended_at=NOW,
                provider="openai",
                model="gpt-4o",
                response_id=ids.get("response_id"),
                call_id=ids.get("call_id"),
            )
            reason = ChargeReason.UNKNOWN_USAGE if cost is None else ChargeReason.PRICED
            book.settle(said, Outcome(Amount(cost, None, None), reason), holder="n")
            ledger.append(book.entries)
            ledger.save_leases(book.leases)
            ledger.save_holds(book.holds)


@pytest.fixture
def world(metadata_engine: Engine) -> World:
    return World(metadata_engine)


def test_calls_are_counted_while_there_is_a_budget(world: World) -> None:
    """An archived budget counts nothing any more."""
    assert not world.posting.counts_calls()
    budget = world.budget()
    assert world.posting.counts_calls()
    world.repository.archive(budget.id, now=NOW)
    assert not world.posting.counts_calls()


def test_calls_that_never_asked_are_subtracted(world: World) -> None:
    """Two calls of the tenant; the third is somebody else's."""
    budget = world.budget()
    world.post({}, {"call_id": "d", "cost_nusd": 7}, {"call_id": "e", "tenant": "globex"})
    assert Amounts(unenforced_nusd=107) == world.amounts(budget)


def test_a_version_is_posted_once(world: World) -> None:
    """After a crash the same rows come again (algorithms L8)."""
    budget = world.budget()
    for _ in range(3):
        world.post({}, {"call_id": "d", "version": 2, "cost_nusd": 7})
    world.post({"call_id": "d", "version": 2, "cost_nusd": 7}, {"call_id": "f", "version": 3})
    assert Amounts(unenforced_nusd=207) == world.amounts(budget)


def test_a_changed_call_posts_its_difference(world: World) -> None:
    """A call that moved, got dearer and then vanished leaves what it was last: nothing."""
    budget = world.budget()
    world.post({})
    moved = {"cost_nusd": 150, "start_time": NOW - timedelta(days=2)}
    world.post({"version": 2, "sign": -1}, {"version": 2, **moved})
    assert Amounts(unenforced_nusd=150) == world.amounts(budget)
    world.post({"version": 3, "sign": -1, **moved})
    assert Amounts() == world.amounts(budget)


def test_an_unpriced_call_posts_nothing_until_it_has_a_price(world: World) -> None:
    """Unknown is not zero: it is no entry, and the price arrives as a change."""
    budget = world.budget()
    world.post({"cost_nusd": None, "cost_state": "unpriced"})
    assert [] == world.repository.entries("b", MONTH, limit=10)
    world.post(
        {"version": 2, "sign": -1, "cost_nusd": None, "cost_state": "unpriced"}, {"version": 2}
    )
    assert Amounts(unenforced_nusd=100) == world.amounts(budget)


def test_a_call_belongs_to_the_window_it_started_in(world: World) -> None:
    """A late October call is October's in the budget's own zone."""
    budget = world.budget(zone="America/New_York", counts_from=START - timedelta(days=60))
    world.post({"start_time": datetime(2026, 11, 1, 3, 59, tzinfo=UTC)})
    assert Amounts() == world.amounts(budget)
    assert Amounts(unenforced_nusd=100) == world.amounts(budget, at=START)


def test_calls_before_the_budget_do_not_count(world: World) -> None:
    """Neither when they come nor when they change: both would be wrong alone."""
    budget = world.budget(counts_from=NOW)
    for number, sign in enumerate((1, -1), start=1):
        world.post({"version": number, "sign": sign})
        assert Amounts() == world.amounts(budget)
    world.post({"version": 3, "start_time": NOW - timedelta(microseconds=1)})
    assert Amounts() == world.amounts(budget)
    world.post({"version": 4, "start_time": NOW})
    assert Amounts(unenforced_nusd=100) == world.amounts(budget)


def test_entries_are_sums_per_minute_and_version(world: World) -> None:
    """A thousand calls of two minutes are two entries."""
    world.budget()
    minute = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
    rows = [
        {"call_id": str(n), "start_time": minute + timedelta(seconds=n % 120)} for n in range(1_000)
    ]
    world.post(*rows)
    entries = world.repository.entries("b", MONTH, limit=10)
    assert ["calls:1:20261120T0901", "calls:1:20261120T0900"] == [e.key for e in entries]
    assert [minute + timedelta(minutes=1), minute] == [entry.called_at for entry in entries]
    assert 100_000 == sum(entry.change.unenforced_nusd for entry in entries)


@pytest.mark.parametrize("ids", [{"response_id": "r"}, {"call_id": "g"}], ids=["response", "call"])
def test_an_enforced_call_is_charged_once(world: World, ids: dict[str, str]) -> None:
    """Its hold was settled; the trace costs the same, so nothing is posted."""
    budget = world.budget()
    world.hold(budget, cost=100, **ids)
    before = world.amounts(budget)
    world.post({"enforced": True, "response_id": "r", "gateway_call_id": "g"})
    assert before == world.amounts(budget)


@pytest.mark.parametrize("cost", [40, 250, None])
def test_a_trace_corrects_what_the_hold_was_charged(world: World, cost: int | None) -> None:
    """Dearer, cheaper, or charged in full for want of usage: the trace's cost stands."""
    budget = world.budget()
    world.hold(budget, cost=cost, response_id="r")
    world.post({"enforced": True, "response_id": "r"})
    expected = Amounts(enforced_nusd=100, leased_nusd=200)
    assert expected == world.amounts(budget)
    changed = {"enforced": True, "response_id": "r", "version": 2}
    world.post({**changed, "sign": -1}, {**changed, "cost_nusd": 120})
    assert Amounts(enforced_nusd=120, leased_nusd=200) == world.amounts(budget)


def test_two_holds_that_can_not_be_told_apart_stay_as_settled(world: World) -> None:
    """Attempts of one gateway call: a guess could charge one twice."""
    budget = world.budget()
    world.hold(budget, cost=100, hold_id="h1", call_id="g")
    world.hold(budget, cost=50, hold_id="h2", call_id="g")
    before = world.amounts(budget)
    world.post({"enforced": True, "gateway_call_id": "g", "cost_nusd": 999})
    assert before == world.amounts(budget)


def test_a_hold_without_any_id_is_found_by_its_own(world: World) -> None:
    """Its report carries the hold's id where a gateway's would be."""
    budget = world.budget()
    world.hold(budget, cost=100, hold_id="h1")
    before = world.amounts(budget)
    world.post({"enforced": True, "gateway_call_id": "h1"})
    assert before == world.amounts(budget)


def test_the_gateways_id_tells_equal_response_ids_apart(world: World) -> None:
    """Some engines number their responses from one."""
    budget = world.budget()
    world.hold(budget, cost=100, hold_id="h1", response_id="1", call_id="g1")
    world.hold(budget, cost=50, hold_id="h2", response_id="1", call_id="g2")
    before = world.amounts(budget)
    world.post({"enforced": True, "response_id": "1", "gateway_call_id": "g2", "cost_nusd": 60})
    assert before + Amounts(enforced_nusd=10) == world.amounts(budget)


def test_a_soft_budget_counts_enforced_calls_too(world: World) -> None:
    """Nothing was held from it, so the call is counted as seen."""
    hard = world.budget()
    soft = world.budget(id="soft", mode=Mode.SOFT)
    world.hold(hard, cost=100, response_id="r")
    world.post({"enforced": True, "response_id": "r"})
    assert Amounts(unenforced_nusd=100) == world.amounts(soft)
    assert Amounts(enforced_nusd=100, leased_nusd=200) == world.amounts(hard)


def test_a_fresh_call_waits_for_its_agent(world: World) -> None:
    """The trace came first: it waits, the settle makes it enforced, and it counts once."""
    budget = world.budget()
    world.hold(budget, cost=100, response_id="other")
    before = world.amounts(budget)
    fresh = {"start_time": NOW - timedelta(seconds=2), "response_id": "r"}
    world.post(fresh)
    assert before == world.amounts(budget)
    world.hold(budget, cost=100, hold_id="h2", response_id="r")
    settled = world.amounts(budget)
    world.post({**fresh, "version": 2, "sign": -1}, {**fresh, "version": 2, "enforced": True})
    assert settled == world.amounts(budget)
    world.post(now=NOW + timedelta(minutes=1))
    assert settled == world.amounts(budget)


def test_a_call_that_waited_in_vain_is_counted(world: World) -> None:
    """Ten seconds after its end, once; a change in the meantime replaces it."""
    budget = world.budget()
    world.hold(budget, cost=100, response_id="other")
    before = world.amounts(budget)
    fresh = {"start_time": NOW - timedelta(seconds=2)}
    world.post(fresh)
    world.post({**fresh, "version": 2, "sign": -1}, {**fresh, "version": 2, "cost_nusd": 130})
    world.post(now=NOW + timedelta(seconds=8.9))
    assert before == world.amounts(budget)
    for seconds in (9, 10, 11):
        world.post(now=NOW + timedelta(seconds=seconds))
        assert before + Amounts(unenforced_nusd=130) == world.amounts(budget)
    later = {"version": 3, **fresh, "cost_nusd": 130, "sign": -1}
    world.post(later, now=NOW + timedelta(minutes=1))
    assert before == world.amounts(budget)


def test_a_call_that_says_it_ends_next_year_waits_no_longer_than_others(world: World) -> None:
    """What its client says of its end is no way to stay uncounted (algorithms L5)."""
    budget = world.budget()
    world.hold(budget, cost=100, response_id="other")
    before = world.amounts(budget)
    world.post({"start_time": NOW, "duration_us": 365 * 86_400 * 10**6})
    world.post(now=NOW + timedelta(seconds=9.9))
    assert before == world.amounts(budget)
    world.post(now=NOW + timedelta(seconds=10))
    assert before + Amounts(unenforced_nusd=100) == world.amounts(budget)


def test_a_fresh_call_without_a_price_has_nothing_to_wait_with(world: World) -> None:
    """Its price comes as a change, and that is what waits and is counted."""
    budget = world.budget()
    world.hold(budget, cost=100, response_id="other")
    before = world.amounts(budget)
    fresh = {"start_time": NOW - timedelta(seconds=2)}
    unpriced = {**fresh, "cost_nusd": None, "cost_state": "unpriced"}
    world.post(unpriced)
    world.post({**unpriced, "version": 2, "sign": -1}, {**fresh, "version": 2})
    assert before == world.amounts(budget)
    world.post(now=NOW + timedelta(seconds=9))
    assert before + Amounts(unenforced_nusd=100) == world.amounts(budget)


def test_nothing_waits_where_no_agent_leases(world: World) -> None:
    """Without an agent a wait would only delay the truth."""
    budget = world.budget()
    world.post({"start_time": NOW - timedelta(seconds=2)})
    assert Amounts(unenforced_nusd=100) == world.amounts(budget)


def test_balance_is_the_sum_of_its_entries(world: World) -> None:
    """The carried balance and the ledger never disagree."""
    budget = world.budget()
    world.hold(budget, cost=None, response_id="r")
    world.post({"enforced": True, "response_id": "r"}, {"call_id": "d"})
    world.post({"version": 2, "call_id": "d", "sign": -1})
    total = Amounts()
    for entry in world.repository.entries("b", MONTH, limit=100):
        total += entry.change
    assert total == world.amounts(budget)


def test_a_budget_counts_in_its_own_unit(world: World) -> None:
    """Three budgets over the same calls: what each posts has nothing to do with the others."""
    money = world.budget(id="usd")
    tokens = world.budget(id="tok", unit="tokens")
    requests = world.budget(id="req", unit="requests")
    world.post(
        {"call_id": "a", "cost_nusd": 700, "input_tokens": 15, "output_tokens": 3},
        {"call_id": "b", "cost_nusd": None, "input_tokens": 20, "output_tokens": 4},
        {"call_id": "c", "cost_nusd": 0, "cost_reason": "failed_without_usage", "status": "error"},
        {"call_id": "d", "cost_nusd": 0, "cost_reason": "cache_hit", "output_tokens": 9},
        {"call_id": "e", "cost_nusd": None},
    )
    assert 700 == world.amounts(money).unenforced_nusd
    assert 15 + 3 + 20 + 4 == world.amounts(tokens).unenforced_nusd
    assert 4 == world.amounts(requests).unenforced_nusd


def test_a_trace_corrects_a_hold_in_the_unit_of_its_budget(world: World) -> None:
    """Usage was not known at the end of the call: its whole hold is replaced by 18 tokens."""
    tokens = world.budget(unit="tokens")
    world.hold(tokens, cost=None, response_id="r")
    world.post({"enforced": True, "response_id": "r", "input_tokens": 15, "output_tokens": 3})
    assert Amounts(enforced_nusd=18, leased_nusd=200) == world.amounts(tokens)


def test_a_rerate_has_its_own_line_once(world: World) -> None:
    """100 became 160 in another posting; a budget of tokens does not move."""
    money, tokens = world.budget(id="usd"), world.budget(id="tok", unit="tokens")
    world.post({"output_tokens": 7})
    moved = changes({"version": -3, "sign": -1}, {"version": -3, "sign": 1, "cost_nusd": 160})
    for _ in range(2):
        world.posting.restate(moved, NOW)
    assert Amounts(unenforced_nusd=100, restated_nusd=60) == world.amounts(money)
    assert Amounts(unenforced_nusd=7) == world.amounts(tokens)


def test_a_rolling_budget_counts_the_quarter_hours_that_its_length_touches(world: World) -> None:
    """At 10:00 the last hour touches 09:00 to 10:15; the call of 08:59 no longer counts."""
    budget = world.budget(window_kind="rolling", period=None, every="1h", forecast_thresholds=())
    for call_id, minutes in (("old", 61), ("first", 60), ("last", 1), ("now", 0)):
        at = NOW - timedelta(minutes=minutes)
        world.post({"call_id": call_id, "version": minutes + 1, "start_time": at})
    assert 300 == world.amounts(budget).unenforced_nusd
    assert 200 == world.amounts(budget, NOW + timedelta(minutes=15)).unenforced_nusd
    assert 100 == world.amounts(budget, NOW + timedelta(minutes=74)).unenforced_nusd
    assert 0 == world.amounts(budget, NOW + timedelta(minutes=75)).unenforced_nusd
    span = budget.counted_window(NOW)
    assert 3 == len(world.repository.entries("b", span, limit=10))
