"""LiteLLM's price map (`model_prices_and_context_window.json`) → sheets.

Names and units of its keys are in docs.litellm.ai/docs/provider_registration/add_model_pricing and in
the map's own `sample_spec`: every price is USD for one unit, suffixes are a context tier
(`_above_200k_tokens`) and a service tier (`_batches`, `_flex`, `_priority`). Keys that price what no
bucket counts (storage by the day, pixels, sessions) are listed as left out, never guessed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, TypeGuard

import msgspec

from controlplane.core.errors import InvalidInputError
from controlplane.pricing.providers import price_provider
from controlplane.pricing.sheet import (
    Sheet,
    SheetRow,
    SheetTier,
    Usd,
    check_sheet,
    with_stand_ins,
)

_KEYS: Final = {
    "input_cost_per_token": "input_uncached",
    "output_cost_per_token": "output_text",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write_5m",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "input_audio",
    "cache_read_input_audio_token_cost": "cache_read_audio",
    "output_cost_per_audio_token": "output_audio",
    "input_cost_per_image_token": "input_image",
    "output_cost_per_image_token": "output_image",
    "input_cost_per_video_token": "input_video",
    "output_cost_per_reasoning_token": "output_reasoning",
    "output_cost_per_image": "images",
    "input_cost_per_query": "requests",
    "input_cost_per_request": "requests",
    "ocr_cost_per_page": "pages",
    "input_cost_per_character": "characters",
}
_SECONDS: Final = ("input_cost_per_second", "output_cost_per_second")
_SEARCH: Final = "search_context_cost_per_query"
_SEARCH_SIZES: Final = ("search_context_size_medium", "search_context_size_low")
_TIERS: Final = {"_batches": "batch", "_flex": "flex", "_priority": "priority"}
_ABOVE: Final = re.compile(r"_above_(\d+)k_tokens$")
_PRICE_KEY: Final = re.compile(r"cost|price|pricing|off_peak")
_RANGES: Final = "tiered_pricing"
_THOUSAND: Final = 1_000
_SPEC: Final = "sample_spec"
_FAMILIES: Final = {"bedrock_converse": "bedrock"}
Value = Decimal | int | str | bool | None | list["Value"] | dict[str, "Value"]
Prices = Mapping[tuple[str, int], Mapping[str, Usd]]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What a file came to."""

    sheets: tuple[Sheet, ...]
    left_out: Mapping[str, int]
    """What could not be read, with how often: a key without a bucket, a name that is taken."""


def read_litellm(body: bytes, *, source: str) -> Imported:
    """Read the map.

    Raises:
        InvalidInputError: not a JSON object of objects, or a price that is none.
    """
    try:
        listed = json.loads(body, parse_float=Decimal)
    except ValueError:
        raise InvalidInputError("file", "is not JSON") from None
    if not isinstance(listed, dict) or not all(isinstance(v, dict) for v in listed.values()):
        raise InvalidInputError("file", "is not an object of models")
    sheets: dict[str, Sheet] = {}
    left_out: dict[str, int] = {}
    for name, said in listed.items():
        if name == _SPEC:
            continue
        sheet = _sheet(name, said, source=source, left_out=left_out)
        if sheet is None:
            continue
        check_sheet(sheet)
        known = sheets.setdefault(sheet.key, sheet)
        if known.rows != sheet.rows:
            _count(left_out, f"{sheet.key}: another price under {name}")
    return Imported(sheets=tuple(sheets.values()), left_out=left_out)


def _sheet(
    name: str, said: Mapping[str, Value], *, source: str, left_out: dict[str, int]
) -> Sheet | None:
    family = str(said.get("litellm_provider") or name.partition("/")[0])
    prefix = _FAMILIES.get(family, family.partition("-")[0])
    prices = _prices(said, left_out)
    if not prices:
        return None
    model = name.removeprefix(f"{family}/").removeprefix(f"{prefix}/")
    services = sorted({service for service, _ in prices})
    rows = tuple(row for service in services if (row := _row(service, prices)) is not None)
    return Sheet(provider=price_provider(prefix), model=model, rows=rows, source=source)


def _row(service: str, prices: Prices) -> SheetRow | None:
    """A service tier lies over the standard prices; a context tier over the one below it."""
    starts = sorted({start for of, start in prices if of in {"", service}} | {-1})
    filled: dict[str, Usd] = {}
    tiers = []
    for start in starts:
        _lay(prices.get(("", start), {}), over=filled)
        tiers.append((start, dict(filled)))
    above: dict[str, Usd] = {}
    laid = []
    for start, standard in tiers:
        _lay(prices.get((service, start), {}) if service else {}, over=above)
        _lay(above, over=standard)
        laid.append(SheetTier(above_input_tokens=start, usd=with_stand_ins(standard)))
    return SheetRow(tiers=tuple(laid), service_tier=service)


def _lay(narrower: Mapping[str, Usd], *, over: dict[str, Usd]) -> None:
    """Replace what is named; reasoning is output, so it follows an output rate said without it."""
    if "output_text" in narrower and "output_reasoning" not in narrower:
        over.pop("output_reasoning", None)
    over |= narrower


def _prices(said: Mapping[str, Value], left_out: dict[str, int]) -> Prices:
    found: dict[tuple[str, int], dict[str, Usd]] = {}
    is_video = said.get("mode") == "video_generation"
    for key, value in said.items():
        if key == _RANGES and isinstance(value, list):
            _add_ranges(found, value)
            continue
        if not _PRICE_KEY.search(key):
            continue
        base, service, start = _split(key)
        usd, bucket = value, _KEYS.get(base)
        if base in _SECONDS:
            bucket = "video_seconds" if is_video else "audio_seconds"
        if base == _SEARCH and isinstance(value, dict):
            bucket = "web_searches"
            usd = next((value[size] for size in _SEARCH_SIZES if size in value), None)
        if bucket is None or not _is_number(usd):
            _count(left_out, base)
            continue
        if Decimal(usd) or base not in _SECONDS:  # a second priced at nothing on one side only
            found.setdefault((service, start), {})[bucket] = Usd(format(Decimal(usd), "f"), 1)
    return found


def _add_ranges(found: dict[tuple[str, int], dict[str, Usd]], ranges: Sequence[Value]) -> None:
    """Read `tiered_pricing`: each range of the whole input has rates of its own."""
    for one in ranges:
        bounds = one.get("range") if isinstance(one, dict) else None
        if not isinstance(one, dict) or not isinstance(bounds, list) or not _is_number(bounds[0]):
            continue
        start = int(bounds[0]) or -1
        for key, value in one.items():
            if key in _KEYS and _is_number(value):
                usd = Usd(format(Decimal(value), "f"), 1)
                found.setdefault(("", start), {})[_KEYS[key]] = usd


def _split(key: str) -> tuple[str, str, int]:
    service = next((tier for suffix, tier in _TIERS.items() if key.endswith(suffix)), "")
    if service:
        key = key[: key.rindex("_")]
    above = _ABOVE.search(key)
    if above is None:
        return key, service, -1
    return key[: above.start()], service, int(above[1]) * _THOUSAND


def _is_number(value: Value) -> TypeGuard[Decimal | int]:
    return isinstance(value, Decimal | int) and not isinstance(value, bool)


def _count(left_out: dict[str, int], reason: str) -> None:
    left_out[reason] = left_out.get(reason, 0) + 1
