"""One table from every vocabulary of providers to the price data's, and nothing else.

Sources: OpenTelemetry registry `gen_ai.provider.name` (v1.26 to v1.44), LiteLLM's provider names,
genai-prices' provider ids. Unknown names stay as they are: they may be an organisation's own.
"""

from typing import Final

ALIASES: Final[dict[str, str]] = {
    # OpenTelemetry
    "aws.bedrock": "aws",
    "azure.ai.openai": "azure",
    "az.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "az.ai.inference": "azure",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "gcp.gen_ai": "google",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "x_ai": "x-ai",
    "xai": "x-ai",
    # LiteLLM
    "azure_ai": "azure",
    "bedrock": "aws",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "moonshot": "moonshotai",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "vertex_ai": "google",
    "voyage": "voyageai",
}


def price_provider(name: str) -> str:
    """Return the price data's id for a provider's name in any vocabulary."""
    lowered = name.lower()
    return ALIASES.get(lowered, lowered)
