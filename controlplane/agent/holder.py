"""One process as a lease holder: its book, its journal and what it owes; and the dead before it."""

import contextlib
import fcntl
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from controlplane.agent.clock import THIS_MACHINE, Machine
from controlplane.agent.journal import Held, Journal, LeaseOpened, Record, Remains, replay
from controlplane.agent.lease import Instant
from controlplane.agent.lease_book import LeaseBook
from controlplane.agent.log import say
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import Ending, Hold, SettleQueue, unused
from controlplane.agent.tally import Tally
from controlplane.policy.wire import MAX_SYNC_ITEMS, Grant, LeaseReturn, SyncReply

_PATTERN: Final = "journal-*.jsonl"


class Ended(msgspec.Struct, frozen=True):
    """A hold that has just ended."""

    hold: Hold
    is_released: bool
    """Whether something of it can be held again at once."""


class Holder:
    """Everything that belongs to this process and to no other (algorithms L11)."""

    def __init__(self, settings: AgentSettings, machine: Machine = THIS_MACHINE) -> None:
        self._machine = machine
        self.name = machine.name_holder()
        self.lock = threading.RLock()
        """Guards the book, the queue and the journal: calls are admitted in any thread."""
        self._dir = settings.state_dir
        path = self._dir / f"journal-{self.name.replace(':', '-')}.jsonl"
        self.journal = Journal(path, holder=self.name, scope=settings.scope)
        self.book = LeaseBook()
        self.queue = SettleQueue(self.journal)
        self.tally = Tally()
        self._returning: dict[str, LeaseReturn] = {}
        self._seq = 0

    def granted(self, grant: Grant, asked: Instant, *, least_nusd: int = 0) -> None:
        """Take a lease in, or that there is not so much; it is journalled before the first hold on it."""
        if grant.amount_nusd > 0:
            self.journal.append(LeaseOpened(grant.lease_id, grant.budget_id, grant.amount_nusd))
        self.book.accept(grant, asked, least_nusd=least_nusd)

    def ended(self, hold_id: str, ending: Ending) -> Ended | None:
        """End a hold: what the call did not use goes back into its leases; None when not open."""
        hold = self.queue.find(hold_id)
        if hold is None:
            return None
        released = self.book.release(hold.leases, unused(hold, ending))
        self.queue.ended(hold_id, ending, released=released)
        return Ended(hold, is_released=bool(released))

    def next_seq(self) -> int:
        """Number the next request of this holder."""
        self._seq += 1
        return self._seq

    def known_leases(self) -> tuple[str, ...] | None:
        """Return every lease that was received and is not given back for certain; None: too many."""
        known = (*(lease.lease_id for lease in self.book.leases), *self._returning)
        return known if len(known) <= MAX_SYNC_ITEMS else None

    def returns(self, closing: tuple[LeaseReturn, ...]) -> tuple[LeaseReturn, ...]:
        """Return what must be given back now, what was sent without an answer included."""
        self._returning.update((item.lease_id, item) for item in closing)
        return tuple(islice(self._returning.values(), MAX_SYNC_ITEMS))

    def acknowledged(self, reply: SyncReply, sent: tuple[LeaseReturn, ...]) -> None:
        """Forget what the server has made durable, and shorten the journal when it is long."""
        closed = tuple(item.lease_id for item in sent)
        for lease_id in closed:
            self._returning.pop(lease_id, None)
        self.queue.acknowledged(reply, closed)
        if self.journal.wants_compaction:
            try:
                self.journal.compact(self._live())
            except OSError as wrong:  # it stays long, and whole
                say("journal_not_compacted", error=wrong.strerror)

    def _live(self) -> list[Record]:
        """Return the records from which `replay` finds the state as it is now."""
        rest = self.queue.records()
        held: dict[str, int] = {}
        for record in rest:
            if isinstance(record, Held):
                for budget_id, lease_id in record.leases.items():
                    amount = record.held.get(budget_id, record.held_nusd)
                    held[lease_id] = held.get(lease_id, 0) + amount
        left = [(lease.lease_id, lease.budget_id, lease.left_nusd) for lease in self.book.leases]
        left += [(item.lease_id, "", item.unspent_nusd) for item in self._returning.values()]
        leases: list[Record] = [
            LeaseOpened(lease_id, budget_id, amount + held.get(lease_id, 0))
            for lease_id, budget_id, amount in left
        ]
        return leases + rest

    def dead(self) -> Iterator[tuple[Path, Remains]]:
        """Yield the journals whose holder no longer lives, each locked while it is looked at."""
        for path in sorted(self._dir.glob(_PATTERN)):
            if path == self.journal.path:
                continue
            with contextlib.suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remains = replay(path)
                if remains.holder and self._machine.lives(remains.holder):
                    continue
                if not self._machine.same_boot(remains.holder):
                    remains.is_whole = False
                    remains.left_nusd.clear()  # the tail may be missing: nothing is given back
                yield path, remains

    def abandon(self) -> None:
        """Let go without a word: the parent of a fork still owns all of it."""
        self.queue.forget_all()
        self.book.give_back_all()
        self.journal.let_go()

    def close(self) -> None:
        """Close the journal, and remove it when nothing is owed."""
        is_clear = not (self._returning or self.queue.pending or self.queue.unsettled)
        self.journal.close()
        if is_clear and not self.book.leases:
            self.journal.path.unlink()
