"""How a call ended, from the many ways in which producers say it."""

import re
from typing import Final

from controlplane.signals.vocabulary import GATEWAY_CACHE, ErrorType

MAX_TIER_CHARS: Final = 32
MAX_MESSAGE_CHARS: Final = 512
"""How much of an error's message is looked at; the code stands at its head."""
_TOO_MANY: Final = 429
_TIMEOUTS: Final = frozenset({408, 504})
_CANCELLED: Final = 499
_CLIENT, _SERVER, _END = 400, 500, 600
_PATTERNS: Final = (
    (
        ErrorType.RATE_LIMITED,
        re.compile(r"rate.?limit|too.?many.?requests|quota|throttl|resource.?exhausted"),
    ),
    (ErrorType.TIMEOUT, re.compile(r"time.?out|deadline")),
    (ErrorType.CANCELLED, re.compile(r"cancel|abort|disconnect")),
    (
        ErrorType.SERVER_ERROR,
        re.compile(
            r"internal.?server|server.?error|overloaded|unavailable|bad.?gateway|api.?connection"
        ),
    ),
    (
        ErrorType.CLIENT_ERROR,
        re.compile(
            r"bad.?request|invalid|auth|permission|forbidden|not.?found|unprocessable|conflict"
            r"|context.?window|content.?policy|client.?error|access.?denied|validation.?exception"
        ),
    ),
)
_SAYS_NOTHING: Final = frozenset({"clienterror"})
"""Names of exceptions for whatever failed: botocore's is raised for throttling and outages, too."""
_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "max_tokens_reached": "length",
    "eos_token": "stop",
    "complete": "stop",
    "completed": "stop",
    "finished": "stop",
    "pause_turn": "tool_calls",
    "function_call": "tool_calls",
    "toolcalls": "tool_calls",
    "tooluse": "tool_calls",
    "safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "refusal": "content_filter",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "abort": "error",
    "tool-calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "content-filter": "content_filter",
}


_ENUM: Final = "finishreason."
"""What Python writes before the name of an enum's member: Gemini's, Semantic Kernel's."""

_STATUS_IN_MESSAGE: Final = re.compile(
    # openai, anthropic: "Error code: 429 - {...}"; pydantic-ai: "status_code: 429, model_name: ...";
    # httpx: "Client error '429 Too Many Requests' for url ..."; botocore: "An error occurred (429) when
    # calling ..."; google-genai: "429 RESOURCE_EXHAUSTED.
    # {...}", also behind the name of an exception; the JS SDKs: "429 You exceeded ...".
    r"""(?ix)
    (?: \b(?:error|status|response|http)[ _-]?(?:code|status)?\b ["']? [ ]?[:=(]?[ ]? ["']?
      | \bhttp/[0-9.]+[ ]
      | \berror[ ]occurred[ ]\(
      | ^(?:[a-z_][a-z0-9_.]{0,100}:[ ])?
    ) ([45][0-9]{2}) \b (?![.:]?[0-9])
    """
)


def status_of_message(message: str) -> int | None:
    """Find the HTTP status of a failure in its message; None where it has none."""
    match = _STATUS_IN_MESSAGE.search(message)
    return int(match[1]) if match else None


def is_failure(http_status: int) -> bool:
    """Whether an HTTP status is a failed request."""
    return _CLIENT <= http_status < _END


def error_of_status(http_status: int) -> ErrorType | None:
    """Classify an HTTP status; None unless it is a failure."""
    if http_status == _TOO_MANY:
        return ErrorType.RATE_LIMITED
    if http_status in _TIMEOUTS:
        return ErrorType.TIMEOUT
    if http_status == _CANCELLED:
        return ErrorType.CANCELLED
    if not is_failure(http_status):
        return None
    return ErrorType.CLIENT_ERROR if http_status < _SERVER else ErrorType.SERVER_ERROR


def error_of_text(text: str) -> ErrorType:
    """Classify an error's name: an exception's class, a provider's code, or a status as text."""
    stripped = text.strip().lower()
    if re.fullmatch(r"[0-9]{3}", stripped):
        return error_of_status(int(stripped)) or ErrorType.OTHER
    if stripped.rpartition(".")[2] in _SAYS_NOTHING:
        return ErrorType.OTHER
    found = (kind for kind, pattern in _PATTERNS if pattern.search(stripped))
    return next(found, ErrorType.OTHER)


def error_of_message(message: str) -> ErrorType | None:
    """Classify a failure by its message; None where no word of it tells."""
    kind = error_of_text(message)
    return None if kind is ErrorType.OTHER else kind


def canonical_service_tier(text: str) -> str | None:
    """Return the tier that a price may hang on; `auto` lets the provider choose and says none."""
    tier = text.strip().lower()[:MAX_TIER_CHARS]
    return None if tier in {"", "auto", "null", "none", GATEWAY_CACHE} else tier


def canonical_finish_reason(text: str) -> str:
    """Answer OpenAI's name of a finish reason; an unknown one as it is, lowercase."""
    lowered = text.strip().lower().removeprefix(_ENUM)
    return _FINISH_REASONS.get(lowered, lowered)
