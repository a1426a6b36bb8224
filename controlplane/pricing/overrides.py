"""The organisation's own prices, as data: custom and self-hosted models, and replaced lists."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from hashlib import sha256
from typing import Final

import msgspec

from controlplane.core.errors import ConfigError, InvalidInputError
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.pricing.price_book import ModelPrices
from controlplane.pricing.providers import price_provider
from controlplane.pricing.rates import PriceRow
from controlplane.pricing.sheet import (
    Sheet,
    SheetRow,
    SheetTier,
    Usd,
    check_sheet,
    compile_sheet,
    per_unit,
)
from controlplane.signals.vocabulary import PriceProvenance

SETTING: Final = "price_overrides"
SOURCE: Final = "override"
_STANDS_IN: Final = {
    # bucket → whose rate prices it when it has none of its own; all but reasoning are said (UX-C09)
    "cache_read": "input_uncached",
    "cache_write_5m": "input_uncached",
    "cache_write_1h": "input_uncached",
    "output_reasoning": "output_text",
}
NAMED_UNITS: Final = {
    # how people name a price → the bucket, and how many of its units the name means
    "gpu_hours": ("gpu_seconds", 3_600),
    "audio_hours": ("audio_seconds", 3_600),
    "audio_minutes": ("audio_seconds", 60),
    "video_minutes": ("video_seconds", 60),
    "thousand_images": ("images", 1_000),
    "thousand_pages": ("pages", 1_000),
    "thousand_searches": ("web_searches", 1_000),
    "thousand_requests": ("requests", 1_000),
    "million_characters": ("characters", 1_000_000),
}


class LongContext(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole call's prices once its input is above `above_input_tokens`; others stay."""

    above_input_tokens: int
    usd: dict[str, str]


class OwnPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One price: USD as text, per million tokens or per single other unit, by bucket.

    It replaces the whole list of the model: outside `[valid_from, valid_to)` (UTC days) the model
    has no price. Of several that are valid at once the last one listed applies. `aliases` are
    other names of the model; `service_tier` limits the price to calls served in that tier.
    """

    provider: str
    model: str
    usd: dict[str, str]
    tiers: tuple[LongContext, ...] = ()
    aliases: tuple[str, ...] = ()
    service_tier: str = ""
    valid_from: date | None = None
    valid_to: date | None = None


def read_own_prices(listed: object) -> list[OwnPrice]:
    """Read and check a parsed YAML or JSON list of `OwnPrice`.

    Raises:
        ConfigError: names the entry, and the bucket where it is one.
    """
    try:
        own = msgspec.convert(listed, list[OwnPrice])
    except msgspec.ValidationError as wrong:
        raise ConfigError(SETTING, str(wrong), "Known: provider, model, usd, valid_from") from None
    for price in own:
        _row(price)
    return own


def names_of(prices: Iterable[OwnPrice]) -> set[tuple[str, str]]:
    """Return every (provider, name) that finds these prices, as a look-up spells it."""
    return {
        (price_provider(own.provider), name.lower())
        for own in prices
        for name in (own.model, *own.aliases)
    }


def compile_overrides(listed: object) -> list[ModelPrices]:
    """Compile a parsed YAML or JSON list of `OwnPrice`.

    Raises:
        ConfigError: names the entry, and the bucket where it is one.
    """
    by_model: dict[tuple[str, str], list[OwnPrice]] = {}
    for price in read_own_prices(listed):
        by_model.setdefault((price.provider, price.model), []).append(price)
    return [_model(prices) for prices in by_model.values()]


def _model(prices: Sequence[OwnPrice]) -> ModelPrices:
    first = prices[0]
    return ModelPrices(
        provider=first.provider,
        model=first.model,
        rows=tuple(_row(own) for own in prices),
        provenance=PriceProvenance.OVERRIDE,
        aliases=tuple(dict.fromkeys(name for own in prices for name in own.aliases)),
    )


def _row(own: OwnPrice) -> PriceRow:
    where = f"{SETTING} {own.provider}/{own.model}"
    if not own.usd:
        raise ConfigError(f"{where}.usd", "is empty", 'Write {input_uncached: "0.15"}')
    base = _usd(where, own.usd)
    tiers = [SheetTier(usd=_with_stand_ins(base))]
    for tier in own.tiers:
        above = {**base, **_usd(where, tier.usd)}
        tiers.append(
            SheetTier(above_input_tokens=tier.above_input_tokens, usd=_with_stand_ins(above))
        )
    row = SheetRow(
        tiers=tuple(tiers),
        valid_from=own.valid_from,
        valid_to=own.valid_to,
        service_tier=own.service_tier,
    )
    sheet = Sheet(provider=own.provider, model=own.model, rows=(row,), source=SOURCE)
    try:
        check_sheet(sheet)
    except InvalidInputError as wrong:
        raise ConfigError(where, str(wrong), 'Write USD like "0.15"') from None
    (compiled,) = compile_sheet(sheet).rows
    # The id names the content, so that an edited price is another price.
    digest = sha256(msgspec.json.encode(own, order="sorted")).hexdigest()[:8]
    return msgspec.structs.replace(compiled, price_id=f"{compiled.price_id}@{digest}")


def _usd(where: str, said: Mapping[str, str]) -> dict[str, Usd]:
    found = {}
    for name, usd in said.items():
        if name not in NAMED_UNITS and name not in BUCKET_NAMES:
            known = f"Known: {', '.join([*BUCKET_NAMES, *NAMED_UNITS])}"
            raise ConfigError(f"{where}.{name}", "is not a bucket", known)
        bucket, per = NAMED_UNITS.get(name) or (name, per_unit(name))
        found[bucket] = Usd(usd, per)
    return found


def _with_stand_ins(usd: Mapping[str, Usd]) -> dict[str, Usd]:
    filled = dict(usd)
    for bucket, wider in _STANDS_IN.items():
        if wider in usd and bucket not in usd:
            filled[bucket] = Usd(usd[wider].usd, usd[wider].per, bucket != "output_reasoning")
    return filled
