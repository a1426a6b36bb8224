"""What proxies may spend while the server is out of reach: more is served, and nothing is over."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import pytest

from controlplane.bootstrap.simulation import memory_ledger
from controlplane.budgets.budget import Budget
from controlplane.budgets.ledger import Entry, EntryKind
from controlplane.budgets.ports import Ledger, LedgerTransaction
from controlplane.simulate.budget_schedule import (
    Event,
    Kind,
    Schedule,
    Weather,
    draw,
)
from controlplane.simulate.budget_stage import World
from controlplane.simulate.budget_world import simulate

HOLDS: Final = 60
ESCROW: Final = 5
RUNS: Final = 12


def _cut_off(number: int, *, escrow: int) -> Schedule:
    """Two proxies with short leases lose the server in turn, early on, for twelve seconds each."""
    drawn = draw(f"escrow:{number}", weather=Weather.STORMY, holds=HOLDS)
    cuts = tuple(
        Event(at_seconds=3.0 + proxy, kind=Kind.PARTITION, proxy=proxy, for_seconds=6.0)
        for proxy in range(2)
    )
    others = tuple(one for one in drawn.events if one.proxy < 2 and one.kind is not Kind.DEARER)
    return msgspec.structs.replace(
        drawn,
        proxies=2,
        idle_proxies=0,
        lease_ttl_seconds=5.0,
        parent_ratio=None,
        escrow_holds=escrow,
        events=tuple(sorted((*others, *cuts), key=lambda one: one.at_seconds)),
    )


def test_isolated_proxies_spend_their_escrow_and_nothing_else() -> None:
    served = {0: 0, ESCROW: 0}
    for escrow in served:
        for number in range(RUNS):
            outcome = simulate(_cut_off(number, escrow=escrow), World(open_ledger=memory_ledger))
            assert (0, True) == (outcome.overspend_nusd, outcome.is_conserved), number
            served[escrow] += outcome.admitted
    assert served[ESCROW] > served[0]


class Forgetful:
    """A ledger that does not count what it grants as escrow: the planted fault."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.forgotten = 0
        self.escrow_nusd = 0

    @contextlib.contextmanager
    def transaction(self) -> Iterator[LedgerTransaction]:
        with self._ledger.transaction() as transaction:
            append = transaction.append

            def forgetting(entries: Sequence[Entry]) -> None:
                kept = [entry for entry in entries if not self._is_escrow(entry)]
                self.forgotten += len(entries) - len(kept)
                append(kept)

            transaction.append = forgetting  # type: ignore[method-assign]  # the planted fault
            yield transaction

    def _is_escrow(self, entry: Entry) -> bool:
        return entry.kind is EntryKind.GRANT and entry.change.leased_nusd == self.escrow_nusd


@contextlib.contextmanager
def _forgetful() -> Iterator[tuple[Ledger, Callable[[Budget], None]]]:
    with memory_ledger() as (ledger, put_budget):
        forgetful = Forgetful(ledger)

        def put(budget: Budget) -> None:
            forgetful.escrow_nusd = budget.escrow_nusd
            put_budget(budget)

        yield forgetful, put
        assert forgetful.forgotten


def test_escrow_that_is_not_counted_is_overspend() -> None:
    for number in range(RUNS):
        if simulate(_cut_off(number, escrow=ESCROW), World(open_ledger=_forgetful)).overspend_nusd:
            return
    pytest.fail("no run showed the fault")
