"""Each error says what is wrong and what to do, and carries the data that made it."""

import pytest

from controlplane.core.clock import FakeClock
from controlplane.core.errors import (
    AuthenticationError,
    ConfigError,
    ConflictError,
    ControlPlaneError,
    ForbiddenError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    PayloadError,
    PolicyError,
    RateLimitedError,
    SpoolFullError,
    StoreUnavailableError,
)
from controlplane.core.ids import SequentialIds

CASES: list[tuple[ControlPlaneError, str, int, bool]] = [
    (ConfigError("a.b", "is wrong", "Write 1"), "a.b: is wrong. Write 1", 500, False),
    (InvalidInputError("field", "is odd"), "field: is odd", 400, False),
    (InvalidInputError("field", "is odd", "Fix"), "field: is odd. Fix", 400, False),
    (PayloadError("truncated", "ends early", "Resend"), "body: ends early. Resend", 400, False),
    (PolicyError("rules[0]", "no id"), "rules[0]: no id", 422, False),
    (LimitExceededError("max_spans", 5, 9), "max_spans: at most 5, got 9.", 413, False),
    (LimitExceededError("max_spans", 5), "max_spans: at most 5. Send less", 413, False),
    (
        RateLimitedError("requests a minute", 60, retry_after_seconds=9),
        "requests a minute: at most 60. Retry after 9 s",
        429,
        True,
    ),
    (AuthenticationError("expired_key", "Make one"), "expired key. Make one", 401, False),
    (ForbiddenError("scope x"), "this key lacks scope x.", 403, False),
    (NotFoundError("budget", "b1"), "budget 'b1' does not exist", 404, False),
    (ConflictError("moved"), "moved", 409, False),
    (StoreUnavailableError("down"), "down", 503, True),
    (SpoolFullError(7), "Retry after 7 s", 429, True),
]


@pytest.mark.parametrize(("error", "words", "status", "retryable"), CASES)
def test_error(error: ControlPlaneError, words: str, status: int, *, retryable: bool) -> None:
    """The sentence, the HTTP status, and whether trying again can help."""
    assert words in str(error)
    assert (status, retryable) == (error.http_status, error.retryable)
    assert error.code != ControlPlaneError.code


def test_time_and_ids_come_from_outside() -> None:
    """The fakes that tests and simulators share."""
    clock, ids = FakeClock(), SequentialIds()
    before = clock.now()
    clock.advance(1.5)
    assert 1.5 == (clock.now() - before).total_seconds() == clock.monotonic()
    assert ["b_" + "0" * 25 + "1", "b_" + "0" * 25 + "2"] == [ids.new("b"), ids.new("b")]
