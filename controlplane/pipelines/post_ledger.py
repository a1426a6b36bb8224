"""Settled calls → budgets: what never asked is counted, what was held is corrected."""

from datetime import datetime, timedelta
from typing import Final

import polars as pl
import pyarrow as pa

from controlplane.budgets.ledger import Amounts, Entry, EntryKind, WindowKey
from controlplane.budgets.ports import Ledger, LedgerTransaction
from controlplane.budgets.posting import Known, Plan, changes_frame, plan, restatements

LEASED_WITHIN: Final = timedelta(minutes=15)
"""A budget that agents leased from this recently has calls that may be settled yet."""
MAX_OVERDUE: Final = 10_000


class LedgerPosting:
    """Implements `pipelines.ports.LedgerPoster`; called by the one settler."""

    def __init__(self, ledger: Ledger, *, unenforced_grace_seconds: float) -> None:
        self._ledger = ledger
        self._grace_seconds = unenforced_grace_seconds

    def counts_calls(self) -> bool:
        """See `LedgerPoster.counts_calls`."""
        with self._ledger.transaction() as ledger:
            return bool(ledger.budgets())

    def post(self, changes: pa.Table, now: datetime) -> None:
        """Post CHANGE_SCHEMA rows, and calls whose wait is over; durable on return.

        A settlement version is posted once, however often it comes. With no rows only the waits
        are looked at.

        Raises:
            UnavailableError: nothing was posted.
        """
        frame = changes_frame(changes)
        with self._ledger.transaction() as ledger:
            _post_overdue(ledger, now)
            versions = set(frame["version"].unique().to_list())
            fresh = versions - ledger.posted(versions)
            for version in sorted(fresh):
                rows = frame.filter(pl.col("version") == version)
                made = self._plan(ledger, rows, now)
                _write(ledger, made, now)
            ledger.save_posted(fresh, now=now)

    def restate(self, changes: pa.Table, now: datetime) -> None:
        """See `pipelines.rerate.Restater.restate`."""
        frame = changes_frame(changes)
        with self._ledger.transaction() as ledger:
            versions = set(frame["version"].unique().to_list())
            fresh = versions - ledger.posted(versions)
            rows = frame.filter(pl.col("version").is_in(fresh))
            ledger.append(restatements(rows, list(ledger.budgets().values()), now=now))
            ledger.save_posted(fresh, now=now)

    def _plan(self, ledger: LedgerTransaction, rows: pl.DataFrame, now: datetime) -> Plan:
        enforced = rows.filter(pl.col("enforced"))
        gone = rows.filter(pl.col("sign") < 0)
        known = Known(
            holds=ledger.holds_of_calls(
                enforced["response_id"].drop_nulls().unique().to_list(),
                enforced["gateway_call_id"].drop_nulls().unique().to_list(),
            ),
            waiting=ledger.waiting(gone["call_id"].to_list()),
            leased_budgets=ledger.leased_budgets(since=now - LEASED_WITHIN),
        )
        budgets = list(ledger.budgets().values())
        return plan(rows, budgets, known, now=now, grace_seconds=self._grace_seconds)


def _write(ledger: LedgerTransaction, made: Plan, now: datetime) -> None:
    ledger.append(made.entries(now))
    ledger.save_lines(made.lines)
    ledger.drop_waiting(made.settled_waits)
    ledger.save_waiting(made.waits)


def _post_overdue(ledger: LedgerTransaction, now: datetime) -> None:
    """Count the calls that waited in vain; their key is apart from that of their version's sum."""
    overdue = ledger.overdue_calls(now, limit=MAX_OVERDUE)
    sums: dict[tuple[WindowKey, int, datetime], int] = {}
    for call in overdue:
        key = (call.window, call.version, call.minute)
        sums[key] = sums.get(key, 0) + call.cost_nusd
    ledger.append(
        [
            Entry(
                window=window,
                key=f"waited:{version}:{minute:%Y%m%dT%H%M}:{now:%Y%m%dT%H%M%S.%f}",
                kind=EntryKind.CALLS,
                at=now,
                called_at=minute,
                change=Amounts(unenforced_nusd=nusd),
            )
            for (window, version, minute), nusd in sums.items()
            if nusd
        ]
    )
    ledger.drop_waiting(overdue)
