"""What an upstream's answer says about the bill: is it free, known, or unknown."""

from typing import Final

RATE_LIMITED: Final = 429
REQUEST_TIMEOUT: Final = 408
CLIENT_CLOSED: Final = 499
REDIRECTS: Final = range(300, 400)
CLIENT_ERRORS: Final = range(400, 500)
SERVER_ERRORS: Final = range(500, 600)
MAYBE_SERVED: Final = frozenset({REQUEST_TIMEOUT, CLIENT_CLOSED, 502, 504, 524})
"""A gateway says these of a call that it lost sight of: the model may have run, and be billed."""


def is_free(status: int) -> bool:
    """Whether an answer with this status can not have cost anything: an error, or a redirect."""
    is_error = status in REDIRECTS or status in CLIENT_ERRORS or status in SERVER_ERRORS
    return is_error and status not in MAYBE_SERVED


def error_type(status: int | None) -> str:
    """Name an HTTP status in the vocabulary of `error_type`."""
    if status == RATE_LIMITED:
        return "rate_limited"
    if status in (REQUEST_TIMEOUT, 504, 524):
        return "timeout"
    if status == CLIENT_CLOSED:
        return "cancelled"
    if status in CLIENT_ERRORS:
        return "client_error"
    return "server_error" if status in SERVER_ERRORS else "other"
