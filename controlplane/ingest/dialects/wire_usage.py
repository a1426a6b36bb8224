"""The usage objects of the providers' own APIs, wherever a producer keeps one whole.

OpenAI chat and responses, Anthropic, and Gemini. Anthropic's input leaves cached tokens out, the
others' includes them; Gemini's candidates leave thoughts out. A total is a sum over what an API
leaves out, and members that another API does not have add nothing.
"""

from controlplane.ingest.dialects.dialect import Field, Path

Paths = tuple[tuple[Field, Path], ...]
Totals = tuple[tuple[Field, tuple[Path, ...]], ...]

_PATHS: Paths = (
    (Field.INPUT_TOKENS, ("prompt_tokens",)),
    (Field.OUTPUT_TOKENS, ("completion_tokens",)),
    (Field.OUTPUT_TOKENS, ("output_tokens",)),
    (Field.CACHED_INPUT_TOKENS, ("prompt_tokens_details", "cached_tokens")),
    (Field.CACHED_INPUT_TOKENS, ("input_tokens_details", "cached_tokens")),
    (Field.CACHED_INPUT_TOKENS, ("cache_read_input_tokens",)),
    (Field.CACHED_INPUT_TOKENS, ("cached_content_token_count",)),
    (Field.CACHED_INPUT_TOKENS, ("cachedContentTokenCount",)),
    (Field.CACHE_CREATION_INPUT_TOKENS, ("cache_creation_input_tokens",)),
    (Field.CACHE_CREATION_INPUT_TOKENS, ("prompt_tokens_details", "cache_creation_tokens")),
    (Field.CACHE_CREATION_1H_TOKENS, ("cache_creation", "ephemeral_1h_input_tokens")),
    (Field.REASONING_TOKENS, ("completion_tokens_details", "reasoning_tokens")),
    (Field.REASONING_TOKENS, ("output_tokens_details", "reasoning_tokens")),
    (Field.REASONING_TOKENS, ("thoughts_token_count",)),
    (Field.REASONING_TOKENS, ("thoughtsTokenCount",)),
    (Field.INPUT_AUDIO_TOKENS, ("prompt_tokens_details", "audio_tokens")),
    (Field.INPUT_AUDIO_TOKENS, ("input_token_details", "audio_tokens")),
    (Field.INPUT_IMAGE_TOKENS, ("input_tokens_details", "image_tokens")),
    (Field.OUTPUT_AUDIO_TOKENS, ("completion_tokens_details", "audio_tokens")),
    (Field.OUTPUT_AUDIO_TOKENS, ("output_token_details", "audio_tokens")),
    (Field.OUTPUT_IMAGE_TOKENS, ("output_tokens_details", "image_tokens")),
    (Field.WEB_SEARCHES, ("server_tool_use", "web_search_requests")),
    (Field.AUDIO_SECONDS, ("seconds",)),
    (Field.SERVICE_TIER, ("service_tier",)),
)
_TOTALS: Totals = (
    (
        Field.INPUT_TOKENS,
        (("input_tokens",), ("cache_read_input_tokens",), ("cache_creation_input_tokens",)),
    ),
    (Field.INPUT_TOKENS, (("prompt_token_count",), ("tool_use_prompt_token_count",))),
    (Field.INPUT_TOKENS, (("promptTokenCount",), ("toolUsePromptTokenCount",))),
    (Field.OUTPUT_TOKENS, (("candidates_token_count",), ("thoughts_token_count",))),
    (Field.OUTPUT_TOKENS, (("candidatesTokenCount",), ("thoughtsTokenCount",))),
)


def usage_paths(*prefix: str) -> Paths:
    """Answer where the parts of a usage object are that stands at `prefix`."""
    return tuple((field, (*prefix, *path)) for field, path in _PATHS)


def usage_totals(*prefix: str) -> Totals:
    """Answer the totals of a usage object that stands at `prefix`."""
    return tuple((field, tuple((*prefix, *path) for path in paths)) for field, paths in _TOTALS)
