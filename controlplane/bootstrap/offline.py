"""What needs no running system: the price book, the rules, and the commands made of them."""

from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec
import yaml

from controlplane.attribution.rules import BUILT_IN, AttributionRules, with_organisation
from controlplane.core.errors import ConfigError, InvalidInputError
from controlplane.core.money import format_usd
from controlplane.core.tokens import BUCKETS, Unit
from controlplane.pipelines.inspect import InspectReport
from controlplane.pipelines.inspect import inspect_files as inspect
from controlplane.pricing.price_book import ModelPrices, PriceBook
from controlplane.pricing.quote import Quote, quote, usage_buckets
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


class PriceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What `controlplane price` prints."""

    total_usd: str | None
    cost_state: str
    cost_reason: str | None
    price_id: str | None
    price_provenance: str | None
    price_book_version: str
    line_items: list[dict[str, object]]


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


def inspect_files(settings: Settings, files: list[Path], *, signal: str | None) -> InspectReport:
    """Decode, price and count once, as ingest would."""
    return inspect(files, book=load_book(settings), rules=load_rules(settings), signal=signal)


def price_call(
    settings: Settings, *, provider: str, model: str, at: str, usage: str
) -> PriceAnswer:
    """Price one call from the command line.

    Raises:
        InvalidInputError: names the option and what it takes.
    """
    try:
        said = msgspec.json.decode(usage, type=dict[str, int])
    except msgspec.DecodeError as wrong:
        raise InvalidInputError("usage", str(wrong), 'Write {"input_tokens": 1000}') from None
    book = load_book(settings)
    answer = quote(
        book, provider=provider, model=model, at=parse_instant(at, "at"), usage=usage_buckets(said)
    )
    return _to_answer(answer, book)


def parse_instant(text: str, field: str) -> datetime:
    """Read RFC 3339; a bare date is its midnight in UTC.

    Raises:
        InvalidInputError: neither, or a time without a zone.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(field, f"{text!r}", 'Write "2026-11-20T12:00:00Z"') from None
    if instant.tzinfo is None and "T" in text:
        raise InvalidInputError(field, f"{text!r} has no zone", 'End it with "Z"')
    return instant.replace(tzinfo=instant.tzinfo or UTC)


def _to_answer(answer: Quote, book: PriceBook) -> PriceAnswer:
    return PriceAnswer(
        total_usd=None if answer.total_nusd is None else format_usd(answer.total_nusd),
        cost_state=answer.cost_state,
        cost_reason=answer.cost_reason,
        price_id=answer.price_id,
        price_provenance=answer.price_provenance,
        price_book_version=book.version,
        line_items=[
            {
                "bucket": item.bucket,
                "quantity": item.quantity,
                "rate_nusd": item.rate_nusd,
                "cost_nusd": item.cost_nusd,
                "cost_usd": format_usd(item.cost_nusd),
            }
            for item in answer.line_items
        ],
    )


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
