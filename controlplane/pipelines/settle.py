"""New reports -> calls, each counted once -> dirty buckets rolled up -> ledger posted."""

from datetime import datetime

import msgspec
import pyarrow.compute as pc

from controlplane.core.errors import UnavailableError
from controlplane.ingest.calls import settle
from controlplane.pipelines.ports import LedgerPoster, SettleStore


class SettleOutcome(msgspec.Struct, frozen=True):
    """What one tick did."""

    reports: int
    """Reports looked at: new ones, and old ones that they can join."""
    changed_calls: int
    rolled_up_buckets: int
    posted_changes: int
    is_ledger_behind: bool
    """The ledger could not take the changes; they wait and come again."""


def settle_tick(store: SettleStore, *, now: datetime, ledger: LedgerPoster | None) -> SettleOutcome:
    """Settle what was written since the last tick; cost is in proportion to what is new.

    Safe to stop at any point and to call again: each step is one transaction and finds what the
    one before left. A ledger that is down delays posting, never pages.

    Raises:
        StoreUnavailableError: the span store can not answer; call again.
    """
    unsettled = store.take()
    settled = settle(unsettled)
    changed = store.apply(settled, now=now)
    rolled_up = store.roll_up(now=now)
    if ledger is None:
        store.posted(settled.through)
        posted, is_behind = 0, False
    else:
        posted, is_behind = _post(store, ledger, now=now)
    return SettleOutcome(
        reports=unsettled.lone_reports + unsettled.grouped.num_rows,
        changed_calls=changed,
        rolled_up_buckets=rolled_up,
        posted_changes=posted,
        is_ledger_behind=is_behind,
    )


def _post(store: SettleStore, ledger: LedgerPoster, *, now: datetime) -> tuple[int, bool]:
    changes = store.unposted()
    if changes.num_rows == 0:
        return 0, False
    newest = pc.max(changes.column("version")).as_py()
    try:
        ledger.post(changes, now)
    except UnavailableError:
        return 0, True
    store.posted(newest)
    return changes.num_rows, False
