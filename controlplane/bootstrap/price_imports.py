"""`controlplane prices import`: what a file would change, and what that moves; then, if asked, it counts."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from controlplane.bootstrap.metadata import open_metadata
from controlplane.bootstrap.offline import parse_instant
from controlplane.bootstrap.places import SPANS_FILE
from controlplane.bootstrap.price_books import BY_PROGRAM, open_book
from controlplane.bootstrap.system import SystemClock
from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError, StoreUnavailableError
from controlplane.pipelines.import_prices import (
    CANDIDATE,
    ImportAnswer,
    OfferedPrices,
    PlannedImport,
    PriceFormat,
    candidate_book,
    import_answer,
    plan_import,
)
from controlplane.pipelines.rerate import preview_rerate
from controlplane.pipelines.rerate_answer import RerateAnswer, to_answer
from controlplane.pricing.history import PriceEntry, PriceVersion, version_name
from controlplane.pricing.rerate import RerateOrder
from controlplane.settings import Settings
from controlplane.store.metadata.prices import PriceRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

MAX_FILE_BYTES: Final = 256 * 2**20
DEFAULT_DAYS: Final = 30


class AskedImport(msgspec.Struct, frozen=True, kw_only=True):
    """An import as it is said on the command line."""

    file: Path | None
    format: PriceFormat
    is_to_apply: bool
    effective: date | None = None
    start: str | None = None
    end: str | None = None


def import_prices(settings: Settings, asked: AskedImport) -> ImportAnswer:
    """Compare a price file with the book, and record it if asked.

    Raises:
        InvalidInputError: the file is not what it is said to be.
    """
    engine, now = open_metadata(settings), SystemClock().now()
    try:
        open_book(settings, engine)  # a first start records the seed, which this is compared with
        history = PriceRepository(engine)
        newest = history.latest()
        known = history.entries(newest)
        offered = OfferedPrices(
            format=asked.format,
            body=None if asked.file is None else _bytes(asked.file),
            effective=asked.effective or now.date(),
        )
        planned = plan_import(offered, known, base_version=newest)
        calls, note = _moved(settings, asked, planned, known=known, now=now)
        version = None
        if asked.is_to_apply and planned.entries:
            header = PriceVersion(
                version=newest + 1,
                recorded_at=now,
                source=planned.source,
                note="import",
                recorded_by=BY_PROGRAM,
            )
            history.append(planned.entries, header)
            version = version_name(newest + 1)
        return import_answer(planned, version=version, calls=calls, calls_note=note)
    finally:
        engine.dispose()


def _bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InvalidInputError("file", f"is above {MAX_FILE_BYTES} bytes")
        return file.read_bytes()
    except OSError as wrong:
        raise InvalidInputError("file", f"{file}: {wrong.strerror}", "Name a file") from None


def _moved(
    settings: Settings,
    asked: AskedImport,
    planned: PlannedImport,
    *,
    known: list[PriceEntry],
    now: datetime,
) -> tuple[RerateAnswer | None, str | None]:
    """Price the stored calls of a window with the book as it would be."""
    path = settings.data_dir / SPANS_FILE
    if not path.exists():
        return None, "no calls are stored here"
    end = parse_instant(asked.end, "end") if asked.end else now
    start = parse_instant(asked.start, "start") if asked.start else end - timedelta(DEFAULT_DAYS)
    order = RerateOrder(run_id=CANDIDATE, window=Window(start, end), price_version=CANDIDATE)
    try:
        store = DuckDbSpanStore(path)
    except StoreUnavailableError:
        return None, "the hub owns the calls: import over its API, `POST /api/v1/prices/imports`"
    try:
        book = candidate_book(planned, known)
        return to_answer(preview_rerate(store.rerates, order, book)), None
    finally:
        store.close()
