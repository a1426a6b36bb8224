"""How a call ended, from the many ways in which producers say it."""

import re
from typing import Final

from controlplane.signals.vocabulary import ErrorType

MAX_TIER_CHARS: Final = 32
_TOO_MANY: Final = 429
_TIMEOUTS: Final = frozenset({408, 504})
_CANCELLED: Final = 499
_CLIENT, _SERVER, _END = 400, 500, 600
_PATTERNS: Final = (
    (ErrorType.RATE_LIMITED, re.compile(r"rate.?limit|too.?many.?requests|quota|throttl")),
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
            r"|context.?window|content.?policy|client.?error"
        ),
    ),
)
_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool-calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "content-filter": "content_filter",
}


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
    found = (kind for kind, pattern in _PATTERNS if pattern.search(stripped))
    return next(found, ErrorType.OTHER)


def canonical_service_tier(text: str) -> str | None:
    """Return the tier that a price may hang on; `auto` lets the provider choose and says none."""
    tier = text.strip().lower()
    return None if tier in {"", "auto", "null", "none"} else tier[:MAX_TIER_CHARS]


def canonical_finish_reason(text: str) -> str:
    """Answer OpenAI's name of a finish reason; an unknown one as it is, lowercase."""
    lowered = text.strip().lower()
    return _FINISH_REASONS.get(lowered, lowered)
