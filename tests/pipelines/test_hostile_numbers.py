"""What one sender says wrongly stops nobody: not the ledger, not settlement, not a page."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from sqlalchemy import Engine

from controlplane.auth.principal import Principal, PrincipalKind
from controlplane.auth.roles import Role, scopes_of
from controlplane.budgets.budget import Budget
from controlplane.budgets.lease import Lease, LeaseState
from controlplane.budgets.ledger import Amounts, Entry, EntryKind, WindowKey
from controlplane.core.calendar import Period, Window
from controlplane.core.errors import InvalidInputError
from controlplane.core.ids import SequentialIds
from controlplane.core.money import MAX_NUSD
from controlplane.ingest.settlement import CHANGE_SCHEMA
from controlplane.pipelines.agent_reports import store_settles
from controlplane.pipelines.post_ledger import LedgerPosting
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.sync import SyncTools, sync
from controlplane.pipelines.sync_checks import MAX_HOLD_NUSD
from controlplane.policy.wire import Settle, SyncReply, SyncRequest
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.signals.queries import CallQuery, CostQuery
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
MONTH = datetime(2026, 11, 1, tzinfo=UTC)
TENANT = "default"
PROXY = Principal(
    id="k",
    kind=PrincipalKind.PROXY,
    name="proxy",
    scopes=scopes_of((Role.PROXY,)),
    tenants=(TENANT,),
)

Rows = Callable[..., pa.Table]


@pytest.fixture
def budget(metadata_engine: Engine) -> Budget:
    return BudgetRepository(metadata_engine).create(
        Budget(
            id="b",
            name="B",
            owner="ada",
            tenant=TENANT,
            limit_nusd=1_000,
            period=Period.MONTH,
            counts_from=MONTH,
        )
    )


@pytest.fixture
def say(metadata_engine: Engine) -> Callable[..., SyncReply]:
    def report(_settles: Sequence[Settle], _caller: Principal, _now: datetime) -> None:
        """Keep nothing: these tests look at the ledger."""

    tools = SyncTools(
        ledger=LedgerRepository(metadata_engine),
        price_usage=lambda settle: 3 * sum((settle.usage or {}).values()),
        report=report,
        ids=SequentialIds(),
    )

    def settle_one(**fields: object) -> SyncReply:
        request = SyncRequest(node="n", boot_id="h1", settle=(_settle(**fields),))
        return sync(request, PROXY, NOW, tools=tools)

    return settle_one


def _settle(**fields: object) -> Settle:
    plain: dict[str, object] = {
        "hold_id": "h",
        "leases": {"b": "no-lease-we-know"},
        "held_nusd": 100,
        "started_at": NOW,
        "ended_at": NOW,
        "provider": "openai",
        "model": "gpt-4o",
        "usage": {"output_text": 10},
    }
    return msgspec.convert({**plain, **fields}, Settle)


@pytest.mark.usefixtures("budget")
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"held_nusd": MAX_HOLD_NUSD + 1}, "settle.held_nusd"),
        ({"held_nusd": 10**30}, "settle.held_nusd"),
        ({"started_at": datetime(1, 1, 1, tzinfo=UTC)}, "settle.started_at"),
        ({"started_at": datetime(9999, 12, 31, tzinfo=UTC)}, "settle.started_at"),
        ({"started_at": datetime(2026, 11, 20)}, "settle.started_at"),  # noqa: DTZ001 - the point
        ({"ended_at": datetime(9999, 12, 31, tzinfo=UTC)}, "settle.ended_at"),
        ({"ended_at": datetime(2026, 11, 20)}, "settle.ended_at"),  # noqa: DTZ001 - the point
        ({"hold_id": ""}, "settle.hold_id"),
        ({"hold_id": "x" * 201}, "settle.hold_id"),
    ],
)
def test_a_settle_that_no_ledger_holds_is_refused(
    say: Callable[..., SyncReply], *, fields: dict[str, object], named: str
) -> None:
    """Year 1 ends every settlement after it; 10^30 fits no database."""
    with pytest.raises(InvalidInputError) as refused:
        say(**fields)
    assert named == refused.value.field


@pytest.mark.usefixtures("budget")
@pytest.mark.parametrize(
    "usage",
    [
        {"output_text": -1},
        {"output_text": 2**63},
        {"output_text": 2**40 + 1},
        {"output_tokens": 5},
        {"output_text": 5, "a_bucket_of_the_future": 1},
    ],
)
def test_usage_that_can_not_be_is_charged_as_held(
    say: Callable[..., SyncReply], *, usage: dict[str, int]
) -> None:
    """An upstream that answers nonsense neither frees money nor stops its proxy's syncs."""
    (standing,) = say(usage=usage).standings
    assert (0, 100) == (standing.settled_enforced_nusd, standing.settled_unproven_nusd)


@pytest.mark.parametrize("quantity", [-1, 2**40 + 1, 2**63])
def test_a_report_of_impossible_usage_is_stored_unpriced(tmp_path: Path, quantity: int) -> None:
    store = DuckDbSpanStore(tmp_path / "spans.duckdb")
    book = PriceBook(seed_version(), listed_providers())
    said = _settle(usage={"output_text": quantity})
    store_settles([said], PROXY, book=book, writer=store, now=NOW)
    settle_tick(store, now=NOW, ledger=None)
    (call,) = store.calls(CallQuery(tenants=(TENANT,), window=_around(NOW))).to_pylist()
    assert ("impossible", "unpriced") == (call["usage_state"], call["cost_state"])
    assert call["output_tokens"] is None
    store.close()


def test_sums_beyond_64_bits_stop_at_the_largest_number(
    tmp_path: Path, span_rows: Rows, metadata_engine: Engine, budget: Budget
) -> None:
    """Settlement, the cube, answers and the ledger go on; the next call is counted."""
    store = DuckDbSpanStore(tmp_path / "spans.duckdb")
    posting = LedgerPosting(LedgerRepository(metadata_engine), unenforced_grace_seconds=0)
    dear = [{"span_id": n, "cost_nusd": 2**62, "output_tokens": 2**62} for n in range(1, 6)]
    store.write(span_rows(*({**row, "start_time": NOW} for row in dear)), batch_id="a")
    later = NOW + timedelta(hours=1)
    store.write(span_rows({"span_id": 9, "start_time": later}), batch_id="b")
    query = CostQuery(tenants=(TENANT,), window=_around(NOW))
    for hours in (0, 1, 2):
        settle_tick(store, now=later + timedelta(hours=hours), ledger=posting)
        (total,) = store.costs(query).to_pylist()
        assert (6, MAX_NUSD) == (total["calls"], total["cost_nusd"])
    (amounts,) = BudgetRepository(metadata_engine).balances([budget], at=NOW).values()
    assert isinstance(amounts.unenforced_nusd, int)
    assert amounts.unenforced_nusd > budget.limit_nusd
    store.close()


def test_a_balance_beyond_64_bits_is_still_the_sum_of_its_entries(
    metadata_engine: Engine, budget: Budget
) -> None:
    ledger = LedgerRepository(metadata_engine)
    repository = BudgetRepository(metadata_engine)
    window = WindowKey(budget.id, MONTH)
    for n in range(6):
        entries = [
            Entry(
                window=window,
                key=f"k{n}.{i}",
                kind=EntryKind.CALLS,
                at=NOW,
                change=Amounts(unenforced_nusd=2**63 - 1 if n < 3 else -(2**40)),
            )
            for i in range(2)
        ]
        with ledger.transaction() as transaction:
            transaction.append(entries)
        posted = repository.entries(window.budget_id, Window(window.start, NOW), limit=100)
        (stands,) = repository.balances([budget], at=NOW).values()
        assert sum(e.change.unenforced_nusd for e in posted) == stands.unenforced_nusd
        assert 0 < stands.unenforced_nusd <= MAX_NUSD


def test_a_call_that_says_it_ends_in_the_future_does_not_wait_until_then(
    metadata_engine: Engine, budget: Budget
) -> None:
    """Else any client escapes a hard budget by a wrong end time (algorithms L5)."""
    ledger = LedgerRepository(metadata_engine)
    posting = LedgerPosting(ledger, unenforced_grace_seconds=10)
    _lease_from(ledger, budget)
    posting.post(_unenforced(duration_us=500 * 365 * 86_400_000_000), NOW)
    posting.post(_unenforced().slice(0, 0), NOW + timedelta(seconds=11))
    (amounts,) = BudgetRepository(metadata_engine).balances([budget], at=NOW).values()
    assert 70 == amounts.unenforced_nusd


def test_a_span_of_the_future_does_not_pretend_that_data_is_complete(
    tmp_path: Path, span_rows: Rows
) -> None:
    """`data_through` never runs ahead of the clock (algorithms C8)."""
    store = DuckDbSpanStore(tmp_path / "spans.duckdb")
    ahead = NOW + timedelta(days=3_650)
    store.write(span_rows({"span_id": 1, "start_time": ahead}), batch_id="a")
    settle_tick(store, now=NOW, ledger=None)
    assert store.data_through((TENANT,)) == NOW
    store.close()


def test_every_storable_day_can_be_settled(tmp_path: Path, span_rows: Rows) -> None:
    """The first and last days that Python can name, and between them 2554, where OTLP ends."""
    store = DuckDbSpanStore(tmp_path / "spans.duckdb")
    years = (1, 1970, 2554, 9999)
    for span_id, year in enumerate(years, start=1):
        at = datetime(year, 1 if year == 1 else 12, 1 if year == 1 else 31, tzinfo=UTC)
        store.write(span_rows({"span_id": span_id, "start_time": at}), batch_id=str(year))
    settle_tick(store, now=NOW, ledger=None)
    for first, last in pairwise((*years, 9999)):
        start, end = datetime(first, 1, 1, tzinfo=UTC), datetime(last, 12, 31, 1, tzinfo=UTC)
        assert store.calls(CallQuery(tenants=(TENANT,), window=Window(start, end))).num_rows
    store.close()


def _around(at: datetime) -> Window:
    return Window(at - timedelta(hours=10), at + timedelta(hours=14))


def _lease_from(ledger: LedgerRepository, budget: Budget) -> None:
    lease = Lease(
        id="lease",
        window=WindowKey(budget.id, MONTH),
        holder="n",
        amount_nusd=10,
        open_nusd=10,
        state=LeaseState.GRANTED,
        granted_at=NOW,
        expires_at=NOW + timedelta(minutes=1),
        sweep_at=NOW + timedelta(minutes=1),
    )
    with ledger.transaction() as transaction:
        transaction.save_leases([lease])


def _unenforced(**fields: object) -> pa.Table:
    plain: dict[str, object] = {
        "call_id": "c",
        "domain": "default",
        "trace_hi": 0,
        "trace_lo": 1,
        "span_id": 1,
        "start_time": NOW,
        "version": 1,
        "reports": 1,
        "layers": "client",
        "enforced": False,
        "duration_us": 1,
        "service_name": "app",
        "dialect": "x",
        "status": "ok",
        "usage_state": "exact",
        "tenant": TENANT,
        "cost_nusd": 70,
        "cost_state": "priced",
        "sign": 1,
    }
    return pa.Table.from_pylist([{**plain, **fields}], schema=CHANGE_SCHEMA)
