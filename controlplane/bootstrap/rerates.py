"""Re-rates: run by the hub's settler when asked for over HTTP, or by the command on a file at rest."""

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import msgspec

from controlplane.bootstrap.metadata import open_metadata
from controlplane.bootstrap.offline import parse_instant
from controlplane.bootstrap.places import SPANS_FILE
from controlplane.bootstrap.price_books import LiveBook, open_book
from controlplane.bootstrap.system import SystemClock, UlidIds
from controlplane.core.calendar import Window
from controlplane.core.errors import ControlPlaneError, InvalidInputError, UnavailableError
from controlplane.core.money import format_usd
from controlplane.pipelines.post_ledger import LedgerPosting
from controlplane.pipelines.rerate import (
    RerateReport,
    RerateStore,
    apply_rerate,
    post_adjustments,
    preview_rerate,
)
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.history import version_name
from controlplane.pricing.price import reprice
from controlplane.pricing.rerate import RerateOrder, RerateRun, RerateRuns, RunState
from controlplane.settings import Settings
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.rerates import RerateRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

WAITING = (RunState.TO_PREVIEW, RunState.TO_APPLY)


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """Before which instant periods are closed, and in whose calendar."""

    before: datetime | None
    zone: str


class RerateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A report as it is shown: money is text."""

    run_id: str
    state: str
    price_version: str
    start: datetime
    end: datetime
    tenants: tuple[str, ...]
    basis: str
    calls: int
    corrections: int
    old_usd: str
    new_usd: str
    moved_usd: str
    groups: list[dict[str, object]]


def to_answer(report: RerateReport) -> RerateAnswer:
    """Cross to what people and the API are told."""
    return RerateAnswer(
        run_id=report.run_id,
        state=(RunState.APPLIED if report.is_applied else RunState.PREVIEWED).value,
        price_version=report.price_version,
        start=report.start,
        end=report.end,
        tenants=report.tenants,
        basis=report.basis,
        calls=report.calls,
        corrections=report.corrections,
        old_usd=format_usd(report.old_nusd),
        new_usd=format_usd(report.new_nusd),
        moved_usd=format_usd(report.moved_nusd),
        groups=[
            {
                "tenant": group.tenant,
                "model": group.model,
                "calls": group.calls,
                "newly_priced": group.newly_priced,
                "old_usd": format_usd(group.old_nusd),
                "new_usd": format_usd(group.new_nusd),
                "moved_usd": format_usd(group.moved_nusd),
            }
            for group in report.groups
        ],
    )


def run_waiting(
    store: RerateStore,
    runs: RerateRuns,
    *,
    book: LiveBook,
    ledger: LedgerPosting,
    closing: Closing,
    now: datetime,
) -> None:
    """Run what was asked for, oldest first; in the settler's thread, between two ticks.

    Raises:
        UnavailableError: the store or the ledger can not answer; the run waits for the next tick.
    """
    for run in reversed(runs.runs(states=WAITING)):
        order = to_order(run, closing)
        try:
            chosen = book.of_version(run.price_version)
            if run.state is RunState.TO_APPLY:
                report = apply_rerate(store, order, chosen, now=now)
            else:
                report = preview_rerate(store, order, chosen)
        except UnavailableError:
            raise
        except ControlPlaneError as wrong:
            runs.done(run.id, state=RunState.FAILED, report=str(wrong), now=now)
            continue
        state = RunState.APPLIED if report.is_applied else RunState.PREVIEWED
        text = msgspec.json.encode(to_answer(report)).decode()
        runs.done(run.id, state=state, report=text, now=now)
    post_adjustments(store, ledger, now=now)


def to_order(run: RerateRun, closing: Closing) -> RerateOrder:
    """Return what a run asks of the store."""
    return RerateOrder(
        run_id=run.id,
        window=Window(run.window_start, run.window_end),
        price_version=version_name(run.price_version),
        tenants=run.tenants,
        closed_before=closing.before,
        zone=closing.zone,
    )


class AskedRerate(msgspec.Struct, frozen=True, kw_only=True):
    """A re-rate as it is said on the command line."""

    start: str
    end: str
    price_version: int | None
    tenants: tuple[str, ...]
    is_to_apply: bool


def rerate(settings: Settings, asked: AskedRerate) -> RerateAnswer:
    """Re-rate the span store's file; the hub must not be running on it.

    Raises:
        InvalidInputError: a wrong option.
        NotFoundError: no such price version.
        StoreUnavailableError: the hub owns the file: ask its API, `POST /api/v1/rerates`.
    """
    window = Window(parse_instant(asked.start, "start"), parse_instant(asked.end, "end"))
    if window.start >= window.end:
        raise InvalidInputError("end", "is not after start", "Windows are half-open")
    store = DuckDbSpanStore(settings.data_dir / SPANS_FILE)
    engine = open_metadata(settings)
    try:
        book, now = open_book(settings, engine), SystemClock().now()
        ledger = LedgerPosting(
            LedgerRepository(engine),
            unenforced_grace_seconds=settings.budgets.unenforced_grace_seconds,
        )
        settle_all(store, ledger, book=book, now=now)
        run = RerateRun(
            id=UlidIds().new("rerate"),
            state=RunState.TO_APPLY if asked.is_to_apply else RunState.TO_PREVIEW,
            window_start=window.start,
            window_end=window.end,
            tenants=asked.tenants,
            price_version=asked.price_version or book.newest(),
            asked_by="command line",
            asked_at=now,
        )
        book.of_version(run.price_version)
        runs = RerateRepository(engine)
        runs.add(run)
        run_waiting(
            store.rerates,
            runs,
            book=book,
            ledger=ledger,
            closing=closing_of(settings),
            now=now,
        )
        done = runs.get(run.id)
        return msgspec.json.decode(done.report or "", type=RerateAnswer)
    finally:
        store.close()
        engine.dispose()


def settle_all(
    store: DuckDbSpanStore, ledger: LedgerPosting, *, book: LiveBook, now: datetime
) -> None:
    """Settle and post what the last run of the hub left."""
    through = -1
    while True:
        done = settle_tick(
            store, now=now, ledger=ledger, reprice=lambda rows: reprice(rows, book.current())
        )
        if done.through == through:
            return
        through = done.through


def closing_of(settings: Settings) -> Closing:
    """Return what is closed: all before a midnight in the organisation's zone."""
    day, zone = settings.closed_before, settings.zone
    if day is None:
        return Closing(before=None, zone=zone)
    return Closing(
        before=datetime.combine(day, time.min, ZoneInfo(zone)).astimezone(UTC), zone=zone
    )
