"""The price book's seed: the genai-prices data set, read as data; its calculator is not used.

https://github.com/pydantic/genai-prices, installed with the program, so nothing is fetched.
"""

from datetime import time
from decimal import Decimal
from importlib.metadata import version as package_version
from typing import Final

from genai_prices import data_snapshot
from genai_prices.types import (
    ClauseEquals,
    ClauseOr,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from controlplane.pricing.price_book import ListedModel, ListedProvider
from controlplane.pricing.rates import ALWAYS, PriceRow, Rate, Tier, Validity, rate

MTOK: Final = 1_000_000
KCOUNT: Final = 1_000
SECONDS_PER_HOUR: Final = 3_600

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
}
NO_FALLBACK: Final = frozenset({"cache_write_mtok", "audio_hours"})
"""Second keys that are the bucket's own rate under another name."""
SAME_AS_OUTPUT: Final = frozenset({"output_reasoning"})
"""Reasoning is output by definition: the output rate is its rate, not a stand-in."""


def seed_version() -> str:
    """Return the data set's version, the prefix of its price ids."""
    return f"genai-prices@{package_version('genai-prices')}"


def listed_providers() -> list[ListedProvider]:
    """Compile the installed data set."""
    return [_provider(provider) for provider in data_snapshot.get_snapshot().providers]


def _provider(provider: Provider) -> ListedProvider:
    return ListedProvider(
        provider=provider.id,
        models=[_model(provider.id, model) for model in provider.models],
        resells=tuple(provider.fallback_model_providers or ()),
        knows=provider.model_match.is_match if provider.model_match else None,
    )


def _model(provider: str, model: ModelInfo) -> ListedModel:
    prefix = f"{seed_version()}/{provider}/{model.id}"
    if isinstance(model.prices, ModelPrice):
        rows = [_row(f"{prefix}/base", ALWAYS, model.prices)]
    else:
        rows = []
        for conditional in model.prices:
            validity = _validity(conditional.constraint)
            rows.append(_row(f"{prefix}/{_label(validity)}", validity, conditional.prices))
    clauses = model.match.or_ if isinstance(model.match, ClauseOr) else [model.match]
    spelled = [clause.equals for clause in clauses if isinstance(clause, ClauseEquals)]
    return ListedModel(
        model=model.id,
        rows=tuple(rows),
        spellings=tuple(spelled),
        matches=None if len(spelled) == len(clauses) else model.is_match,
    )


def _validity(constraint: StartDateConstraint | TimeOfDateConstraint | None) -> Validity:
    if isinstance(constraint, StartDateConstraint):
        return Validity(since=constraint.start_date)
    if isinstance(constraint, TimeOfDateConstraint):
        return Validity(daily_from=_utc(constraint.start_time), daily_to=_utc(constraint.end_time))
    return ALWAYS


def _utc(at: time) -> time:
    offset = at.utcoffset()
    if offset:
        msg = f"{at} is not UTC: read the data set's change notes"
        raise ValueError(msg)
    return at.replace(tzinfo=None)


def _label(validity: Validity) -> str:
    if validity.since:
        return validity.since.isoformat()
    if validity.daily_from != validity.daily_to:
        return f"{validity.daily_from:%H%M}-{validity.daily_to:%H%M}"
    return "base"


def _row(price_id: str, validity: Validity, prices: ModelPrice) -> PriceRow:
    starts = sorted(
        {
            tier.start
            for value in vars(prices).values()
            if isinstance(value, TieredPrices)
            for tier in value.tiers
        }
    )
    tiers = tuple(Tier(start, _rates(prices, above=start)) for start in (-1, *starts))
    return PriceRow(price_id=price_id, validity=validity, tiers=tiers)


def _rates(prices: ModelPrice, *, above: int) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    for bucket, sources in SOURCES.items():
        for number, (key, per) in enumerate(sources):
            usd = _at_tier(vars(prices).get(key), above)
            if usd is None:
                continue
            own = number == 0 or key in NO_FALLBACK or bucket in SAME_AS_OUTPUT
            rates[bucket] = rate(usd, per=per, stand_in=not own)
            break
    return rates


def _at_tier(price: Decimal | TieredPrices | None, above: int) -> Decimal | None:
    if not isinstance(price, TieredPrices):
        return price
    applicable = [tier.price for tier in price.tiers if tier.start <= above]
    return applicable[-1] if applicable else price.base
