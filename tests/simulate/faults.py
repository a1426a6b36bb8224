"""Faults that are planted in simulated worlds, to show that the simulator is able to fail."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from typing_extensions import override

from controlplane.agent.lease import Instant
from controlplane.agent.lease_book import LeaseBook
from controlplane.agent.runtime import Agent
from controlplane.bootstrap.simulation import memory_ledger
from controlplane.budgets.budget import Budget
from controlplane.budgets.ledger import Entry
from controlplane.budgets.ports import Ledger, LedgerTransaction
from controlplane.simulate.budget_proxy import Parts
from controlplane.simulate.budget_stage import World


class Altered:
    """A ledger whose entries are altered on their way in."""

    def __init__(self, ledger: Ledger, alter: Callable[[Entry], list[Entry]]) -> None:
        self._ledger = ledger
        self._alter = alter

    @contextlib.contextmanager
    def transaction(self) -> Iterator[LedgerTransaction]:
        with self._ledger.transaction() as transaction:
            append = transaction.append

            def altered(entries: Sequence[Entry]) -> None:
                append([after for entry in entries for after in self._alter(entry)])

            transaction.append = altered  # type: ignore[method-assign]  # the planted fault
            yield transaction


def altered_world(alter: Callable[[Entry], list[Entry]]) -> World:
    @contextlib.contextmanager
    def open_ledger() -> Iterator[tuple[Ledger, Callable[[Budget], None]]]:
        with memory_ledger() as (ledger, put_budget):
            yield Altered(ledger, alter), put_budget

    return World(open_ledger=open_ledger)


class EstimatingBook(LeaseBook):
    """Holds what most calls cost, not what they can cost (what L1 forbids)."""

    @override
    def hold(self, amounts: Mapping[str, int], now: Instant) -> dict[str, str] | None:
        return super().hold({key: int(0.6 * amount) for key, amount in amounts.items()}, now)

    @override
    def release(self, leases: Mapping[str, str], unused: Mapping[str, int]) -> dict[str, int]:
        super().release(leases, {key: int(0.6 * amount) for key, amount in unused.items()})
        return dict(unused)


def hold_the_p95() -> World:
    def make_agent(*arguments: object, **named: object) -> Agent:
        agent = Agent(*arguments, **named)  # type: ignore[arg-type]  # passed on as they came
        agent.holder.book = EstimatingBook()
        return agent

    return World(open_ledger=memory_ledger, parts=Parts(make_agent=make_agent))
