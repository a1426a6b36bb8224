"""Re-rates: run by the hub's settler when asked for, or by the command on a file at rest."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Engine

from controlplane.bootstrap.metadata import open_metadata
from controlplane.bootstrap.offline import parse_instant
from controlplane.bootstrap.places import SPANS_FILE
from controlplane.bootstrap.price_books import LiveBook, open_book
from controlplane.bootstrap.remote import RemoteApi
from controlplane.bootstrap.system import SystemClock, UlidIds
from controlplane.core.calendar import Window
from controlplane.core.errors import (
    ControlPlaneError,
    InvalidInputError,
    StoreUnavailableError,
    UnavailableError,
)
from controlplane.pipelines.post_ledger import LedgerPosting
from controlplane.pipelines.rerate import (
    RerateStore,
    apply_rerate,
    post_adjustments,
    preview_rerate,
)
from controlplane.pipelines.rerate_answer import RerateAnswer, to_answer
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.history import version_name
from controlplane.pricing.price import repin, reprice
from controlplane.pricing.rerate import RerateOrder, RerateRun, RerateRuns, RunState
from controlplane.settings import Settings
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.rerates import RerateRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

WAITING = (RunState.TO_PREVIEW, RunState.TO_APPLY)
POLL_SECONDS = 0.2
MOST_SECONDS = 1_800.0


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """Before which instant periods are closed, and in whose calendar."""

    before: datetime | None
    zone: str


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

    def window(self) -> Window:
        """Read the window.

        Raises:
            InvalidInputError: an end that is none.
        """
        window = Window(parse_instant(self.start, "start"), parse_instant(self.end, "end"))
        if window.start >= window.end:
            raise InvalidInputError("end", "is not after start", "Windows are half-open")
        return window


def rerate(settings: Settings, asked: AskedRerate) -> RerateAnswer:
    """Re-rate the span store's file at rest, or have the hub that owns it do so.

    Raises:
        InvalidInputError: a wrong option.
        NotFoundError: no such price version.
        UnavailableError: the hub did not come to it, or it failed.
    """
    window = asked.window()
    engine = open_metadata(settings)
    try:
        book, now = open_book(settings, engine), SystemClock().now()
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
        store = _open_unless_owned(settings)
        runs.add(run)  # a hub that owns the file looks here after every settlement
        if store is not None:
            try:
                _run_here(settings, store, engine, book=book, now=now)
            finally:
                store.close()
        return finished(run.id, lambda: _told(runs.get(run.id)))
    finally:
        engine.dispose()


def _open_unless_owned(settings: Settings) -> DuckDbSpanStore | None:
    try:
        return DuckDbSpanStore(settings.data_dir / SPANS_FILE)
    except StoreUnavailableError:
        return None


def rerate_remotely(api: RemoteApi, asked: AskedRerate) -> RerateAnswer:
    """Have a running system re-rate; its report is the same.

    Raises:
        ControlPlaneError: as `rerate`.
    """
    window = asked.window()
    order = {
        "start": window.start,
        "end": window.end,
        "price_version": asked.price_version,
        "tenants": asked.tenants,
        "apply": asked.is_to_apply,
    }
    run_id = api.post("/rerates", order)["id"]

    def told() -> _Told:
        return api.get_as(f"/rerates/{run_id}", _Told)

    return finished(run_id, told)


class _Told(msgspec.Struct, frozen=True):
    """What is known of a run; neither while it waits. A view of the API has more fields."""

    report: RerateAnswer | None
    problem: str | None


def finished(run_id: str, told: Callable[[], _Told]) -> RerateAnswer:
    """Wait for a run and return its report.

    Raises:
        UnavailableError: it failed, or nobody ran it.
    """
    tries = int(MOST_SECONDS / POLL_SECONDS)
    for _ in range(tries):
        now = told()
        if now.report is not None:
            return now.report
        if now.problem is not None:
            raise UnavailableError(now.problem)
        time.sleep(POLL_SECONDS)
    raise UnavailableError(
        f"{run_id} still waits for the hub; ask GET /api/v1/rerates/{run_id} for its report"
    )


def _told(run: RerateRun) -> _Told:
    if run.state in WAITING:
        return _Told(None, None)
    if run.state is RunState.FAILED:
        return _Told(None, run.report or "it failed")
    return _Told(msgspec.json.decode(run.report or "", type=RerateAnswer), None)


def _run_here(
    settings: Settings, store: DuckDbSpanStore, engine: Engine, *, book: LiveBook, now: datetime
) -> None:
    ledger = LedgerPosting(
        LedgerRepository(engine),
        unenforced_grace_seconds=settings.budgets.unenforced_grace_seconds,
    )
    closing = close_periods(settings, store, now=now)
    settle_all(store, ledger, book=book, now=now)
    run_waiting(
        store.rerates,
        RerateRepository(engine),
        book=book,
        ledger=ledger,
        closing=closing,
        now=now,
    )


def settle_all(
    store: DuckDbSpanStore, ledger: LedgerPosting, *, book: LiveBook, now: datetime
) -> None:
    """Settle and post what the last run of the hub left."""
    through = -1
    while True:
        done = settle_tick(
            store,
            now=now,
            ledger=ledger,
            reprice=lambda rows: reprice(rows, book.current()),
            repin=lambda rows: repin(rows, book.current()),
        )
        if done.through == through:
            return
        through = done.through


def close_periods(settings: Settings, store: DuckDbSpanStore, *, now: datetime) -> Closing:
    """Close in the store what the settings close, and answer what is: nothing is opened again."""
    asked = closing_of(settings)
    return Closing(
        before=store.close_before(asked.before, zone=asked.zone, now=now), zone=asked.zone
    )


def closing_of(settings: Settings) -> Closing:
    """Return what is closed: all before a midnight in the organisation's zone."""
    day, zone = settings.closed_before, settings.zone
    if day is None:
        return Closing(before=None, zone=zone)
    return Closing(
        before=datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC),
        zone=zone,
    )
