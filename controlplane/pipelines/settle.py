"""New reports -> calls, each counted once -> dirty buckets rolled up -> ledger posted."""

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from controlplane.core.errors import UnavailableError
from controlplane.ingest.calls import settle
from controlplane.ingest.join_keys import WeakEmitter
from controlplane.ingest.prompts import Reprice
from controlplane.ingest.settlement import CHANGE_SCHEMA, Unsettled
from controlplane.pipelines.ports import LedgerPoster, RebuildTarget, SettleStore, SpanSource

COMES_TO_REST: Final = timedelta(hours=1)
"""Longer than any store lets a bucket that no longer changes wait."""


class SettleOutcome(msgspec.Struct, frozen=True):
    """What one tick did."""

    through: int
    """The last batch settled."""
    reports: int
    """Reports looked at: new ones, and old ones that they can join."""
    changed_calls: int
    rolled_up_buckets: int
    posted_changes: int
    is_ledger_behind: bool
    """The ledger could not take the changes; they wait and come again."""
    split_calls: int = 0
    """Calls that came of more reports than one call has: somebody's ids are mixed up."""
    has_long_chains: bool = False
    """Keys lead from report to report further than any call reaches: ids are mixed up, too."""
    learned: tuple[WeakEmitter, ...] = ()
    """Emitters found to give different calls the same id: theirs join nothing any more."""


def settle_tick(
    store: SettleStore,
    *,
    now: datetime,
    ledger: LedgerPoster | None,
    reprice: Reprice | None = None,
    repin: Reprice | None = None,
) -> SettleOutcome:
    """Settle what was written since the last tick; cost is in proportion to what is new.

    `reprice` prices usage that was added up from several reports (`ingest.calls.settle`), `repin`
    what was re-rated, as it was re-rated: reports of closed periods carry the price from before.

    Safe to stop at any point and to call again: each step is one transaction and finds what the
    one before left. A ledger that is down delays posting, never pages.

    Raises:
        StoreUnavailableError: the span store can not answer; call again.
    """
    unsettled = store.take()
    if repin is not None:
        unsettled = _closed_as_booked(unsettled, repin)
    settled = settle(unsettled, reprice=reprice)
    changed = store.apply(settled, now=now)
    rolled_up = store.roll_up(now=now)
    learned = store.learn(now=now)
    if ledger is None:
        store.posted(settled.through)
        posted, is_behind = 0, False
    else:
        posted, is_behind = _post(store, ledger, through=settled.through, now=now)
    return SettleOutcome(
        through=settled.through,
        reports=unsettled.lone_reports + unsettled.grouped.num_rows,
        changed_calls=changed,
        rolled_up_buckets=rolled_up,
        posted_changes=posted,
        is_ledger_behind=is_behind,
        split_calls=settled.split_calls,
        has_long_chains=unsettled.has_long_chains,
        learned=learned,
    )


def rebuild(
    source: SpanSource,
    target: RebuildTarget,
    *,
    now: datetime,
    reprice: Reprice | None = None,
    repin: Reprice | None = None,
) -> int:
    """Make calls and cube anew from raw spans, in an empty store; return the batches read.

    What was booked about closed periods is in no span: it is taken over as it is, and periods are
    closed after the same batches. The source must have settled what it has.

    What the target answers afterwards is what the source must answer: settlement does not depend
    on when reports arrived. The ledger is not posted to again.
    """
    batches = 0
    target.take_over(source.weak_emitters())
    closings = source.closings().to_pylist()
    _close(target, closings, after=None)
    for batch_id, spans in source.batches():
        target.write(spans, batch_id=batch_id)
        _close(target, closings, after=batch_id)
        batches += 1
    target.take_adjustments(source.adjustments(), now=now)
    settled = -1
    while True:
        done = settle_tick(target, now=now, ledger=None, reprice=reprice, repin=repin)
        if done.through == settled:
            break
        settled = done.through
    while target.roll_up(now=now + COMES_TO_REST):
        pass
    return batches


def _close(target: RebuildTarget, closings: list[dict[str, Any]], *, after: str | None) -> None:
    for closing in closings:
        if closing["batch_id"] == after:
            target.close_before(closing["before"], zone=closing["zone"], now=closing["closed_at"])


def _closed_as_booked(unsettled: Unsettled, reprice: Reprice) -> Unsettled:
    """Give closed reports the prices that corrections gave their calls: only rows of now changed."""
    if unsettled.closed_before is None or not unsettled.grouped.num_rows:
        return unsettled
    grouped = unsettled.grouped
    starts = grouped.column("start_time")
    closed: Any = pc.less(starts, pa.scalar(unsettled.closed_before, starts.type))
    rated = reprice(grouped.filter(closed)).select(grouped.schema.names).cast(grouped.schema)
    return replace(unsettled, grouped=pa.concat_tables([rated, grouped.filter(pc.invert(closed))]))


def _post(
    store: SettleStore, ledger: LedgerPoster, *, through: int, now: datetime
) -> tuple[int, bool]:
    try:
        if not ledger.counts_calls():
            ledger.post(CHANGE_SCHEMA.empty_table(), now)
            store.posted(through)
            return 0, False
        changes = store.unposted()
        ledger.post(changes, now)  # without rows too: calls whose wait for an agent is over
    except UnavailableError:
        return 0, True
    store.posted(through)  # batches that changed no call too, or a re-rate would wait for them
    return changes.num_rows, False
