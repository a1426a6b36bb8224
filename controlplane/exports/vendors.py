"""Who sells, who makes and what a meter is called, in the words of bills."""

from typing import Final

from controlplane.core.tokens import BUCKETS, Unit

SELF_HOSTED: Final = "self-hosted"
UNKNOWN: Final = "Unknown"
NAMES: Final[dict[str, str]] = {
    # price data's provider id → the name on its invoices
    "ai21": "AI21 Labs",
    "anthropic": "Anthropic",
    "aws": "Amazon Web Services",
    "azure": "Microsoft Azure",
    "cerebras": "Cerebras",
    "cohere": "Cohere",
    "deepseek": "DeepSeek",
    "fireworks": "Fireworks AI",
    "google": "Google",
    "groq": "Groq",
    "huggingface": "Hugging Face",
    "minimax": "MiniMax",
    "mistral": "Mistral AI",
    "moonshotai": "Moonshot AI",
    "nvidia": "NVIDIA",
    "openai": "OpenAI",
    "openrouter": "OpenRouter",
    "perplexity": "Perplexity",
    SELF_HOSTED: "Self-hosted",
    "together": "Together AI",
    "voyageai": "Voyage AI",
    "x-ai": "xAI",
}
METERS: Final[dict[str, str]] = {
    "input_uncached": "Input tokens",
    "cache_read": "Cached input tokens",
    "cache_write_5m": "Cache write tokens, 5 minutes",
    "cache_write_1h": "Cache write tokens, 1 hour",
    "input_audio": "Audio input tokens",
    "input_image": "Image input tokens",
    "input_video": "Video input tokens",
    "cache_read_audio": "Cached audio input tokens",
    "output_text": "Output tokens",
    "output_reasoning": "Reasoning tokens",
    "output_audio": "Audio output tokens",
    "output_image": "Image output tokens",
    "web_searches": "Web searches",
    "requests": "Requests",
    "pages": "Pages",
    "audio_seconds": "Audio seconds",
    "gpu_seconds": "GPU seconds",
    "images": "Images",
    "video_seconds": "Video seconds",
    "characters": "Characters",
    "call": "Calls",
}
_UNIT_WORDS: Final = {
    Unit.TOKEN: "Tokens",
    Unit.REQUEST: "Requests",
    Unit.PAGE: "Pages",
    Unit.SECOND: "Seconds",
    Unit.IMAGE: "Images",
    Unit.CHARACTER: "Characters",
}
UNITS: Final[dict[str, str]] = {
    **{bucket.name: _UNIT_WORDS[bucket.unit] for bucket in BUCKETS},
    "call": "Requests",
}
"""FOCUS UnitFormat: plural nouns."""
MTOK: Final = 1_000_000
BLOCKS: Final[dict[str, int]] = {
    bucket.name: MTOK for bucket in BUCKETS if bucket.unit is Unit.TOKEN
}
"""How many units a price is said for; one where nothing is said."""


def vendor(provider: str | None) -> str:
    """Return the name on the invoice; a provider that we do not know is called as it was sent."""
    return NAMES.get(provider, provider) if provider else UNKNOWN


def service(provider: str | None) -> str:
    """Return what is bought from it."""
    return "Self-hosted inference" if provider == SELF_HOSTED else f"{vendor(provider)} API"


def pricing_unit(bucket: str) -> str:
    """Return `1000000 Tokens` or a plain plural."""
    block = BLOCKS.get(bucket, 1)
    return UNITS[bucket] if block == 1 else f"{block} {UNITS[bucket]}"
