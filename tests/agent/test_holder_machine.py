"""One holder under any order of grants, holds, ends, returns and answers, some of them lost.

The machine plays the server in plain sums. At every moment the journal, read by another process,
tells what the holder has; and the holder never has more than the server holds open for it.
"""

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from typing_extensions import override

from controlplane.agent.holder import Holder
from controlplane.agent.journal import replay
from controlplane.agent.lease import Instant
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import Ending, Hold
from controlplane.policy.document import RatePerMillion
from controlplane.policy.wire import Generation, Grant, LeaseReturn, SyncReply

START = datetime(2026, 11, 25, tzinfo=UTC)
TTL_SECONDS = 60.0
RATE = RatePerMillion(input_nusd=0, output_nusd=1_000_000)
"""One nano-USD per token."""
BUDGETS = ("a", "b")


class HolderMachine(RuleBasedStateMachine):
    """A holder of two budgets, and a server that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.holder = Holder(
            AgentSettings(
                server_url="http://127.0.0.1:1",
                api_key="k",
                policy_keys={"k": "x"},
                state_dir=self.folder,
            )
        )
        self.seconds = 0.0
        self.serial = 0
        self.open: dict[str, int] = {}
        """By lease: what the server still counts as the holder's."""
        self.settled: set[str] = set()
        self.holds: dict[str, dict[str, str]] = {}

    @override
    def teardown(self) -> None:
        self.holder.journal.close()
        shutil.rmtree(self.folder)

    def now(self) -> Instant:
        return Instant(START + timedelta(seconds=self.seconds), self.seconds)

    def name(self, kind: str) -> str:
        self.serial += 1
        return f"{kind}{self.serial}"

    @rule(budget=st.sampled_from(BUDGETS), amount=st.integers(1, 500))
    def grant(self, budget: str, amount: int) -> None:
        lease_id = self.name("lease")
        self.open[lease_id] = amount
        ends = START + timedelta(seconds=self.seconds + TTL_SECONDS)
        self.holder.granted(Grant(budget, lease_id, amount, TTL_SECONDS, ends), self.now())

    @rule(amount=st.integers(1, 200), budgets=st.sets(st.sampled_from(BUDGETS), min_size=1))
    def hold(self, amount: int, budgets: set[str]) -> None:
        before = {budget: self.holder.book.left_nusd(budget) for budget in BUDGETS}
        leases = self.holder.book.hold(dict.fromkeys(budgets, amount), self.now())
        after = {budget: self.holder.book.left_nusd(budget) for budget in BUDGETS}
        taken = dict.fromkeys(budgets, amount) if leases else {}
        assert {b: before[b] - taken.get(b, 0) for b in BUDGETS} == after  # all or none
        if leases is None:
            return
        hold_id = self.name("hold")
        self.holds[hold_id] = leases
        self.holder.queue.opened(
            Hold(
                hold_id=hold_id,
                leases=leases,
                held_nusd=amount,
                rate=RATE,
                started=self.now(),
                provider="p",
                model="m",
            )
        )

    @rule(data=st.data(), used=st.one_of(st.none(), st.integers(0, 300)))
    def end(self, data: st.DataObject, used: int | None) -> None:
        """End a call, or say again how one ended."""
        if not self.holds:
            return
        hold_id = data.draw(st.sampled_from(sorted(self.holds)))
        usage = None if used is None else {"output_text": used}
        was_open = self.holder.queue.is_open(hold_id)
        ended = self.holder.ended(hold_id, Ending(ended_at=self.now().wall, usage=usage))
        assert was_open == (ended is not None)

    @rule(seconds=st.sampled_from([0.1, 3.0, 50.0]))
    def wait(self, seconds: float) -> None:
        self.seconds += seconds

    @rule(need=st.integers(0, 300), is_answered=st.booleans())
    def sync(self, need: int, *, is_answered: bool) -> None:
        """The request arrives; its answer may be lost, and is then said again."""
        closing = self.holder.book.give_back(dict.fromkeys(BUDGETS, need), self.now())
        returns = self.holder.returns(closing)
        batch = self.holder.queue.batch()
        for said in batch:
            if said.hold_id not in self.settled:
                self.settled.add(said.hold_id)
                for budget, lease_id in said.leases.items():
                    self.open[lease_id] -= said.held.get(budget, said.held_nusd)
        self._free(returns)
        if is_answered:
            reply = SyncReply(
                generation=Generation(1, 1),
                settled=tuple(said.hold_id for said in batch),
                server_time=self.now().wall,
            )
            self.holder.acknowledged(reply, returns)

    def _free(self, returns: tuple[LeaseReturn, ...]) -> None:
        for item in returns:
            if f"return:{item.lease_id}" not in self.settled:
                self.settled.add(f"return:{item.lease_id}")
                self.open[item.lease_id] -= item.unspent_nusd

    @rule()
    def compact(self) -> None:
        self.holder.journal.compact(self.holder._live())

    @invariant()
    def server_has_all_of_it_open(self) -> None:
        """Left, held and unsaid come to what the server counts, lease by lease."""
        claimed = dict.fromkeys(self.open, 0)
        for lease in self.holder.book.leases:
            claimed[lease.lease_id] += lease.left_nusd
        for item in self.holder._returning.values():
            if f"return:{item.lease_id}" not in self.settled:
                claimed[item.lease_id] += item.unspent_nusd
        for hold_id, leases in self.holds.items():
            hold = self.holder.queue.find(hold_id)
            for budget, lease_id in leases.items():
                claimed[lease_id] += hold.held(budget) if hold else 0
        for said in self.holder.queue.batch():
            if said.hold_id not in self.settled:
                for budget, lease_id in said.leases.items():
                    claimed[lease_id] += said.held.get(budget, said.held_nusd)
        assert self.open == claimed
        assert all(amount >= 0 for amount in self.open.values())

    @invariant()
    def journal_tells_the_same(self) -> None:
        """What a process that finds the journal would report."""
        remains = replay(self.holder.journal.path)
        left = {lease.lease_id: lease.left_nusd for lease in self.holder.book.leases}
        left |= {one.lease_id: one.unspent_nusd for one in self.holder._returning.values()}
        assert left == remains.left_nusd
        assert {one.hold_id: one for one in self.holder.queue.batch()} == remains.settles
        still_open = {hold_id for hold_id in self.holds if self.holder.queue.is_open(hold_id)}
        assert still_open == set(remains.open_holds)

    @invariant()
    def nothing_is_held_after_its_end(self) -> None:
        living = {
            lease.budget_id: max(lease.left_nusd, 0)
            for lease in self.holder.book.leases
            if lease.life_left_seconds(self.now()) > 0
        }
        fits = self.holder.book.fits(BUDGETS, self.now())
        assert all(fits[budget] == 0 or budget in living for budget in BUDGETS)


def test_a_holder_and_its_journal_never_disagree(*, full_size: bool) -> None:
    """Every invariant, over random histories."""
    run_state_machine_as_test(
        HolderMachine,
        settings=settings(
            max_examples=2_000 if full_size else 60,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
