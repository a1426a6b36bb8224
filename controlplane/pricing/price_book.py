"""The price book: which row prices a model of a provider at an instant, and how it was found."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time
from hashlib import sha256
from typing import Final

import msgspec

from controlplane.core.calendar import Window
from controlplane.pricing.contracts import Contract, with_contracts
from controlplane.pricing.providers import price_provider
from controlplane.pricing.rates import PriceRow, Validity
from controlplane.signals.vocabulary import PriceProvenance

MAX_REMEMBERED: Final = 20_000
"""Names looked up before the memory starts anew."""
_COMPACT_DATE: Final = re.compile(r"-(20\d\d)(\d\d)(\d\d)$")
_ANY_DATE: Final = re.compile(r"-(20\d\d-\d\d-\d\d|20\d{6})$")


class ModelPrices(msgspec.Struct, frozen=True, kw_only=True):
    """A model's rows; of those valid at an instant the last one applies."""

    provider: str
    model: str
    rows: tuple[PriceRow, ...]
    provenance: PriceProvenance = PriceProvenance.EXACT
    aliases: tuple[str, ...] = ()

    def at(self, instant: datetime, service_tier: str = "") -> PriceRow | None:
        """Return the row that prices a call started at `instant`; None when none was valid.

        A call of a tier without a row of its own is priced in the standard tier; that row's
        `service_tier` is then not the one asked for, and the answer says so.
        """
        standard = None
        for row in reversed(self.rows):
            if not is_valid(row.validity, instant):
                continue
            if row.service_tier == service_tier:
                return row
            if standard is None and not row.service_tier:
                standard = row
        return standard


STANDARD_TIERS: Final = frozenset({"", "default", "standard", "on_demand"})
"""Names of what a price list means where it names no tier."""


def tier_stands_in(row: PriceRow, service_tier: str) -> bool:
    """Whether a row prices a call of another tier than its own."""
    return row.service_tier != service_tier and service_tier not in STANDARD_TIERS


SELF_HOSTED: Final = "self-hosted"
NO_GPU_PRICE: Final = "no_gpu_price"
"""A self-hosted model costs hardware: without a price a token it is in no list, and never free."""


class NotFound(msgspec.Struct, frozen=True):
    """Why a model has no price."""

    reason: str


Found = ModelPrices | NotFound


def is_valid(validity: Validity, instant: datetime) -> bool:
    """Whether a row applies at an instant."""
    utc = instant.astimezone(UTC)
    if validity.since and utc.date() < validity.since:
        return False
    if validity.until and utc.date() >= validity.until:
        return False
    return _in_hours(validity.daily_from, validity.daily_to, utc.time())


def _in_hours(start: time, end: time, at: time) -> bool:
    if start == end:
        return True
    return start <= at < end if start < end else at >= start or at < end


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the seed: its rows and how its names are recognised."""

    model: str
    rows: tuple[PriceRow, ...]
    spellings: tuple[str, ...] = ()
    """Names that match, in any case; a pattern's can not be listed."""
    matches: Callable[[str], bool] | None = None
    """A pattern for lower-case names; None where the spellings are all there is."""


class ListedProvider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider of the seed; `resells` are providers whose list it falls back to."""

    provider: str
    models: Sequence[ListedModel]
    resells: tuple[str, ...] = ()
    knows: Callable[[str], bool] | None = None
    """Whether a model's name belongs to this provider; for spans that name no provider."""


class _Index:
    """A provider's models by name; of several that match a name, the first listed wins."""

    def __init__(self, models: Sequence[ListedModel]) -> None:
        self._models = models
        self._by_name: dict[str, int] = {}
        for number, model in enumerate(models):
            for name in model.spellings:
                self._by_name.setdefault(name.lower(), number)
        # Most models are spelled out: only the others have to be asked one by one.
        self._patterns = [(n, m.matches) for n, m in enumerate(models) if m.matches]

    def find(self, name: str) -> ListedModel | None:
        spelled = self._by_name.get(name, len(self._models))
        for number, matches in self._patterns:
            if number >= spelled:
                break
            if matches(name):
                return self._models[number]
        return self._models[spelled] if spelled < len(self._models) else None


class Pin(msgspec.Struct, frozen=True):
    """Calls that start in a window are priced with another version: it was re-rated with that."""

    window: Window
    tenants: tuple[str, ...]
    """Empty is every tenant."""
    book: Callable[[], "PriceBook"]


class PriceBook:
    """An immutable version of all prices; lookups are remembered, so a batch pays once a model.

    `version` names the list and, behind a plus sign, the content of the organisation's own prices
    and contracts.
    """

    def __init__(
        self,
        version: str,
        listed: Sequence[ListedProvider],
        *,
        overrides: Sequence[ModelPrices] = (),
        contracts: Sequence[Contract] = (),
        is_named: bool = False,
    ) -> None:
        """Compile nothing, look up on demand.

        Args:
            version: names the list, or with `is_named` the whole content.
            listed: providers in order.
            overrides: prices that replace a model's list.
            contracts: what changes list prices.
            is_named: the version was given by a history that names overrides and contracts too.
        """
        own: list[ModelPrices | Contract] = [*overrides, *contracts]
        self._version = f"{version}+{_digest(own)}" if own and not is_named else version
        self._contracts = tuple(contracts)
        self._listed = {provider.provider: provider for provider in listed}
        self._index = {provider.provider: _Index(provider.models) for provider in listed}
        self._overrides: Mapping[tuple[str, str], ModelPrices] = {
            (price_provider(own.provider), name.lower()): own
            for own in overrides
            for name in (own.model, *own.aliases)
        }
        self.pins: tuple[Pin, ...] = ()
        """Of several that hold for a call the last one applies."""
        self._remembered: dict[tuple[str | None, str | None], Found] = {}

    @property
    def version(self) -> str:
        """Name the content: equal versions price every call alike."""
        return self._version

    @property
    def contracts(self) -> tuple[Contract, ...]:
        """Return what changes list prices, in the order it applies."""
        return self._contracts

    def current(self) -> "PriceBook":
        """Return the book as it is now: a book that is read from a history may change."""
        return self

    def find(self, provider: str | None, model: str | None) -> Found:
        """Return a model's rows, or why there are none; names in any vocabulary and case."""
        key = (provider, model)
        found = self._remembered.get(key)
        if found is None:
            if len(self._remembered) >= MAX_REMEMBERED:  # names come from senders
                self._remembered.clear()
            found = self._remembered[key] = self._find(provider, model)
        return found

    def row_of(
        self, provider: str | None, model: str | None, price_id: str | None
    ) -> PriceRow | None:
        """Return the row of a model that a call names as its price; None if it is not known."""
        found = self.find(provider, model)
        rows = () if isinstance(found, NotFound) else found.rows
        return next((row for row in rows if row.price_id == price_id), None)

    def listed(self, provider: str | None, model: str | None) -> Found:
        """Return the public list's rows of a model, the organisation's own prices left aside."""
        if not model:
            return NotFound("unknown_model")
        return self._find_listed(provider, model.lower())

    def maker_of(self, model: str) -> str | None:
        """Return the provider whose own model this is, wherever it is sold; None if not known."""
        return self._owner_of(model.lower())

    def names(self) -> list[tuple[str, str]]:
        """Return every (provider, model) spelling that is listed or overridden, sorted."""
        listed = [
            (provider.provider, name)
            for provider in self._listed.values()
            for model in provider.models
            for name in {model.model, *model.spellings}
        ]
        return sorted({*listed, *self._overrides})

    def is_makers(self, provider: str, model: str) -> bool:
        """Whether a model's name belongs to this provider wherever it is sold."""
        return self._owner_of(model) == provider

    def _find(self, provider: str | None, model: str | None) -> Found:
        if not model:
            return NotFound("unknown_model")
        name = model.lower()
        who = price_provider(provider) if provider else self._owner_of(name)
        own = self._overrides.get((who or "", name))
        if own:
            return msgspec.structs.replace(own, provenance=PriceProvenance.OVERRIDE)
        return self._find_listed(provider, name)

    def _find_listed(self, provider: str | None, name: str) -> Found:
        who = price_provider(provider) if provider else self._owner_of(name)
        if who not in self._listed:
            return NotFound(NO_GPU_PRICE if who == SELF_HOSTED else "unknown_provider")
        for spelling in _spellings(name):
            found = self._look_up(self._listed[who], spelling)
            if found:
                return msgspec.structs.replace(found, provenance=_how(found, provider, name))
        return NotFound("unknown_model")

    def _look_up(self, provider: ListedProvider, name: str) -> ModelPrices | None:
        for seller in (provider.provider, *provider.resells):
            listed = self._index[seller].find(name) if seller in self._index else None
            if listed:
                rows = with_contracts(
                    listed.rows, self._contracts, provider=provider.provider, model=listed.model
                )
                return ModelPrices(provider=seller, model=listed.model, rows=rows)
        return None

    def _owner_of(self, model: str) -> str | None:
        return next((p.provider for p in self._listed.values() if p.knows and p.knows(model)), None)


def _how(found: ModelPrices, provider: str | None, name: str) -> PriceProvenance:
    if provider and found.provider != price_provider(provider):
        return PriceProvenance.FALLBACK  # the maker's list stands in for the reseller's
    exact = bool(provider) and found.model.lower() == name
    return PriceProvenance.EXACT if exact else PriceProvenance.ALIAS


def _digest(own: Sequence[ModelPrices | Contract]) -> str:
    return sha256(msgspec.json.encode(own)).hexdigest()[:8]


def _spellings(name: str) -> list[str]:
    """Return a name as it came, with its date dashed, without a route, and without its date."""
    spellings = [name, _COMPACT_DATE.sub(r"-\1-\2-\3", name)]
    if "/" in name:
        spellings += _spellings(name.rsplit("/", 1)[1])
    spellings.append(_ANY_DATE.sub("", name))
    return list(dict.fromkeys(spellings))
