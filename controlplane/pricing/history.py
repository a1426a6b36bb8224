"""The price book over time: entries are only ever appended, and any version can be read again.

Two times are kept apart. *Valid* time is inside an entry: the days a row applies to calls. *Recorded*
time is the version that appended the entry: what was known then. The book of version N is, of every
kind and key, the newest entry of a version up to N.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from controlplane.pricing.contracts import Contract
from controlplane.pricing.overrides import OwnPrice, compile_overrides
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.sheet import ProviderSheet, Sheet, compile_providers

VERSION_PREFIX: Final = "prices@"


class EntryKind(StrEnum):
    """What an entry's body is; a newer entry of the same kind and key replaces it whole."""

    PROVIDER = "provider"
    """`sheet.ProviderSheet` by provider."""
    MODEL = "model"
    """`sheet.Sheet` by provider/model: the price list."""
    OWN = "own"
    """List of `overrides.OwnPrice` by provider/model, given through the API or an import."""
    CONTRACT = "contract"
    """`contracts.Contract` by id, given through the API."""
    FILE_OWN = "file_own"
    """As OWN, from the file `price_overrides` names; it goes before OWN."""
    FILE_CONTRACT = "file_contract"
    """As CONTRACT, from the file `contracts` names; it goes after CONTRACT."""


class PriceEntry(msgspec.Struct, frozen=True, order=True):
    """One appended fact; without a body, from here on there is none of that kind and key."""

    kind: EntryKind
    key: str
    body: str | None


class PriceVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Who appended what when."""

    version: int
    recorded_at: datetime
    source: str
    note: str = ""
    recorded_by: str = ""


class PriceHistory(Protocol):
    """Where entries are kept."""

    def versions(self, *, limit: int) -> list[PriceVersion]:
        """Return versions, newest first; none before the first start."""
        ...

    def latest(self) -> int:
        """Return the newest version; 0 when there is none."""
        ...

    def entries(self, version: int) -> list[PriceEntry]:
        """Return the entries of the book of a version: the newest of each kind and key."""
        ...

    def has_contracts(self) -> bool:
        """Whether a contract was ever kept; one that was removed has priced calls, too."""
        ...

    def list_recorded_at(self) -> datetime | None:
        """Return when the price list last changed; contracts and own prices do not count."""
        ...

    def append(self, entries: Sequence[PriceEntry], version: PriceVersion) -> None:
        """Append a version with its entries: all of it, or nothing.

        Raises:
            ConflictError: there is a version of that number already.
        """
        ...


def version_name(version: int) -> str:
    """Return how a version is called where prices are shown."""
    return f"{VERSION_PREFIX}{version}"


def build_book(name: str, entries: Iterable[PriceEntry], *, is_named: bool = True) -> PriceBook:
    """Compile entries; a name that does not cover all of them gets a digest of the own ones.

    Raises:
        ConfigError: an entry of another program's making.
    """
    by_kind = _by_kind(entries)
    sheets = [_decode_sheet(body) for body in by_kind[EntryKind.MODEL].values()]
    providers = [
        msgspec.json.decode(body, type=ProviderSheet)
        for body in by_kind[EntryKind.PROVIDER].values()
    ]
    own = {**by_kind[EntryKind.OWN], **by_kind[EntryKind.FILE_OWN]}
    contracts = (
        *by_kind[EntryKind.CONTRACT].values(),
        *by_kind[EntryKind.FILE_CONTRACT].values(),
    )
    return PriceBook(
        name,
        compile_providers(providers, sheets),
        overrides=[
            prices
            for body in own.values()
            for prices in compile_overrides(msgspec.json.decode(body))
        ],
        contracts=[msgspec.json.decode(body, type=Contract) for body in contracts],
        is_named=is_named,
    )


def _by_kind(entries: Iterable[PriceEntry]) -> dict[EntryKind, dict[str, str]]:
    found: dict[EntryKind, dict[str, str]] = {kind: {} for kind in EntryKind}
    for entry in entries:
        if entry.body is not None:
            found[entry.kind][entry.key] = entry.body
    return found


def sheets_of(entries: Iterable[PriceEntry]) -> dict[str, Sheet]:
    """Return the price list's sheets by key."""
    bodies = _by_kind(entries)[EntryKind.MODEL]
    return {key: _decode_sheet(body) for key, body in bodies.items()}


def _decode_sheet(body: str) -> Sheet:
    return msgspec.json.decode(body, type=Sheet)


def sheet_entry(sheet: Sheet) -> PriceEntry:
    """Return the entry that keeps a sheet."""
    return PriceEntry(EntryKind.MODEL, sheet.key, msgspec.json.encode(sheet).decode())


def list_entries(providers: Iterable[ProviderSheet], sheets: Iterable[Sheet]) -> list[PriceEntry]:
    """Return the entries that keep a whole price list."""
    told = [
        PriceEntry(EntryKind.PROVIDER, each.provider, msgspec.json.encode(each).decode())
        for each in providers
    ]
    return told + [sheet_entry(sheet) for sheet in sheets]


def changed_entries(
    kind: EntryKind, wanted: Mapping[str, str], known: Iterable[PriceEntry]
) -> list[PriceEntry]:
    """Return what to append so that exactly `wanted` (bodies by key) is known of a kind."""
    now = _by_kind(known)[kind]
    appended = [PriceEntry(kind, key, body) for key, body in wanted.items() if now.get(key) != body]
    return appended + [PriceEntry(kind, key, None) for key in now if key not in wanted]


def append_next(
    history: PriceHistory,
    entries: Sequence[PriceEntry],
    *,
    source: str,
    note: str,
    by: str,
    now: datetime,
) -> str:
    """Append a version after the newest and return its name.

    Raises:
        ConflictError: another one was appended meanwhile.
    """
    version = history.latest() + 1
    header = PriceVersion(
        version=version, recorded_at=now, source=source, note=note, recorded_by=by
    )
    history.append(entries, header)
    return version_name(version)


def contracts_of(entries: Iterable[PriceEntry], kind: EntryKind) -> list[Contract]:
    """Return the contracts of a kind of entry, in the order they apply."""
    bodies = _by_kind(entries)[kind]
    return [msgspec.json.decode(bodies[key], type=Contract) for key in sorted(bodies)]


def own_prices_of(
    entries: Iterable[PriceEntry], kind: EntryKind
) -> dict[str, tuple[OwnPrice, ...]]:
    """Return the organisation's own prices of a kind of entry, by provider/model."""
    bodies = _by_kind(entries)[kind]
    return {
        key: msgspec.json.decode(bodies[key], type=tuple[OwnPrice, ...]) for key in sorted(bodies)
    }
