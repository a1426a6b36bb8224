"""What producers call a provider, mapped to OpenTelemetry's gen_ai.provider.name values."""

import re
from typing import Final

SELF_HOSTED: Final = "self-hosted"

_SPELLINGS: Final = {
    # canonical: other spellings, lowercase
    "openai": ("text-completion-openai", "custom_openai", "openai_chat"),
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
        "aws",
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
        "google-gla",
        "gcp.gen_ai",
    ),
    "gcp.vertex_ai": (
        "vertex_ai",
        "vertexai",
        "google.vertex.chat",
        "google_vertexai",
        "google-vertex",
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


_HOSTS: Final = {
    # end of a host name: provider
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "amazonaws.com": "aws.bedrock",
    "api.mistral.ai": "mistral_ai",
    "api.x.ai": "x_ai",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.perplexity.ai": "perplexity",
    "api.moonshot.ai": "moonshot_ai",
    "api.moonshot.cn": "moonshot_ai",
    "api.together.xyz": "together_ai",
    "api.fireworks.ai": "fireworks_ai",
    "openrouter.ai": "openrouter",
    "api.cerebras.ai": "cerebras",
    "api.deepinfra.com": "deepinfra",
    "integrate.api.nvidia.com": "nvidia_nim",
}
_HOST_OF_URL: Final = re.compile(r"https?://(?:[^/@]*@)?([a-z0-9.-]{1,253})(?::[0-9]+)?(?:[/?]|$)")
_VERSION: Final = re.compile(r"[_.]v[0-9]+$")


def canonical_provider(text: str) -> str | None:
    """Answer the gen_ai.provider.name of a producer's spelling; None for a framework's name.

    A URL is the provider of its host, or None.
    """
    lowered = text.strip().lower()
    if not lowered or lowered in _FRAMEWORKS:
        return None
    if "://" in lowered:
        host = _HOST_OF_URL.match(lowered)
        return _provider_of_host(host[1]) if host else None
    family = lowered.partition(".")[0]  # Vercel: `<provider>.<api>`
    return _CANONICAL.get(lowered) or _CANONICAL.get(family, lowered)


def _provider_of_host(host: str) -> str | None:
    labels = host.split(".")
    ends = (".".join(labels[-n:]) for n in range(len(labels), 1, -1))
    return next((_HOSTS[end] for end in ends if end in _HOSTS), None)


def provider_of_scope(scope: str) -> str | None:
    """Answer the provider whose SDK an instrumentor's scope names as its last part."""
    last = _VERSION.sub("", scope.lower()).rpartition(".")[2]
    return _CANONICAL.get(last)


def split_model_path(text: str) -> tuple[str | None, str]:
    """Split `provider/model` if the first part is a provider's name; else (None, text)."""
    head, slash, rest = text.partition("/")
    provider = _CANONICAL.get(head.strip().lower())
    return (provider, rest) if slash and provider and rest else (None, text)
