"""The price book of a role: read from its history, kept current, seeded at the first start.

Nothing is fetched. A newer data set that came with an upgrade is only offered, by `prices import`;
prices change by a recorded version or not at all.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from typing_extensions import override

from controlplane import telemetry
from controlplane.bootstrap.data_files import read_list
from controlplane.bootstrap.system import SystemClock
from controlplane.core.calendar import Window
from controlplane.core.errors import ConflictError, NotFoundError
from controlplane.pricing.contracts import Contract, read_contracts
from controlplane.pricing.history import (
    EntryKind,
    PriceEntry,
    PriceHistory,
    PriceVersion,
    build_book,
    changed_entries,
    list_entries,
    version_name,
)
from controlplane.pricing.overrides import OwnPrice, read_own_prices
from controlplane.pricing.price_book import MAX_REMEMBERED, Found, Pin, PriceBook
from controlplane.pricing.rates import PriceRow
from controlplane.pricing.rerate import PINNING, RerateRun, RerateRuns
from controlplane.pricing.seed import seed, seed_version
from controlplane.settings import Settings
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.prices import PriceRepository
from controlplane.store.metadata.rerates import RerateRepository

REFRESH_SECONDS: Final = 2.0
KEPT_VERSIONS: Final = 4
MAX_PINS: Final = 10_000
BY_PROGRAM: Final = "controlplane"
MAX_RACES: Final = 5
MAX_EARLIER: Final = 50
"""Versions before the newest in which the price of an old call is looked for."""


class LiveBook(PriceBook):
    """The newest version's book, looked for at most every two seconds; safe for threads.

    A batch that is priced in many look-ups takes `current()` once: one batch, one version.
    """

    def __init__(
        self,
        history: PriceHistory,
        *,
        runs: RerateRuns | None = None,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("live", [])
        self._history = history
        self._runs = runs
        self._pinning: list[RerateRun] = []
        self._of_version = lru_cache(maxsize=KEPT_VERSIONS)(self.of_version)
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._number = -1
        self._looked_at = 0.0
        self._book: PriceBook = self
        self._books: dict[int, PriceBook] = {}
        self._found_earlier: dict[tuple[str | None, str | None, str], PriceRow | None] = {}

    @override
    def current(self) -> PriceBook:
        """Return the book of the newest version."""
        with self._lock:
            due = self._number < 0 or self._elapsed() - self._looked_at >= REFRESH_SECONDS
            if due:
                newest = self._history.latest()
                pinning = self._runs.runs(states=PINNING, limit=MAX_PINS) if self._runs else []
                if newest != self._number:
                    self._book = build_book(version_name(newest), self._history.entries(newest))
                    self._number = newest
                    _show(newest, self._history)
                    self._pinning = []
                if pinning != self._pinning:
                    self._book.pins = self._pins(pinning)
                    self._pinning = pinning
                self._looked_at = self._elapsed()
            return self._book

    def newest(self) -> int:
        """Return the newest version's number."""
        return self._history.latest()

    def of_version(self, version: int) -> PriceBook:
        """Return the book of a version, without pins.

        Raises:
            NotFoundError: no such version.
        """
        newest = self._history.latest()
        if not 0 < version <= newest:
            raise NotFoundError("price version", str(version), f"There are 1 to {newest}")
        return build_book(version_name(version), self._history.entries(version))

    def _pins(self, runs: Sequence[RerateRun]) -> tuple[Pin, ...]:
        """Return the windows that were re-rated with another version than the newest, in order."""
        return tuple(
            Pin(
                Window(run.window_start, run.window_end),
                run.tenants,
                partial(self._of_version, run.price_version),
            )
            for run in reversed(runs)
        )

    @property
    @override
    def version(self) -> str:
        """See `PriceBook.version`."""
        return self.current().version

    @override
    def find(self, provider: str | None, model: str | None) -> Found:
        """See `PriceBook.find`."""
        return self.current().find(provider, model)

    @override
    def row_of(
        self, provider: str | None, model: str | None, price_id: str | None
    ) -> PriceRow | None:
        """See `PriceBook.row_of`: of an earlier version where the newest has it no more."""
        newest = self.current()
        row = newest.row_of(provider, model, price_id)
        if row is not None or price_id is None:
            return row
        with self._lock:
            return self._earlier((provider, model, price_id))

    def _earlier(self, key: tuple[str | None, str | None, str]) -> PriceRow | None:
        """Look a price up in earlier versions, newest first; an answer is remembered."""
        if key not in self._found_earlier:
            if len(self._found_earlier) >= MAX_REMEMBERED:
                self._found_earlier.clear()
            self._found_earlier[key] = next(
                filter(None, (book.row_of(*key) for book in self._earlier_books())), None
            )
        return self._found_earlier[key]

    def _earlier_books(self) -> Iterator[PriceBook]:
        for number in range(self._number - 1, max(0, self._number - 1 - MAX_EARLIER), -1):
            if number not in self._books:
                entries = self._history.entries(number)
                self._books[number] = build_book(version_name(number), entries)
            yield self._books[number]

    @property
    @override
    def contracts(self) -> tuple[Contract, ...]:
        """See `PriceBook.contracts`."""
        return self.current().contracts

    @override
    def listed(self, provider: str | None, model: str | None) -> Found:
        """See `PriceBook.listed`."""
        return self.current().listed(provider, model)

    @override
    def maker_of(self, model: str) -> str | None:
        """See `PriceBook.maker_of`."""
        return self.current().maker_of(model)

    @override
    def names(self) -> list[tuple[str, str]]:
        """See `PriceBook.names`."""
        return self.current().names()

    @override
    def is_makers(self, provider: str, model: str) -> bool:
        """See `PriceBook.is_makers`."""
        return self.current().is_makers(provider, model)


def _show(version: int, history: PriceHistory) -> None:
    recorded = history.list_recorded_at()
    telemetry.PRICE_BOOK_VERSION.set(version)
    telemetry.PRICE_LIST_RECORDED.set(recorded.timestamp() if recorded else 0)


def open_book(settings: Settings, engine: Engine) -> LiveBook:
    """Open the book over a migrated database, with the seed and the organisation's files in it.

    Raises:
        ConfigError: names the entry of a file that is wrong.
    """
    history = PriceRepository(engine)
    record(history, seed_entries, source="")
    record(history, lambda known: file_entries(settings, known), source="files")
    return LiveBook(history, runs=RerateRepository(engine))


def record(
    history: PriceHistory,
    entries_for: Callable[[list[PriceEntry]], list[PriceEntry]],
    *,
    source: str,
) -> int:
    """Append what `entries_for` says is missing of what is known; return the newest version.

    Roles that start at once do the same thing: one appends, the others find nothing missing.
    """
    for _ in range(MAX_RACES):
        newest = history.latest()
        missing = entries_for(history.entries(newest))
        if not missing:
            return newest
        version = PriceVersion(
            version=newest + 1,
            recorded_at=SystemClock().now(),
            source=source or seed_version(),
            recorded_by=BY_PROGRAM,
        )
        try:
            history.append(missing, version)
        except ConflictError:
            continue
        return newest + 1
    raise ConflictError("the price book changes faster than it can be appended to")


def seed_entries(known: list[PriceEntry]) -> list[PriceEntry]:
    """Return the installed data set where no price list is known yet."""
    if any(entry.kind is EntryKind.MODEL for entry in known):
        return []
    listed = seed()
    return list_entries(listed.providers, listed.sheets)


def file_entries(settings: Settings, known: list[PriceEntry]) -> list[PriceEntry]:
    """Return what the organisation's files say that is not known, and what they say no more."""
    own: dict[str, list[OwnPrice]] = {}
    for one in read_own_prices(read_list("price_overrides", settings.price_overrides)):
        own.setdefault(f"{one.provider}/{one.model}", []).append(one)
    contracts = read_contracts(read_list("contracts", settings.contracts))
    return [
        *changed_entries(EntryKind.FILE_OWN, {k: _text(v) for k, v in own.items()}, known),
        *changed_entries(
            EntryKind.FILE_CONTRACT,
            {f"{number:04d}:{one.id}": _text(one) for number, one in enumerate(contracts)},
            known,
        ),
    ]


def _text(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def load_book(settings: Settings, *, version: int | None = None) -> PriceBook:
    """Compile the book as a command sees it: recorded prices if there are any, else the seed's.

    Raises:
        ConfigError: names the entry of a file that is wrong.
        NotFoundError: no such version.
    """
    with recorded_history(settings) as history:
        newest = history.latest() if history else 0
        if version is not None and not 0 < version <= newest:
            raise NotFoundError("price version", str(version), f"There are 1 to {newest}")
        if history is None or not newest:
            seeded = seed_entries([])
            own = file_entries(settings, seeded)
            return build_book(seed_version(), [*seeded, *own], is_named=not own)
        known = history.entries(version or newest)
        own = [] if version else file_entries(settings, known)
        return build_book(version_name(version or newest), [*known, *own], is_named=not own)


@contextmanager
def recorded_history(settings: Settings) -> Iterator[PriceRepository | None]:
    """Open the history of prices if there is a database that has one; makes nothing."""
    url = make_url(settings.metadata_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        yield None
        return
    engine = open_engine(settings.metadata_url)
    try:
        repository = PriceRepository(engine)
        yield repository if repository.exists() else None
    finally:
        engine.dispose()
