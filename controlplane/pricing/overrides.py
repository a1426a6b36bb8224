"""The organisation's own prices, as data: contracts, custom and self-hosted models."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Final

import msgspec

from controlplane.core.errors import ConfigError
from controlplane.core.tokens import BUCKETS, Unit
from controlplane.pricing.price_book import ModelPrices
from controlplane.pricing.rates import PriceRow, Rate, Tier, Validity, rate
from controlplane.signals.vocabulary import PriceProvenance

SETTING: Final = "price_overrides"
_PER: Final = {bucket.name: 1_000_000 if bucket.unit is Unit.TOKEN else 1 for bucket in BUCKETS}
_STANDS_IN: Final = {
    # bucket → whose rate prices it when it has none of its own; all but reasoning are said (UX-C09)
    "cache_read": "input_uncached",
    "cache_write_5m": "input_uncached",
    "cache_write_1h": "input_uncached",
    "output_reasoning": "output_text",
}


class OwnPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One price: USD as text, per million tokens or per single other unit, by bucket.

    It replaces the whole list of the model: outside `[valid_from, valid_to)` (UTC days) the model
    has no price. Of several that are valid at once the last one listed applies.
    """

    provider: str
    model: str
    usd: dict[str, str]
    valid_from: date | None = None
    valid_to: date | None = None


def compile_overrides(listed: object) -> list[ModelPrices]:
    """Compile a parsed YAML list of `OwnPrice`.

    Raises:
        ConfigError: names the entry, and the bucket where it is one.
    """
    try:
        own = msgspec.convert(listed, list[OwnPrice])
    except msgspec.ValidationError as wrong:
        raise ConfigError(SETTING, str(wrong), "Known: provider, model, usd, valid_from") from None
    by_model: dict[tuple[str, str], list[PriceRow]] = {}
    for price in own:
        by_model.setdefault((price.provider, price.model), []).append(_row(price))
    return [_model(provider, model, rows) for (provider, model), rows in by_model.items()]


def _model(provider: str, model: str, rows: Sequence[PriceRow]) -> ModelPrices:
    return ModelPrices(
        provider=provider, model=model, rows=tuple(rows), provenance=PriceProvenance.OVERRIDE
    )


def _row(own: OwnPrice) -> PriceRow:
    where = f"{SETTING} {own.provider}/{own.model}"
    if not own.usd:
        raise ConfigError(f"{where}.usd", "is empty", 'Write {input_uncached: "0.15"}')
    if own.valid_from and own.valid_to and own.valid_from >= own.valid_to:
        raise ConfigError(f"{where}.valid_to", "is not after valid_from", "Leave out or raise it")
    rates = {bucket: _rate(f"{where}.{bucket}", bucket, usd) for bucket, usd in own.usd.items()}
    for bucket, wider in _STANDS_IN.items():
        if wider in rates and bucket not in rates:
            stand_in = bucket != "output_reasoning"
            rates[bucket] = msgspec.structs.replace(rates[wider], stand_in=stand_in)
    return PriceRow(
        price_id=_price_id(own),
        validity=Validity(since=own.valid_from, until=own.valid_to),
        tiers=(Tier(-1, rates),),
    )


def _price_id(own: OwnPrice) -> str:
    """Name the content, so that an edited price is another price."""
    start = own.valid_from.isoformat() if own.valid_from else "base"
    digest = sha256(msgspec.json.encode(own, order="sorted")).hexdigest()[:8]
    return f"override/{own.provider}/{own.model}/{start}@{digest}"


def _rate(where: str, bucket: str, usd: str) -> Rate:
    if bucket not in _PER:
        raise ConfigError(where, "is not a bucket", f"Known: {', '.join(_PER)}")
    try:
        return rate(Decimal(usd), per=_PER[bucket])
    except (InvalidOperation, ValueError):
        raise ConfigError(where, f"{usd!r} is not a price", 'Write USD like "0.15"') from None
