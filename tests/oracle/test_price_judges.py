"""Two calculators nobody here wrote judge ours: genai-prices' own, and LiteLLM's `completion_cost`.

Neither is called by the product. Each is given the prices it comes with, which are also what we
import, so what is compared is arithmetic and meaning. genai-prices computes in decimals: unrounded
totals must be equal, and ours rounded may differ by half a nano-USD a line item. LiteLLM computes in
floats: 1e-12 of the amount is allowed beside. What differs must have a class below, with its
source; a difference without one fails. The tables are written to `tests/proofs/price_judges.json`.
"""

import json
import random
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from genai_prices import data_snapshot
from genai_prices.types import ModelInfo, Provider, Usage

from controlplane.core.tokens import BUCKET_NAMES, INPUT_BUCKETS
from controlplane.pricing.import_litellm import read_litellm
from controlplane.pricing.price_book import NotFound, PriceBook
from controlplane.pricing.providers import price_provider
from controlplane.pricing.quote import Quote, quote
from controlplane.pricing.seed import listed_providers
from controlplane.pricing.sheet import compile_providers

ROOT = Path(__file__).parents[2]
LITELLM = ROOT / ".venvs" / "litellm"
AT = datetime(2026, 11, 20, 13, 30, tzinfo=UTC)
NANO = 10**9
TOKENS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output_text")
SOMETIMES = ("input_audio", "cache_read_audio", "input_image", "output_reasoning", "output_audio")

GENAI_SOURCES = {
    "output_without_a_price": "genai_prices/types.py calc_price: a unit without a price adds nothing;"
    " ours is unpriced(missing_rate), because unknown is not $0",
}
LITELLM_SOURCES = {
    "no_price_is_zero": "litellm model map without a rate: completion_cost answers 0.0; ours is"
    " unpriced with a reason",
    "per_request_fee": "litellm/cost_calculator.py: `input_cost_per_request` and `..._per_query` are"
    " not added to a chat's cost; ours adds one request",
    "silent_map": "the map has no rate of its own for a used bucket (or not in the service tier, or"
    " above the context size): litellm_core_utils/llm_cost_calc/utils.py and the providers' own"
    " calculators fall back to 0, to the standard tier's or the base context's rate; ours to the"
    " wider bucket of the same tier, marked no_own_rate",
    "missing_rate_adds_nothing": "litellm: a used bucket whose rate the map does not have adds 0 to"
    " the others; ours is unpriced(missing_rate) as a whole",
    "price_by_size": "litellm/llms/together_ai/cost_calculator.py: a price by the parameters in the"
    " model's name; ours is unknown_model",
    "cache_is_ignored": "litellm/llms/perplexity/cost_calculator.py: every input token pays the input"
    " rate, though the map has one for cache reads",
    "tier_is_ignored": "litellm/llms/fireworks_ai/cost_calculator.py takes no service tier, though the"
    " map has its rates",
    "region_is_dropped": "litellm prices `bedrock_mantle/<region>/<model>` as `<model>`, though the map"
    " has the region's own rates",
    "by_the_hour": "litellm_core_utils/llm_cost_calc/utils.py _is_off_peak: depends on the clock of"
    " the machine, not on the call's time; the importer lists the key as left out",
    "ranges_by_prompt": "litellm/llms/*/cost_calculator.py for `tiered_pricing`: the tier is chosen"
    " by tokens in a way of the provider's own",
}


def _used(rng: random.Random, *, buckets: tuple[str, ...], largest: int) -> dict[str, int]:
    chosen = [name for name in buckets if rng.random() < 0.5] or [buckets[0]]
    return {name: rng.choice((rng.randint(1, 5_000), rng.randint(1, largest))) for name in chosen}


class Table:
    """Agreements and classified differences."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources
        self.agreed = 0
        self._found: defaultdict[str, list[object]] = defaultdict(list)
        self._models: defaultdict[str, set[str]] = defaultdict(set)

    def differs(self, kind: str, model: str, example: object) -> None:
        assert kind in self._sources, (kind, model, example)
        self._found[kind].append(example)
        self._models[kind].add(model)

    def figures(self) -> dict[str, object]:
        rows = {
            kind: {
                "calls": len(found),
                "models": len(self._models[kind]),
                "example": found[0],
                "source": self._sources[kind],
            }
            for kind, found in sorted(self._found.items())
        }
        total = self.agreed + sum(len(found) for found in self._found.values())
        return {"usages": total, "agreed": self.agreed, "differences": rows}


def _their_usage(used: Mapping[str, int]) -> Usage:
    """Say exclusive buckets as genai-prices does: wholes that include their parts."""
    reading = sum(used.get(name, 0) for name in ("cache_read", "cache_read_audio"))
    writing = {
        f"cache_write_{ttl}_tokens": used.get(f"cache_write_{ttl}", 0) for ttl in ("5m", "1h")
    }
    said = {
        "input_tokens": sum(used.get(name, 0) for name in INPUT_BUCKETS),
        "output_tokens": sum(used.get(name, 0) for name in used if name.startswith("output_")),
        "cache_read_tokens": reading,
        "cache_write_tokens": sum(writing.values()),
        **writing,
        "cache_audio_read_tokens": used.get("cache_read_audio", 0),
        "cache_image_read_tokens": 0,
        "input_audio_tokens": used.get("input_audio", 0) + used.get("cache_read_audio", 0),
        "input_image_tokens": used.get("input_image", 0),
        "output_reasoning_tokens": used.get("output_reasoning", 0),
        "output_audio_tokens": used.get("output_audio", 0),
    }
    return Usage(**said)


def _unrounded(answer: Quote) -> Fraction:
    """Return the exact nano-USD of the line items."""
    return sum(
        (Fraction(item.rate_nusd) * item.quantity for item in answer.line_items), Fraction(0)
    )


@pytest.mark.slow
def test_genai_prices_own_calculator_agrees(
    full_size: bool,  # noqa: FBT001 - a fixture
    judged: dict[str, object],
) -> None:
    """Every model of the data set, by name; several usages each, one of a single bucket."""
    rng = random.Random(20261125)
    book = PriceBook("judged", listed_providers())
    table = Table(GENAI_SOURCES)
    models = [(p, m) for p in data_snapshot.get_snapshot().providers for m in p.models]
    for provider, model in models if full_size else rng.sample(models, 350):
        found = book.find(provider.id, model.id)
        if isinstance(found, NotFound) or found.model != model.id:
            continue  # its id is not a name that it answers to, in either
        for number in range(6):
            buckets = TOKENS + tuple(name for name in SOMETIMES if rng.random() < 0.2)
            used = _used(rng, buckets=buckets, largest=500_000)
            if number == 0:
                used = dict([used.popitem()])
            _judge_genai(table, (book, provider, model), used)
    figures = table.figures()
    judged["genai_prices"] = figures
    assert table.agreed > (9_000 if full_size else 1_000)


def _judge_genai(
    table: Table, subject: tuple[PriceBook, Provider, ModelInfo], used: dict[str, int]
) -> None:
    book, provider, model = subject
    ours = quote(book, provider=provider.id, model=model.id, at=AT, usage=used)
    theirs = model.calc_price(_their_usage(used), provider, genai_request_timestamp=AT)
    exact = Fraction(theirs.total_price) * NANO
    name = f"{provider.id}/{model.id}"
    if ours.total_nusd is None:
        assert ours.cost_reason is not None
        assert ours.cost_reason.startswith("missing_rate:")
        example = {"model": name, "usage": used, "ours": ours.cost_reason, "theirs": str(exact)}
        table.differs("output_without_a_price", name, example)
        return
    assert exact == _unrounded(ours), (name, used)
    assert abs(exact - ours.total_nusd) <= Fraction(len(ours.line_items), 2)
    table.agreed += 1


Call = dict[str, Any]


def _ask_litellm(calls: list[Call]) -> list[dict[str, str]]:
    python = LITELLM / "bin" / "python"
    if not python.exists():
        pytest.skip("LiteLLM is not installed: make .venvs/litellm/.installed")
    lines = "\n".join(json.dumps(call) for call in calls)
    script = str(Path(__file__).with_name("litellm_costs.py"))
    done = subprocess.run(
        [str(python), script], input=lines, capture_output=True, text=True, timeout=280, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _map_of_litellm() -> bytes:
    found = sorted(LITELLM.glob("lib/python*/site-packages/litellm/model_prices*.json"))
    if not found:
        pytest.skip("LiteLLM is not installed: make .venvs/litellm/.installed")
    return found[0].read_bytes()


@pytest.mark.slow
def test_litellms_completion_cost_agrees(
    full_size: bool,  # noqa: FBT001 - a fixture
    judged: dict[str, object],
) -> None:
    """Every chat, completion and embedding model of its map, with flex and priority.

    Batch is left to genai-prices: `completion_cost` has no batch tier (its key is `_batches`).
    """
    body = _map_of_litellm()
    imported = read_litellm(body, source="litellm")
    book = PriceBook("judged", compile_providers([], imported.sheets))
    entries: dict[str, Any] = json.loads(body)
    taken = {reason.partition(": another price under ")[2] for reason in imported.left_out}
    names = [
        name
        for name, entry in entries.items()
        if entry.get("mode") in {"chat", "completion", "responses", "embedding"}
        and name not in taken
    ]
    rng = random.Random(20261125)
    chosen = names * 4 if full_size else rng.sample(names, 500)
    calls = [_call(rng, name, entries[name]) for name in chosen]
    table, refused = Table(LITELLM_SOURCES), 0
    for call, answer in zip(calls, _ask_litellm(calls), strict=True):
        if "error" in answer:
            refused += 1  # a name of its map that its own calculator does not find
            continue
        _judge_litellm(table, book, call, entry=entries[call["model"]], usd=answer["usd"])
    judged["litellm"] = {**table.figures(), "not_answered": refused}
    assert table.agreed > (9_000 if full_size else 350)


def _call(rng: random.Random, name: str, entry: Mapping[str, Any]) -> Call:
    buckets = TOKENS[:4] if entry["mode"] == "embedding" else (*TOKENS, "output_reasoning")
    tier = rng.choice((None, None, None, "flex", "priority"))
    if f"input_cost_per_token_{tier}" not in entry:
        tier = None
    used = _used(rng, buckets=buckets, largest=400_000)
    return {"model": name, "provider": None, "usage": used, "service_tier": tier}


def _names(name: str, entry: Mapping[str, Any]) -> tuple[str, str]:
    family = str(entry["litellm_provider"])
    provider = {"bedrock_converse": "bedrock"}.get(family, family.partition("-")[0])
    return price_provider(provider), name.removeprefix(f"{family}/").removeprefix(f"{provider}/")


def _judge_litellm(
    table: Table, book: PriceBook, call: Call, *, entry: Mapping[str, Any], usd: str
) -> None:
    provider, model = _names(call["model"], entry)
    ours = quote(
        book,
        provider=provider,
        model=model,
        at=AT,
        usage=call["usage"],
        service_tier=call["service_tier"] or "",
    )
    theirs = Fraction(Decimal(usd)) * NANO
    allowed = Fraction(len(ours.line_items), 2) + abs(theirs) / 10**12
    if ours.total_nusd is not None and abs(theirs - ours.total_nusd) <= allowed:
        table.agreed += 1
        return
    example = {**call, "ours_nusd": ours.total_nusd, "theirs_usd": usd, "reason": ours.cost_reason}
    table.differs(_class_of(call, ours, entry=entry, theirs=theirs), call["model"], example)


KEYS = {
    "input_uncached": "input_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write_5m": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "output_text": "output_cost_per_token",
}


def _class_of(call: Call, ours: Quote, *, entry: Mapping[str, Any], theirs: Fraction) -> str:
    provider, used = str(entry["litellm_provider"]), call["usage"]
    if ours.total_nusd is None:
        by_size = provider == "together_ai" and ours.cost_reason == "unknown_model"
        missing = "price_by_size" if by_size else "missing_rate_adds_nothing"
        return "no_price_is_zero" if theirs == 0 else missing
    classes = {
        "by_the_hour": any(key.startswith("off_peak") for key in entry),
        "ranges_by_prompt": "tiered_pricing" in entry,
        "per_request_fee": bool({"input_cost_per_request", "input_cost_per_query"} & entry.keys()),
        "silent_map": _is_silent(call, entry),
        "cache_is_ignored": provider == "perplexity" and "cache_read" in used,
        "tier_is_ignored": provider == "fireworks_ai" and call["service_tier"] is not None,
        "region_is_dropped": provider == "bedrock_mantle" and "-gov-" in call["model"],
    }
    return next((name for name, holds in classes.items() if holds), "unexplained")


def _is_silent(call: Call, entry: Mapping[str, Any]) -> bool:
    """Whether the map leaves out the rate of a used bucket, in the tier or at the size it needs."""
    whole = sum(call["usage"].get(name, 0) for name in INPUT_BUCKETS)
    starts = {int(found[1]) for key in entry if (found := re.search(r"_above_(\d+)k_tokens", key))}
    above = max((start for start in starts if whole > start * 1_000), default=None)
    suffix = f"_{call['service_tier']}" if call["service_tier"] else ""
    for bucket in call["usage"]:
        key = KEYS.get(bucket, "output_cost_per_token")
        needed = [f"{key}{suffix}"]
        if above is not None:
            needed.append(f"{key}_above_{above}k_tokens{suffix}")
        if any(name not in entry for name in needed):
            return True
    return False


@pytest.fixture(scope="module")
def judged(
    write_proof: Callable[[str, Mapping[str, object]], None],
) -> Any:
    """Collect both tables and keep them as one proof."""
    figures: dict[str, object] = {}
    yield figures
    if figures.keys() == {"genai_prices", "litellm"}:
        write_proof("price_judges", figures)


def test_the_seed_is_wrong_about_one_name_less() -> None:
    """`gemini-1.5-flash-8b` pays the 8B model's price, which the data set has under another name."""
    book = PriceBook("judged", listed_providers())
    usage = {"input_uncached": 100_000, "output_text": 100_000}
    small, large = (
        quote(book, provider="google", model=name, at=AT, usage=usage)
        for name in ("gemini-1.5-flash-8b-001", "gemini-1.5-flash-001")
    )
    assert (3_750_000 + 15_000_000, 7_500_000 + 30_000_000) == (small.total_nusd, large.total_nusd)
    theirs = next(
        m
        for p in data_snapshot.get_snapshot().providers
        if p.id == "google"
        for m in p.models
        if m.is_match("gemini-1.5-flash-8b-001")
    )
    assert "gemini-1.5-flash" == theirs.id, "the data set was mended: drop the correction"


def test_every_bucket_that_is_judged_exists() -> None:
    assert {*TOKENS, *SOMETIMES} <= set(BUCKET_NAMES)
