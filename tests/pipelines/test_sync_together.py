"""Syncs that share a transaction: each has its own answer, durable before it is sent (L9)."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial

import pytest

from controlplane.api.sync_group import SyncGroup
from controlplane.auth.principal import Principal, PrincipalKind
from controlplane.budgets.budget import Budget
from controlplane.budgets.ledger import WindowKey
from controlplane.budgets.ports import Ledger, LedgerTransaction
from controlplane.core.calendar import Period
from controlplane.core.errors import ConflictError, ControlPlaneError, ForbiddenError
from controlplane.core.ids import SequentialIds
from controlplane.pipelines.sync import SyncAnswer, SyncCall, SyncTools, sync_together
from controlplane.policy.wire import LeaseWant, Settle, SyncReply, SyncRequest
from controlplane.store.memory.ledger import MemoryLedger

NOW = datetime(2026, 11, 25, 10, tzinfo=UTC)
LIMIT = 1_000


class CountedLedger:
    """A ledger that counts its transactions and may fail one of them at its end."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.commits = 0
        self.fails_next = False

    @contextlib.contextmanager
    def transaction(self) -> Iterator[LedgerTransaction]:
        with self._ledger.transaction() as transaction:
            yield transaction
            if self.fails_next:
                self.fails_next = False
                raise ConflictError("somebody was faster")
            self.commits += 1


@pytest.fixture
def budget() -> Budget:
    return Budget(
        id="b",
        name="b",
        owner="o",
        tenant="acme",
        limit_nusd=LIMIT,
        period=Period.DAY,
        counts_from=NOW,
    )


@pytest.fixture
def ledger(budget: Budget) -> CountedLedger:
    return CountedLedger(MemoryLedger([budget]))


Reported = list[tuple[str, tuple[str, ...]]]


@pytest.fixture
def reported() -> Reported:
    return []


@pytest.fixture
def tools(ledger: CountedLedger, reported: Reported) -> SyncTools:
    def report(settles: Sequence[Settle], caller: Principal, _now: datetime) -> None:
        reported.append((caller.id, tuple(settle.hold_id for settle in settles)))

    return SyncTools(
        ledger=ledger, price_usage=lambda _settle: 7, report=report, ids=SequentialIds()
    )


def _call(
    budget: Budget,
    holder: str,
    *,
    want: int = 10,
    key: str = "k",
    tenant: str = "",
    **fields: object,
) -> SyncCall:
    request = SyncRequest(
        node=holder,
        boot_id=holder,
        scope="default",
        want=(LeaseWant(budget.id, want, want, 1),),
        **fields,  # type: ignore[arg-type]  # fields of SyncRequest
    )
    caller = Principal(
        id=key,
        kind=PrincipalKind.PROXY,
        name="p",
        scopes=frozenset(),
        tenants=(tenant or budget.tenant,),
    )
    return SyncCall(request=request, caller=caller, now=NOW)


def _granted(answer: SyncAnswer) -> int:
    assert isinstance(answer, SyncReply)
    return sum(grant.amount_nusd for grant in answer.grants)


def test_all_share_one_commit_and_none_is_granted_twice(
    tools: SyncTools, ledger: CountedLedger, budget: Budget
) -> None:
    calls = [_call(budget, f"h{number}", want=300) for number in range(5)]
    assert [300, 300, 300, 100, 0] == [_granted(one) for one in sync_together(calls, tools=tools)]
    assert 1 == ledger.commits
    key = WindowKey(budget.id, budget.window(NOW).start)
    with ledger.transaction() as transaction:
        assert LIMIT == transaction.amounts([key])[key].leased_nusd


def test_a_refused_call_leaves_the_others_alone(
    tools: SyncTools, ledger: CountedLedger, budget: Budget
) -> None:
    calls = [_call(budget, "a"), _call(budget, "b", tenant="stranger"), _call(budget, "c")]
    first, second, third = sync_together(calls, tools=tools)
    assert (10, 10) == (_granted(first), _granted(third))
    assert isinstance(second, ForbiddenError)
    assert 1 == ledger.commits


def test_when_the_transaction_fails_each_is_tried_alone(
    tools: SyncTools, ledger: CountedLedger, budget: Budget
) -> None:
    ledger.fails_next = True
    answers = sync_together([_call(budget, "a"), _call(budget, "b")], tools=tools)
    assert [10, 10] == [_granted(answer) for answer in answers]
    assert 2 == ledger.commits
    ledger.fails_next = True
    (answer,) = sync_together([_call(budget, "c")], tools=tools)
    assert isinstance(answer, ConflictError)


def test_settles_are_reported_once_a_key(
    tools: SyncTools, reported: Reported, budget: Budget
) -> None:
    def settle(hold_id: str) -> tuple[Settle, ...]:
        return (
            Settle(
                hold_id=hold_id,
                leases={},
                held_nusd=9,
                started_at=NOW,
                ended_at=NOW,
                provider="p",
                model="m",
                usage={"output_text": 1},
            ),
        )

    calls = [
        _call(budget, "a", key="k1", settle=settle("1")),
        _call(budget, "b", key="k2", settle=settle("2")),
        _call(budget, "c", key="k1", settle=settle("3")),
        _call(budget, "d", key="k3"),
    ]
    assert all(isinstance(answer, SyncReply) for answer in sync_together(calls, tools=tools))
    assert [("k1", ("1", "3")), ("k2", ("2",))] == reported


def test_what_comes_while_one_is_written_goes_together(
    tools: SyncTools, ledger: CountedLedger, budget: Budget
) -> None:
    """The first is not kept waiting; nobody's answer is another's."""

    async def ask() -> list[SyncReply | BaseException]:
        group = SyncGroup(partial(sync_together, tools=tools))
        calls = [_call(budget, f"h{number}", want=1 + number) for number in range(40)]
        calls[7] = _call(budget, "h7", tenant="stranger")
        return await asyncio.gather(*map(group.sync, calls), return_exceptions=True)

    answers = asyncio.run(ask())
    assert isinstance(answers[7], ForbiddenError)
    for number, answer in enumerate(answers):
        if number != 7:
            assert isinstance(answer, SyncReply)
            assert 1 + number == _granted(answer)
    assert ledger.commits <= 2


def test_a_failure_of_the_whole_group_reaches_everybody(budget: Budget) -> None:
    def broken(_calls: Sequence[SyncCall]) -> list[SyncAnswer]:
        raise OSError("disk")

    async def ask() -> list[SyncReply | BaseException]:
        group = SyncGroup(broken)
        calls = [_call(budget, "a"), _call(budget, "b")]
        return await asyncio.gather(*map(group.sync, calls), return_exceptions=True)

    assert [OSError, OSError] == [type(answer) for answer in asyncio.run(ask())]
    assert not issubclass(OSError, ControlPlaneError)
