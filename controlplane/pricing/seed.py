"""The price book's seed: the genai-prices data set, read as data; its calculator is not used.

https://github.com/pydantic/genai-prices, installed with the program, so nothing is fetched. What it
gets wrong, with evidence, is mended by `corrections.py` and said in the sheet's source.
"""

from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from importlib.metadata import version as package_version
from typing import Final

import msgspec
from genai_prices import data_snapshot
from genai_prices.types import (
    ClauseAnd,
    ClauseContains,
    ClauseEndsWith,
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ClauseStartsWith,
    MatchLogic,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from controlplane.core.errors import InvalidInputError
from controlplane.pricing.corrections import corrected
from controlplane.pricing.matching import Match
from controlplane.pricing.price_book import ListedProvider
from controlplane.pricing.sheet import (
    SAME_AS_OUTPUT,
    ProviderSheet,
    Sheet,
    SheetRow,
    SheetTier,
    Usd,
    compile_providers,
)

MTOK: Final = 1_000_000
KCOUNT: Final = 1_000
SECONDS_PER_HOUR: Final = 3_600
DATA_SET: Final = "genai-prices"

SOURCES: Final[dict[str, tuple[tuple[str, int], ...]]] = {
    # bucket → the price keys that may price it, most specific first; the first is its own
    "input_uncached": (("input_mtok", MTOK),),
    "cache_read": (("cache_read_mtok", MTOK), ("input_mtok", MTOK)),
    "cache_write_5m": (
        ("cache_write_5m_mtok", MTOK),
        ("cache_write_mtok", MTOK),
        ("input_mtok", MTOK),
    ),
    "cache_write_1h": (
        ("cache_write_1h_mtok", MTOK),
        ("cache_write_mtok", MTOK),
        ("input_mtok", MTOK),
    ),
    "input_audio": (("input_audio_mtok", MTOK), ("input_mtok", MTOK)),
    "input_image": (("input_image_mtok", MTOK), ("input_mtok", MTOK)),
    "input_video": (("input_video_mtok", MTOK), ("input_mtok", MTOK)),
    "cache_read_audio": (
        ("cache_audio_read_mtok", MTOK),
        ("cache_read_mtok", MTOK),
        ("input_audio_mtok", MTOK),
        ("input_mtok", MTOK),
    ),
    "output_text": (("output_mtok", MTOK),),
    "output_reasoning": (("output_reasoning_mtok", MTOK), ("output_mtok", MTOK)),
    "output_audio": (("output_audio_mtok", MTOK), ("output_mtok", MTOK)),
    "output_image": (("output_image_mtok", MTOK), ("output_mtok", MTOK)),
    "web_searches": (("web_searches_kcount", KCOUNT),),
    "requests": (("requests_kcount", KCOUNT),),
    "pages": (("input_document_kpages", KCOUNT),),
    "audio_seconds": (("input_audio_hours", SECONDS_PER_HOUR), ("audio_hours", SECONDS_PER_HOUR)),
    "characters": (("input_mchars", MTOK),),
}
NO_FALLBACK: Final = frozenset({"cache_write_mtok", "audio_hours"})
"""Second keys that are the bucket's own rate under another name."""
VARIANT_KEYS: Final = ("service_tier", "processing", "speed")
"""Of a variant's conditions those whose value is a service tier; other conditions are not ours."""
Keyed = Mapping[str, Decimal | TieredPrices]
Constraint = StartDateConstraint | TimeOfDateConstraint | None


class PriceList(msgspec.Struct, frozen=True):
    """A whole price source."""

    version: str
    providers: tuple[ProviderSheet, ...]
    sheets: tuple[Sheet, ...]


def seed_version() -> str:
    """Return the data set's version, the prefix of its price ids."""
    return f"{DATA_SET}@{package_version(DATA_SET)}"


def seed() -> PriceList:
    """Read the installed data set, corrected."""
    return read_data_set(data_snapshot.get_snapshot().providers, version=seed_version())


def listed_providers() -> list[ListedProvider]:
    """Compile the installed data set."""
    listed = seed()
    return compile_providers(listed.providers, listed.sheets)


def read_data_set(providers: Sequence[Provider], *, version: str) -> PriceList:
    """Turn the data set's own objects into sheets."""
    sheets = [
        _sheet(provider.id, model, position=position, source=version)
        for provider in providers
        for position, model in enumerate(provider.models)
    ]
    told = tuple(
        ProviderSheet(
            provider=provider.id,
            resells=tuple(provider.fallback_model_providers or ()),
            match=_match(provider.model_match) if provider.model_match else None,
            position=position,
        )
        for position, provider in enumerate(providers)
    )
    return PriceList(version, told, tuple(corrected(sheets)))


def _match(clause: MatchLogic) -> Match:
    if isinstance(clause, ClauseOr):
        return Match(any_of=tuple(_match(each) for each in clause.or_))
    if isinstance(clause, ClauseAnd):
        return Match(all_of=tuple(_match(each) for each in clause.and_))
    if isinstance(clause, ClauseEquals):
        return Match(equals=clause.equals)
    return _pattern(clause)


def _pattern(
    clause: ClauseStartsWith | ClauseEndsWith | ClauseContains | ClauseRegex,
) -> Match:
    if isinstance(clause, ClauseStartsWith):
        return Match(starts_with=clause.starts_with)
    if isinstance(clause, ClauseEndsWith):
        return Match(ends_with=clause.ends_with)
    if isinstance(clause, ClauseContains):
        return Match(contains=clause.contains)
    return Match(regex=clause.regex)


def _sheet(provider: str, model: ModelInfo, *, position: int, source: str) -> Sheet:
    dated: list[tuple[Constraint, ModelPrice]] = (
        [(None, model.prices)]
        if isinstance(model.prices, ModelPrice)
        else [(each.constraint, each.prices) for each in model.prices]
    )
    rows = [
        row
        for constraint, prices in dated
        for row in _rows(_ALWAYS if constraint is None else _validity(constraint), _keyed(prices))
    ]
    for tier, variants in _variants(model).items():
        for constraint, prices in dated:
            validity = _ALWAYS if constraint is None else _validity(constraint)
            rows += _variant_rows(validity, _keyed(prices), tier=tier, variants=variants)
    return Sheet(
        provider=provider,
        model=model.id,
        rows=tuple(rows),
        match=_match(model.match),
        source=source,
        position=position,
    )


class _Dates(msgspec.Struct, frozen=True):
    """When a row applies."""

    valid_from: date | None = None
    valid_to: date | None = None
    daily_from: time = time.min
    daily_to: time = time.min


_ALWAYS: Final = _Dates()


def _validity(constraint: StartDateConstraint | TimeOfDateConstraint) -> _Dates:
    if isinstance(constraint, StartDateConstraint):
        return _Dates(valid_from=constraint.start_date)
    return _Dates(daily_from=_utc(constraint.start_time), daily_to=_utc(constraint.end_time))


def _utc(at: time) -> time:
    if at.utcoffset():
        raise InvalidInputError("prices", f"{at} is not UTC", "Read the data set's change notes")
    return at.replace(tzinfo=None)


def _variants(model: ModelInfo) -> dict[str, list[PriceVariant]]:
    """Group the variants that hang on a service tier alone, and say something."""
    found: dict[str, list[PriceVariant]] = {}
    for variant in model.price_variants or ():
        (condition, tier), *others = variant.when.items()
        if not others and condition in VARIANT_KEYS and _keyed(variant.prices):
            found.setdefault(tier.lower(), []).append(variant)
    return found


def _variant_rows(
    dates: _Dates, base: Keyed, *, tier: str, variants: Sequence[PriceVariant]
) -> list[SheetRow]:
    """Lay variants over a base row: of those active, the first that says a price decides it."""
    starts = [_start(variant) for variant in variants]
    edges = sorted({start for start in starts if start is not None})
    rows = []
    for since, until in zip([None, *edges], [*edges, None], strict=True):
        active = [
            variant
            for variant, start in zip(variants, starts, strict=True)
            if start is None or (since is not None and start <= since)
        ]
        valid_from = max(filter(None, (since, dates.valid_from)), default=None)
        if not active or (valid_from and until and valid_from >= until):
            continue
        keyed = dict(base)
        for variant in reversed(active):
            keyed |= _keyed(variant.prices)
        piece = msgspec.structs.replace(dates, valid_from=valid_from, valid_to=until)
        rows += _rows(piece, keyed, service_tier=tier)
    return rows


def _start(variant: PriceVariant) -> date | None:
    if isinstance(variant.constraint, TimeOfDateConstraint):
        raise InvalidInputError("prices", "a tier by the hour", "Read the data set's change notes")
    return None if variant.constraint is None else variant.constraint.start_date


def _keyed(prices: ModelPrice) -> Keyed:
    return {key: value for key, value in vars(prices).items() if value is not None}


def _rows(dates: _Dates, keyed: Keyed, *, service_tier: str = "") -> list[SheetRow]:
    starts = sorted(
        {
            tier.start
            for value in keyed.values()
            if isinstance(value, TieredPrices)
            for tier in value.tiers
        }
    )
    tiers = tuple(
        SheetTier(above_input_tokens=start, usd=_usd(keyed, above=start)) for start in (-1, *starts)
    )
    return [
        SheetRow(
            tiers=tiers,
            valid_from=dates.valid_from,
            valid_to=dates.valid_to,
            daily_from=dates.daily_from,
            daily_to=dates.daily_to,
            service_tier=service_tier,
        )
    ]


def _usd(keyed: Keyed, *, above: int) -> dict[str, Usd]:
    found: dict[str, Usd] = {}
    for bucket, sources in SOURCES.items():
        for number, (key, per) in enumerate(sources):
            usd = _at_tier(keyed.get(key), above)
            if usd is None:
                continue
            own = number == 0 or key in NO_FALLBACK or bucket in SAME_AS_OUTPUT
            found[bucket] = Usd(format(usd, "f"), per, not own)
            break
    return found


def _at_tier(price: Decimal | TieredPrices | None, above: int) -> Decimal | None:
    if not isinstance(price, TieredPrices):
        return price
    applicable = [tier.price for tier in price.tiers if tier.start <= above]
    return applicable[-1] if applicable else price.base
