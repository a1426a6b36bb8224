"""A model's price list as it is kept: the exact decimals and named units that its source gives.

A sheet is data (JSON in the metadata database, a file, an API body); `compile_sheet` turns it into
the fractions that calls are priced with. A newer sheet of a model replaces the older one whole, so
a change of price is a new dated row in a new sheet, and the older sheet stays to be read.
"""

from collections.abc import Iterable, Mapping
from datetime import date, time
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from controlplane.core.errors import InvalidInputError
from controlplane.core.tokens import BUCKETS, Unit
from controlplane.pricing.matching import Match, check_match
from controlplane.pricing.price_book import ListedModel, ListedProvider
from controlplane.pricing.rates import PriceRow, Rate, Tier, Validity, rate

MAX_ROWS: Final = 1_000
MAX_TIERS: Final = 20
MTOK: Final = 1_000_000
_UNIT_OF: Final = {bucket.name: bucket.unit for bucket in BUCKETS}

STANDS_IN: Final[Mapping[str, tuple[str, ...]]] = {
    # bucket → whose rate prices it when it has none of its own, nearest first (UX-C09)
    "cache_read": ("input_uncached",),
    "cache_write_5m": ("input_uncached",),
    "cache_write_1h": ("cache_write_5m", "input_uncached"),
    "input_audio": ("input_uncached",),
    "input_image": ("input_uncached",),
    "input_video": ("input_uncached",),
    "cache_read_audio": ("cache_read", "input_audio", "input_uncached"),
    "output_reasoning": ("output_text",),
    "output_audio": ("output_text",),
    "output_image": ("output_text",),
}
SAME_AS_OUTPUT: Final = frozenset({"output_reasoning"})
"""Reasoning is output by definition: the output rate is its rate, not a stand-in."""


class Usd(msgspec.Struct, frozen=True, array_like=True):
    """`usd` (a decimal, as text) for `per` units; `stand_in` says it is another bucket's."""

    usd: str
    per: int = MTOK
    stand_in: bool = False


class SheetTier(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Rates of calls whose whole input is above `above_input_tokens`; the first is -1."""

    usd: dict[str, Usd]
    above_input_tokens: int = -1


class SheetRow(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Rates that apply from a UTC day until another, within hours of each day, in one tier."""

    tiers: tuple[SheetTier, ...]
    valid_from: date | None = None
    valid_to: date | None = None
    daily_from: time = time.min
    daily_to: time = time.min
    service_tier: str = ""
    source: str = ""
    """Where the row is from, if not from where its sheet is: it was appended by another import."""

    def label(self) -> str:
        """Name the row among those of its sheet."""
        said = []
        if self.valid_from:
            said.append(self.valid_from.isoformat())
        if self.daily_from != self.daily_to:
            said.append(f"{self.daily_from:%H%M}-{self.daily_to:%H%M}")
        named = "+".join(said) or "base"
        return f"{named}#{self.service_tier}" if self.service_tier else named


class Sheet(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """All prices of one model at one provider; of rows valid at once the last one applies."""

    provider: str
    model: str
    rows: tuple[SheetRow, ...]
    match: Match | None = None
    """How names other than the model's own are recognised."""
    source: str = ""
    """Where it is from, the head of its price ids: a data set's version, a file's digest."""
    position: int = 0
    """Of several sheets that match a name, the lowest position wins."""

    @property
    def key(self) -> str:
        """`provider/model`, unique among the sheets of a layer."""
        return f"{self.provider}/{self.model}"

    def content(self) -> tuple[tuple[SheetRow, ...], Match | None]:
        """Return what a change of is a change of price: neither the source nor the place."""
        return self.rows, self.match


class ProviderSheet(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a price source says of a provider beside its models' prices."""

    provider: str
    resells: tuple[str, ...] = ()
    match: Match | None = None
    position: int = 0


def compile_sheet(sheet: Sheet) -> ListedModel:
    """Compile a sheet that was checked when it was read."""
    match = sheet.match or Match(equals=sheet.model)
    return ListedModel(
        model=sheet.model,
        rows=tuple(_row(sheet, row) for row in sheet.rows),
        spellings=match.spellings(),
        matches=None if match.is_spelled_out() else match.is_match,
    )


def compile_providers(
    providers: Iterable[ProviderSheet], sheets: Iterable[Sheet]
) -> list[ListedProvider]:
    """Compile a whole list; a provider that is only named by its models has no more to say."""
    models: dict[str, list[Sheet]] = {}
    for sheet in sheets:
        models.setdefault(sheet.provider, []).append(sheet)
    told = {each.provider: each for each in sorted(providers, key=lambda each: each.position)}
    for name in models:
        told.setdefault(name, ProviderSheet(provider=name))
    return [
        ListedProvider(
            provider=each.provider,
            models=[
                compile_sheet(sheet)
                for sheet in sorted(models.get(each.provider, []), key=lambda one: one.position)
            ],
            resells=each.resells,
            knows=each.match.is_match if each.match else None,
        )
        for each in told.values()
    ]


def _row(sheet: Sheet, row: SheetRow) -> PriceRow:
    return PriceRow(
        price_id=f"{row.source or sheet.source}/{sheet.key}/{row.label()}",
        validity=Validity(
            since=row.valid_from,
            until=row.valid_to,
            daily_from=row.daily_from,
            daily_to=row.daily_to,
        ),
        tiers=tuple(Tier(tier.above_input_tokens, _rates(tier)) for tier in row.tiers),
        service_tier=row.service_tier,
    )


def _rates(tier: SheetTier) -> dict[str, Rate]:
    return {
        bucket: rate(Decimal(said.usd), per=said.per, stand_in=said.stand_in)
        for bucket, said in tier.usd.items()
    }


def with_stand_ins(usd: Mapping[str, Usd]) -> dict[str, Usd]:
    """Add the rates of wider buckets where a bucket has none of its own."""
    filled = dict(usd)
    for bucket, wider in STANDS_IN.items():
        found = next((usd[name] for name in wider if name in usd), None)
        if bucket not in usd and found is not None:
            filled[bucket] = Usd(found.usd, found.per, bucket not in SAME_AS_OUTPUT)
    return filled


def check_sheet(sheet: Sheet) -> None:
    """Check what a file or a person says of a model.

    Raises:
        InvalidInputError: names the model, and the row and bucket where it is one.
    """
    where = sheet.key
    if not sheet.provider or not sheet.model:
        raise InvalidInputError(where, "needs a provider and a model")
    if len(sheet.rows) > MAX_ROWS:
        raise InvalidInputError(where, f"has more than {MAX_ROWS} rows")
    if sheet.match is not None:
        check_match(sheet.match, field=f"{where}.match")
    for row in sheet.rows:
        _check_row(f"{where} {row.label()}", row)


def _check_row(where: str, row: SheetRow) -> None:
    if row.valid_from and row.valid_to and row.valid_from >= row.valid_to:
        raise InvalidInputError(where, "valid_to is not after valid_from", "Leave out or raise it")
    starts = [tier.above_input_tokens for tier in row.tiers]
    if not starts or starts[0] != -1 or starts != sorted(set(starts)) or len(starts) > MAX_TIERS:
        raise InvalidInputError(
            f"{where}.tiers", "do not rise from -1", "The first tier is for every call: -1"
        )
    for tier in row.tiers:
        for bucket, said in tier.usd.items():
            _check_usd(f"{where}.{bucket}", bucket, said)


def _check_usd(where: str, bucket: str, said: Usd) -> None:
    if bucket not in _UNIT_OF:
        raise InvalidInputError(where, "is not a bucket", f"Known: {', '.join(_UNIT_OF)}")
    if said.per < 1:
        raise InvalidInputError(where, f"per {said.per} units", "Write 1 or more")
    try:
        rate(Decimal(said.usd), per=said.per)
    except (InvalidOperation, ValueError):
        raise InvalidInputError(
            where, f"{said.usd!r} is not a price", 'Write USD like "0.15"'
        ) from None


def per_unit(bucket: str) -> int:
    """Return how many units a price is said for where nothing else is: a million tokens, or one."""
    return MTOK if _UNIT_OF[bucket] is Unit.TOKEN else 1
