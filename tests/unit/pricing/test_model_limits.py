"""What is known of how much a model reads and writes."""

import pytest

from controlplane.pricing.model_limits import ModelLimits, limits_of


@pytest.mark.parametrize(
    ("provider", "model", "output", "context"),
    [
        ("openai", "gpt-4o", 16_384, 140_800),  # 128,000 and a tenth
        ("openai", "gpt-4o-mini", 16_384, 140_800),
        ("anthropic", "claude-sonnet-4-5", 64_000, 220_000),
        ("anthropic", "claude-3-5-haiku-latest", 8_192, 220_000),
        ("google", "gemini-2.5-flash", 65_536, 1_153_433),
        ("openai", "gpt-4o-audio-preview", 0, 140_800),  # another model, whatever it begins with
    ],
)
def test_known_models(provider: str, model: str, output: int, context: int) -> None:
    assert ModelLimits(output, context) == limits_of(provider, model)


def test_what_nobody_documents_is_not_known() -> None:
    assert ModelLimits() == limits_of("openai", "gpt-of-next-year")
