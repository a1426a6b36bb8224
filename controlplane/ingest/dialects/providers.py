"""What producers call a provider, mapped to OpenTelemetry's gen_ai.provider.name values."""

from typing import Final

SELF_HOSTED: Final = "self-hosted"

_SPELLINGS: Final = {
    # canonical: other spellings, lowercase
    "openai": ("text-completion-openai",),
    "anthropic": ("claude",),
    "azure.ai.openai": (
        "azure",
        "azure_openai",
        "azure.openai",
        "az.ai.openai",
        "azure-openai.chat",
    ),
    "azure.ai.inference": ("azure_ai", "az.ai.inference"),
    "aws.bedrock": (
        "bedrock",
        "aws_bedrock",
        "amazon_bedrock",
        "bedrock_converse",
        "aws.anthropic",
        "amazon-bedrock",
    ),
    "gcp.gemini": (
        "gemini",
        "google",
        "google_ai_studio",
        "google.generative-ai",
        "google_genai",
        "gcp.gen_ai",
    ),
    "gcp.vertex_ai": (
        "vertex_ai",
        "vertexai",
        "google.vertex.chat",
        "google_vertexai",
        "gcp.anthropic",
        "vertex_ai_beta",
    ),
    "mistral_ai": ("mistral", "mistralai"),
    "x_ai": ("xai", "grok"),
    "cohere": ("cohere_chat",),
    "deepseek": (),
    "groq": (),
    "perplexity": (),
    "moonshot_ai": ("moonshot", "moonshotai"),
    "ibm.watsonx.ai": ("watsonx", "ibm_watsonx"),
    "together_ai": ("together", "togetherai"),
    "fireworks_ai": ("fireworks",),
    "openrouter": (),
    "cerebras": (),
    "deepinfra": (),
    "nvidia_nim": ("nvidia",),
    "replicate": (),
    "huggingface": ("hf",),
    "databricks": (),
    "voyage": ("voyageai",),
    SELF_HOSTED: (
        "self_hosted",
        "hosted_vllm",
        "vllm",
        "sglang",
        "tgi",
        "ollama",
        "ollama_chat",
        "llamafile",
        "lm_studio",
        "triton",
        "xinference",
    ),
}
_CANONICAL: Final = {
    spelling: name for name, others in _SPELLINGS.items() for spelling in (name, *others)
}
_FRAMEWORKS: Final = frozenset(
    {"langchain", "langgraph", "strands-agents", "gcp.vertex.agent", "llamaindex", "crewai", "none"}
)
"""Names of frameworks that stand where a provider should: they say nothing about who bills."""


def canonical_provider(text: str) -> str | None:
    """Answer the gen_ai.provider.name of a producer's spelling; None for a framework's name."""
    lowered = text.strip().lower()
    if not lowered or lowered in _FRAMEWORKS:
        return None
    family = lowered.partition(".")[0]  # Vercel: `<provider>.<api>`
    return _CANONICAL.get(lowered) or _CANONICAL.get(family, lowered)


def split_model_path(text: str) -> tuple[str | None, str]:
    """Split `provider/model` if the first part is a provider's name; else (None, text)."""
    head, slash, rest = text.partition("/")
    provider = _CANONICAL.get(head.strip().lower())
    return (provider, rest) if slash and provider and rest else (None, text)
