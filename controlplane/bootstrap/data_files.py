"""The organisation's data files read at start: its own prices and its attribution rules."""

from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec
import yaml

from controlplane.attribution.rules import BUILT_IN, AttributionRules, with_organisation
from controlplane.core.errors import ConfigError
from controlplane.core.tokens import BUCKETS, Unit
from controlplane.pricing.price_book import ModelPrices, PriceBook
from controlplane.pricing.rates import PriceRow, Rate, Tier, Validity, rate
from controlplane.pricing.seed import MTOK, listed_providers, seed_version
from controlplane.settings import Settings
from controlplane.signals.vocabulary import PriceProvenance

_PER = {bucket.name: MTOK if bucket.unit is Unit.TOKEN else 1 for bucket in BUCKETS}


class OwnPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One price of the organisation: USD as text, per million tokens or per single other unit."""

    provider: str
    model: str
    usd: dict[str, str]
    valid_from: date | None = None
    valid_to: date | None = None


def load_book(settings: Settings) -> PriceBook:
    """Compile the seed and the organisation's own prices.

    Raises:
        ConfigError: names the entry of `price_overrides` that is wrong.
    """
    own = _own_prices(settings.price_overrides) if settings.price_overrides else []
    return PriceBook(seed_version(), listed_providers(), overrides=own)


def load_rules(settings: Settings) -> AttributionRules:
    """Read the organisation's rules before the built-in ones."""
    if settings.attribution_rules is None:
        return BUILT_IN
    tree = yaml.safe_load(settings.attribution_rules.read_text(encoding="utf-8"))
    return with_organisation(tree or [])


def _own_prices(path: Path) -> list[ModelPrices]:
    try:
        listed = msgspec.convert(yaml.safe_load(path.read_text()) or [], list[OwnPrice])
    except (msgspec.ValidationError, yaml.YAMLError) as wrong:
        raise ConfigError("price_overrides", str(wrong), "See the README's example") from None
    by_model: dict[tuple[str, str], list[PriceRow]] = {}
    for own in listed:
        start = own.valid_from.isoformat() if own.valid_from else "base"
        row = PriceRow(
            price_id=f"override/{own.provider}/{own.model}/{start}",
            validity=Validity(since=own.valid_from, until=own.valid_to),
            tiers=(Tier(-1, {bucket: _own_rate(own, bucket) for bucket in own.usd}),),
        )
        by_model.setdefault((own.provider, own.model), []).append(row)
    return [
        ModelPrices(
            provider=provider, model=model, rows=tuple(rows), provenance=PriceProvenance.OVERRIDE
        )
        for (provider, model), rows in by_model.items()
    ]


def _own_rate(own: OwnPrice, bucket: str) -> Rate:
    where = f"price_overrides {own.provider}/{own.model}.{bucket}"
    if bucket not in _PER:
        raise ConfigError(where, "is not a bucket", f"Known: {', '.join(_PER)}")
    try:
        return rate(Decimal(own.usd[bucket]), per=_PER[bucket])
    except (InvalidOperation, ValueError):
        raise ConfigError(where, f"{own.usd[bucket]!r}", 'Write USD like "0.15"') from None
