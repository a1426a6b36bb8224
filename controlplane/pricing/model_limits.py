"""How much one call of a model can take in and write at most: what bounds a request that says less.

Two sources. Context windows are the data set's own (genai-prices), which rounds some of them, so a
twentieth is added, and a little more. Output limits are few and from the makers' own model pages,
read in November 2026 (platform.openai.com/docs/models, docs.anthropic.com/en/docs/about-claude/models,
ai.google.dev/gemini-api/docs/models); a limit that a header can raise is the raised one.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec
from genai_prices import data_snapshot

CONTEXT_MARGIN_PERCENT: Final = 10
"""1,000,000 is written for 1,048,576."""
OUTPUT_LIMITS: Final[tuple[tuple[str, int], ...]] = (
    # model, whole or as the beginning before a date → tokens
    (r"gpt-3\.5-turbo(-\d{4}|-16k)?", 16_385),
    (r"gpt-4-turbo|gpt-4-vision-preview", 4_096),
    (r"gpt-4o(-mini)?", 16_384),
    (r"gpt-4\.1(-mini|-nano)?", 32_768),
    (r"o1|o1-pro|o3|o3-mini|o3-pro|o4-mini", 100_000),
    (r"gpt-5(-mini|-nano)?", 128_000),
    (r"gpt-5\.[12]", 128_000),
    (r"claude-3-(opus|sonnet|haiku)", 4_096),
    (r"claude-3-5-(sonnet|haiku)", 8_192),
    (r"claude-3-7-sonnet", 128_000),
    (r"claude-(sonnet|haiku)-4-5|claude-opus-4-5|claude-sonnet-4-0", 64_000),
    (r"claude-opus-4-[01]", 32_000),
    (r"gemini-(1\.5-flash|1\.5-pro|2\.0-flash|2\.0-flash-lite)", 8_192),
    (r"gemini-2\.5-(pro|flash|flash-lite)", 65_536),
)
_DATED: Final = r"(-latest|-\d{4}-\d{2}-\d{2}|-\d{8}|-\d{3})?"
_LIMITS: Final = tuple(
    (re.compile(f"(?:{name}){_DATED}"), tokens) for name, tokens in OUTPUT_LIMITS
)


class ModelLimits(msgspec.Struct, frozen=True):
    """Tokens; 0: not known."""

    output_tokens: int = 0
    """Of one choice."""
    context_tokens: int = 0
    """Of one pass of the model: what it reads, and what it writes, are each at most this."""


def limits_of(provider: str, model: str) -> ModelLimits:
    """Return what is known of a model in the price book's names."""
    listed = _contexts().get((provider, model), 0)
    context = listed * (100 + CONTEXT_MARGIN_PERCENT) // 100
    output = next((tokens for name, tokens in _LIMITS if name.fullmatch(model)), 0)
    return ModelLimits(output, context)


@lru_cache(maxsize=1)
def _contexts() -> Mapping[tuple[str, str], int]:
    return {
        (provider.id, model.id): model.context_window
        for provider in data_snapshot.get_snapshot().providers
        for model in provider.models
        if model.context_window
    }
