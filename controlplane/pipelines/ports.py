"""What the flows ask of adapters, beyond the ports of the nouns they move."""

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from controlplane.ingest.join_keys import WeakEmitter
from controlplane.ingest.settlement import Settled, Unsettled
from controlplane.ingest.subjects import Erased, Subject
from controlplane.signals.ports import SpanWriter


class SettleStore(Protocol):
    """The half of a span store that settlement works on; one settler at a time."""

    def take(self) -> Unsettled:
        """Read the reports written since the last `apply`, with every report they can join.

        Takes at most a bounded number of spans; `through` says how far it got. Nothing changes.

        Raises:
            StoreUnavailableError: try again.
        """
        ...

    def apply(self, settled: Settled, *, now: datetime) -> int:
        """Replace the calls of the reports examined, mark old and new buckets, move the watermark.

        One transaction. Calls whose content did not change keep their version and mark nothing.
        Returns how many calls are new, changed or gone.

        Raises:
            StoreUnavailableError: nothing changed; take again.
        """
        ...

    def learn(self, *, now: datetime) -> tuple[WeakEmitter, ...]:
        """Keep which emitters gave different calls the same id lately; answer the new ones.

        What is learned is an input of settlement: it counts from the next full hour of start time
        on, so that no call that was settled is touched, and it is never unlearned. Looks at most
        once in a few minutes of `now`.
        """
        ...

    def roll_up(self, *, now: datetime) -> int:
        """Recompute the money cube of dirty (tenant, 15-minute) buckets that have come to rest.

        A bucket that still moves stays dirty, and readers take it from the calls: answers are
        exact either way. Returns how many buckets were recomputed.
        """
        ...

    def unposted(self) -> pa.Table:
        """Answer CHANGE_SCHEMA rows that `posted` was not told of, oldest version first."""
        ...

    def posted(self, version: int) -> None:
        """Forget the changes up to and including `version`: the ledger has them."""
        ...


class SpanSource(Protocol):
    """A store that gives back what was written to it."""

    def batches(self) -> Iterator[tuple[str, pa.Table]]:
        """Yield (batch id, SPAN_SCHEMA rows) of every batch as it was stored, oldest first."""
        ...

    def weak_emitters(self) -> tuple[WeakEmitter, ...]:
        """Answer everything that `SettleStore.learn` has learned."""
        ...

    def adjustments(self) -> pa.Table:
        """Answer everything that was booked beside calls, in the order of its booking."""
        ...

    def closings(self) -> pa.Table:
        """Answer CLOSING_SCHEMA rows: what was closed after which batch."""
        ...


class RebuildTarget(SpanWriter, SettleStore, Protocol):
    """An empty store that another is rebuilt into."""

    def take_over(self, weak: tuple[WeakEmitter, ...]) -> None:
        """Settle from now on with what another store had learned."""
        ...

    def take_adjustments(self, adjustments: pa.Table, *, now: datetime) -> None:
        """Keep what another store's `adjustments` answered, as posted.

        They are of all batches that were written, so settling these books nothing.
        """
        ...

    def close_before(self, before: datetime | None, *, zone: str, now: datetime) -> datetime | None:
        """Close what starts before an instant for batches that are written from now on."""
        ...


class SubjectStore(Protocol):
    """A span store that can forget a person."""

    def erase(self, subject: Subject, *, now: datetime, apply: bool) -> Erased:
        """Take a subject out of every span and call, with the attributes of their traces.

        Usage, cost and the calls themselves stay, and all sums with them. Spans of the subject
        that start before `now` and come later are stored without it, resends are duplicates as
        before. Twice is once. Without `apply` nothing changes, and the counts say what would.

        Raises:
            StoreUnavailableError: nothing changed.
        """
        ...


class LedgerPoster(Protocol):
    """Where what calls cost is posted against budgets."""

    def counts_calls(self) -> bool:
        """Whether there is a budget; while there is none, calls need not be read to post them.

        Raises:
            UnavailableError: the ledger can not be asked.
        """
        ...

    def post(self, changes: pa.Table, now: datetime) -> None:
        """Post CHANGE_SCHEMA rows; durable on return.

        A row with sign -1 is a call as it was posted before, +1 as it is now; the cost difference
        of any group of rows is `sum(sign * cost_nusd)`. All rows of one `version` come in one
        post; after a crash the same versions come again with the same rows, so (…, version) is
        an idempotency key.

        Raises:
            UnavailableError: nothing was posted; the rows come again at the next tick.
        """
        ...
