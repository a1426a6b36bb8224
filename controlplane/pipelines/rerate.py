"""A window re-rated: reports get the prices of a version, calls follow, the ledger is told once."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final, Protocol

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.core.calendar import Window
from controlplane.core.errors import UnavailableError
from controlplane.ingest.prompts import Reprice
from controlplane.pricing.price import reprice
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.rerate import RerateGroup, RerateOrder, group_adjustments

BASIS: Final = "calls"
"""Every call is priced again; sums of calls that are gone could only be re-rated as aggregates."""


class RerateStore(Protocol):
    """The half of a span store that re-rates; in the settler's thread."""

    def is_ready(self) -> bool:
        """Whether the ledger has every call as it is now; without that nothing may be applied."""
        ...

    def days(self, window: Window) -> list[Window]:
        """Return the parts of a window that have reports, ascending, each small enough to hold."""
        ...

    def preview(self, order: RerateOrder, day: Window, reprice: Reprice) -> pa.Table:
        """Answer the ADJUSTMENT_SCHEMA rows that `apply` would make of a day; nothing changes."""
        ...

    def apply(
        self, order: RerateOrder, day: Window, reprice: Reprice, *, now: datetime
    ) -> pa.Table:
        """Re-rate a day in one transaction and answer the adjustments made; none when done before.

        Raises:
            StoreUnavailableError: nothing of the day changed; call again.
        """
        ...

    def unposted(self) -> tuple[int, pa.Table]:
        """Answer the next posting `posted` was not told of and its CHANGE_SCHEMA rows; 0 is none."""
        ...

    def posted(self, posting: int) -> None:
        """Note that the ledger has every adjustment up to a posting."""
        ...


class Restater(Protocol):
    """Where adjustments are posted against budgets."""

    def restate(self, changes: pa.Table, now: datetime) -> None:
        """Post CHANGE_SCHEMA rows as restatements; a version is posted once however often it comes.

        Raises:
            UnavailableError: nothing was posted; the rows come again.
        """
        ...


class RerateReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a re-rate changed, or would change."""

    run_id: str
    price_version: str
    start: datetime
    end: datetime
    tenants: tuple[str, ...]
    is_applied: bool
    basis: str
    calls: int
    corrections: int
    """Calls of closed periods, corrected by rows of the open one."""
    old_nusd: int
    new_nusd: int
    groups: tuple[RerateGroup, ...]

    @property
    def moved_nusd(self) -> int:
        """New minus old."""
        return self.new_nusd - self.old_nusd


def preview_rerate(store: RerateStore, order: RerateOrder, book: PriceBook) -> RerateReport:
    """Answer what a re-rate would change; nothing changes.

    Raises:
        StoreUnavailableError: try again.
    """
    made = (store.preview(order, day, _with(book)) for day in _days(store, order))
    return _report(order, made, is_applied=False)


def apply_rerate(
    store: RerateStore, order: RerateOrder, book: PriceBook, *, now: datetime
) -> RerateReport:
    """Re-rate a window, day by day; done twice it changes nothing the second time.

    Raises:
        UnavailableError: the ledger is behind, or the store can not answer; call again: what was
            done stays, and the rest follows.
    """
    if not store.is_ready():
        raise UnavailableError("the ledger does not have every call yet; try again in a moment")
    made = (store.apply(order, day, _with(book), now=now) for day in _days(store, order))
    return _report(order, made, is_applied=True)


def post_adjustments(store: RerateStore, ledger: Restater, *, now: datetime) -> int:
    """Tell the ledger what re-rates changed since it was last told; return the rows."""
    told = 0
    while True:
        posting, changes = store.unposted()
        if not posting:
            return told
        ledger.restate(changes, now)
        store.posted(posting)
        told += changes.num_rows


def _with(book: PriceBook) -> Reprice:
    return lambda rows: reprice(rows, book)


def _days(store: RerateStore, order: RerateOrder) -> Iterator[Window]:
    """Cut the window where periods are closed, then into days."""
    window, closed = order.window, order.closed_before
    cuts = [window.start, window.end]
    if closed is not None and window.start < closed < window.end:
        cuts = [window.start, closed, window.end]
    for start, end in pairwise(cuts):
        yield from store.days(Window(start, end))


def _report(order: RerateOrder, made: Iterable[pa.Table], *, is_applied: bool) -> RerateReport:
    """Add up what each part made; no part is held longer than that."""
    corrections = 0

    def counted() -> Iterator[pa.Table]:
        nonlocal corrections
        for table in made:
            corrections += pc.sum(table.column("is_correction")).as_py() or 0
            yield table

    groups = group_adjustments(counted())
    return report_of(order, groups, is_applied=is_applied, corrections=corrections)


def report_of(
    order: RerateOrder, groups: Sequence[RerateGroup], *, is_applied: bool, corrections: int
) -> RerateReport:
    """Sum what a re-rate moved, or would move, by tenant and model."""
    return RerateReport(
        run_id=order.run_id,
        price_version=order.price_version,
        start=order.window.start,
        end=order.window.end,
        tenants=order.tenants,
        is_applied=is_applied,
        basis=BASIS,
        calls=sum(group.calls for group in groups),
        corrections=corrections,
        old_nusd=sum(group.old_nusd for group in groups),
        new_nusd=sum(group.new_nusd for group in groups),
        groups=tuple(groups),
    )
