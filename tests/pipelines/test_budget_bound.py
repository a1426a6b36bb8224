"""The promise, end to end without a network: real lease books of agents against the real ledger.

Holders admit on their own books, lose replies, die with calls in flight and come back with their
journal's word. What was really spent never passes the limit, and little of it is left unused.
"""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from controlplane.agent.lease import Instant
from controlplane.agent.lease_book import LeaseBook, Need
from controlplane.auth.principal import Principal, PrincipalKind
from controlplane.budgets.budget import Budget
from controlplane.budgets.ledger import Amounts, Entry, EntryKind, WindowKey
from controlplane.core.calendar import Period
from controlplane.core.ids import SequentialIds
from controlplane.pipelines.sync import SyncTools, sync
from controlplane.policy.wire import LeaseReturn, Settle, SyncReply, SyncRequest
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.migrate import migrate

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
CEILING = 1_000
PROXY = Principal(id="k", kind=PrincipalKind.PROXY, name="p", scopes=frozenset(), all_tenants=True)


class Proxy(msgspec.Struct):
    """One holder: its book, its open calls, and what it has not been acknowledged for."""

    name: str
    book: LeaseBook
    open: dict[str, tuple[dict[str, str], int]] = {}
    owed: dict[str, Settle] = {}
    returning: dict[str, LeaseReturn] = {}


class World:
    """A server, its proxies, and an upstream that knows what was really spent."""

    def __init__(self, path: Path, *, seed: int, limit_nusd: int, loss: float) -> None:
        engine = open_engine(f"sqlite:///{path}")
        migrate(engine)
        self.engine = engine
        self.random = random.Random(seed)
        self.limit_nusd = limit_nusd
        self.loss = loss
        self.now = NOW
        self.spent_nusd = 0
        self.serial = 0
        self.costs: dict[str, int] = {}
        BudgetRepository(engine).create(
            Budget(
                id="b",
                name="b",
                owner="o",
                tenant="t",
                limit_nusd=limit_nusd,
                period=Period.MONTH,
                counts_from=NOW,
            )
        )
        self.tools = SyncTools(
            ledger=LedgerRepository(engine),
            price_usage=lambda settle: self.costs[settle.hold_id],
            report=lambda _settles, _caller, _now: None,
            ids=SequentialIds(),
        )
        self.proxies = [Proxy(f"p{number}", LeaseBook()) for number in range(3)]

    def instant(self) -> Instant:
        return Instant(self.now, (self.now - NOW).total_seconds())

    def call(self, proxy: Proxy, ceiling: int) -> bool:
        """Admit a call on the proxy's own book; the upstream charges at most its ceiling."""
        leases = proxy.book.hold({"b": ceiling}, self.instant())
        if leases is None:
            return False
        self.serial += 1
        hold_id = f"hold{self.serial}"
        proxy.open[hold_id] = (leases, ceiling)
        self.costs[hold_id] = self.random.choice([ceiling, self.random.randint(0, ceiling)])
        self.spent_nusd += self.costs[hold_id]
        return True

    def end_calls(self, proxy: Proxy, *, known: bool = True) -> None:
        for hold_id, (leases, held) in proxy.open.items():
            proxy.owed[hold_id] = Settle(
                hold_id=hold_id,
                leases=leases,
                held_nusd=held,
                started_at=self.now,
                ended_at=self.now,
                provider="openai",
                model="m",
                usage={"output_text": 1} if known else None,
            )
        proxy.open = {}

    def talk(self, proxy: Proxy, need: int) -> SyncReply | None:
        """One sync; the request or the reply may be lost."""
        now = self.instant()
        closing = proxy.book.give_back({"b": need} if need else {}, now)
        proxy.returning.update((item.lease_id, item) for item in closing)
        needs = {"b": [Need(need, need)]} if need else {}
        wants = proxy.book.wants(needs, elapsed_seconds=0.5, now=now)
        request = SyncRequest(
            node=proxy.name,
            boot_id=proxy.name,
            settle=tuple(proxy.owed.values()),
            returns=tuple(proxy.returning.values()),
            want=wants,
        )
        if self.random.random() < self.loss:
            return None
        reply = sync(request, PROXY, self.now, tools=self.tools)
        if self.random.random() < self.loss:
            return None
        for hold_id in reply.settled:
            proxy.owed.pop(hold_id, None)
        for item in request.returns:
            proxy.returning.pop(item.lease_id, None)
        for grant in reply.grants:
            proxy.book.accept(grant, now)
        return reply

    def die(self, proxy: Proxy) -> None:
        """Leave leases and calls behind; a new process has an empty book and another name."""
        self.end_calls(proxy, known=False)
        journal = Proxy(proxy.name, LeaseBook(), owed=proxy.owed, returning=proxy.returning)
        for item in proxy.book.give_back_all():
            journal.returning[item.lease_id] = item
        self.serial += 1
        fresh = Proxy(f"p{self.serial}", LeaseBook())
        self.proxies[self.proxies.index(proxy)] = fresh
        if self.random.random() < 0.5:
            self.talk(journal, 0)  # the next process tells the journal's truth, or it is lost

    def run(self, rounds: int, *, deaths: float = 0.0) -> None:
        for _ in range(rounds):
            self.now += timedelta(seconds=self.random.choice([0.1, 0.5, 3.0]))
            proxy = self.random.choice(self.proxies)
            ceiling = self.random.randint(1, CEILING)
            for _ in range(self.random.randint(1, 4)):
                self.call(proxy, ceiling)
            if self.random.random() < 0.7:
                self.end_calls(proxy)
            if self.random.random() < deaths:
                self.die(proxy)
                continue
            self.talk(proxy, ceiling)
            assert self.spent_nusd <= self.limit_nusd


@pytest.mark.parametrize("seed", range(4))
def test_enforced_calls_never_pass_the_limit(tmp_path: Path, seed: int) -> None:
    """A tenth of all messages lost both ways, proxies dying with calls in flight."""
    world = World(tmp_path / "m.sqlite", seed=seed, limit_nusd=60 * CEILING, loss=0.1)
    world.run(300, deaths=0.03)
    for proxy in world.proxies:
        world.end_calls(proxy)
    reply = next(reply for _ in range(99) if (reply := world.talk(world.proxies[0], 0)))
    (standing,) = reply.standings
    assert 0 == standing.debt_nusd
    charged = standing.settled_enforced_nusd + standing.settled_unproven_nusd
    assert world.spent_nusd <= charged + standing.leased_nusd <= world.limit_nusd
    world.engine.dispose()


@pytest.mark.parametrize("seed", range(3))
def test_the_limit_is_used(tmp_path: Path, seed: int) -> None:
    """At a hundred calls a budget, at least 95 % of it buys something when nothing is lost."""
    world = World(tmp_path / "m.sqlite", seed=seed, limit_nusd=100 * CEILING, loss=0.0)
    world.run(400)
    for _ in range(3):
        for proxy in world.proxies:
            world.end_calls(proxy)
            world.talk(proxy, 0)
        world.now += timedelta(seconds=3)
    world.run(50)
    assert 0.95 <= world.spent_nusd / world.limit_nusd <= 1.0
    world.engine.dispose()


def test_the_test_would_notice_an_early_regrant(tmp_path: Path) -> None:
    """Planted: a server that forgets what a silent holder has lets the limit be passed (L2)."""
    world = World(tmp_path / "m.sqlite", seed=1, limit_nusd=60 * CEILING, loss=0.1)

    def forget() -> None:
        with world.tools.ledger.transaction() as ledger:
            (budget,) = ledger.budgets().values()
            window = budget.window(world.now)
            key = WindowKey("b", window.start)
            unproven = ledger.amounts([key]).get(key, Amounts()).unproven_nusd
            change = Amounts(unproven_nusd=-unproven)
            entry = Entry(
                window=key, key=f"{world.now}", kind=EntryKind.EXPIRE, at=world.now, change=change
            )
            ledger.append([entry] if unproven else [])

    def waste() -> None:
        for _ in range(60):
            world.run(10, deaths=0.2)
            world.now += timedelta(seconds=1_000)
            world.run(1)
            forget()

    with pytest.raises(AssertionError):
        waste()
    world.engine.dispose()
