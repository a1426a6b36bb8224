"""`controlplane prices import`: what a file would change, and what that moves; then, if asked, it counts."""

import json
from datetime import date, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from genai_prices.types import _providers_from_raw

from controlplane.bootstrap.metadata import open_metadata
from controlplane.bootstrap.offline import parse_instant
from controlplane.bootstrap.places import SPANS_FILE
from controlplane.bootstrap.price_books import BY_PROGRAM, open_book
from controlplane.bootstrap.rerates import RerateAnswer, to_answer
from controlplane.bootstrap.system import SystemClock
from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError, StoreUnavailableError
from controlplane.pipelines.rerate import preview_rerate
from controlplane.pricing.history import (
    EntryKind,
    PriceEntry,
    PriceHistory,
    PriceVersion,
    build_book,
    changed_entries,
    list_entries,
    sheet_entry,
    sheets_of,
    version_name,
)
from controlplane.pricing.import_csv import read_csv
from controlplane.pricing.import_litellm import read_litellm
from controlplane.pricing.list_diff import (
    SheetChange,
    dated_changes,
    removed_changes,
    undated_changes,
)
from controlplane.pricing.rerate import RerateOrder
from controlplane.pricing.seed import PriceList, read_data_set, seed
from controlplane.pricing.sheet import Sheet
from controlplane.settings import Settings
from controlplane.store.metadata.prices import PriceRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

MAX_FILE_BYTES: Final = 256 * 2**20
DEFAULT_DAYS: Final = 30
CANDIDATE: Final = "candidate"


class PriceFormat(StrEnum):
    """What a price file can be."""

    LITELLM = "litellm"
    CSV = "csv"
    GENAI_PRICES = "genai-prices"


class AskedImport(msgspec.Struct, frozen=True, kw_only=True):
    """An import as it is said on the command line."""

    file: Path | None
    format: PriceFormat
    is_to_apply: bool
    effective: date | None = None
    start: str | None = None
    end: str | None = None


class ImportAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an import changes, and what that moves of the calls that are stored."""

    source: str
    state: str
    version_before: str
    version: str | None
    effective: date | None
    added: int
    changed: int
    removed: int
    left_out: dict[str, int]
    changes: list[SheetChange]
    calls: RerateAnswer | None
    """What the stored calls of the window would cost; None where they can not be read."""
    calls_note: str | None


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
        read = _read(asked, sheets_of(known), now=now)
        entries = _entries(read, known)
        calls, note = _moved(settings, asked, [*known, *entries], now=now)
        version = None
        if asked.is_to_apply and entries:
            version = _record(history, newest + 1, entries, source=read.source, now=now)
        return ImportAnswer(
            source=read.source,
            state="applied" if version else "previewed",
            version_before=version_name(newest),
            version=version,
            effective=read.effective,
            added=_count(read.changes, "added"),
            changed=_count(read.changes, "changed"),
            removed=_count(read.changes, "removed"),
            left_out=read.left_out,
            changes=[msgspec.structs.replace(one, sheet=None) for one in read.changes],
            calls=calls,
            calls_note=note,
        )
    finally:
        engine.dispose()


class _Read(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    changes: list[SheetChange]
    left_out: dict[str, int] = {}
    effective: date | None = None
    whole: PriceList | None = None


def _read(asked: AskedImport, known: dict[str, Sheet], *, now: datetime) -> _Read:
    if asked.format is PriceFormat.GENAI_PRICES:
        listed = _data_set(asked.file)
        changes = [*dated_changes(known, listed.sheets), *removed_changes(known, listed.sheets)]
        return _Read(source=listed.version, changes=changes, whole=listed)
    if asked.file is None:
        raise InvalidInputError("file", "is missing", f"Name the {asked.format.value} file")
    body = _bytes(asked.file)
    source = f"{asked.format.value}:{sha256(body).hexdigest()[:8]}"
    effective = asked.effective or now.date()
    if asked.format is PriceFormat.CSV:
        sheets, left_out = read_csv(body, source=source), {}
    else:
        imported = read_litellm(body, source=source)
        sheets, left_out = imported.sheets, dict(imported.left_out)
    dated = [sheet for sheet in sheets if any(row.valid_from for row in sheet.rows)]
    undated = [sheet for sheet in sheets if sheet not in dated]
    changes = [
        *dated_changes(known, dated),
        *undated_changes(known, undated, effective=effective),
    ]
    return _Read(source=source, changes=changes, left_out=left_out, effective=effective)


def _data_set(file: Path | None) -> PriceList:
    if file is None:
        return seed()
    body = _bytes(file)
    try:
        providers = _providers_from_raw(json.loads(body))
    except ValueError:
        raise InvalidInputError(
            "file", "is not a genai-prices data file", "Take `data.json` of its releases"
        ) from None
    return read_data_set(providers, version=f"genai-prices:{sha256(body).hexdigest()[:8]}")


def _bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InvalidInputError("file", f"is above {MAX_FILE_BYTES} bytes")
        return file.read_bytes()
    except OSError as wrong:
        raise InvalidInputError("file", f"{file}: {wrong.strerror}", "Name a file") from None


def _entries(read: _Read, known: list[PriceEntry]) -> list[PriceEntry]:
    entries = [
        PriceEntry(EntryKind.MODEL, one.key, None) if one.sheet is None else sheet_entry(one.sheet)
        for one in read.changes
    ]
    if read.whole is not None:
        told = {e.key: e.body or "" for e in list_entries(read.whole.providers, [])}
        entries += changed_entries(EntryKind.PROVIDER, told, known)
    return entries


def _record(
    history: PriceHistory, version: int, entries: list[PriceEntry], *, source: str, now: datetime
) -> str:
    header = PriceVersion(
        version=version, recorded_at=now, source=source, note="import", recorded_by=BY_PROGRAM
    )
    history.append(entries, header)
    return version_name(version)


def _moved(
    settings: Settings, asked: AskedImport, entries: list[PriceEntry], *, now: datetime
) -> tuple[RerateAnswer | None, str | None]:
    """Price the stored calls of a window with the book as it would be."""
    path = settings.data_dir / SPANS_FILE
    if not path.exists():
        return None, "no calls are stored here"
    end = parse_instant(asked.end, "end") if asked.end else now
    start = parse_instant(asked.start, "start") if asked.start else end - timedelta(DEFAULT_DAYS)
    newest = {(entry.kind, entry.key): entry for entry in entries}
    order = RerateOrder(run_id=CANDIDATE, window=Window(start, end), price_version=CANDIDATE)
    try:
        store = DuckDbSpanStore(path)
    except StoreUnavailableError:
        return None, "the hub owns the calls: stop it, or apply and preview a re-rate over the API"
    try:
        book = build_book(CANDIDATE, newest.values())
        return to_answer(preview_rerate(store.rerates, order, book)), None
    finally:
        store.close()


def _count(changes: list[SheetChange], kind: str) -> int:
    return sum(one.change.value == kind for one in changes)
