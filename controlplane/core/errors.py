"""Every error we raise, drawn once; choose what to catch without reading further.

ControlPlaneError                      carries `code`, `retryable` and a sentence that names the fix
├── ConfigError                        a setting is wrong: refuse to start                     exit 2
├── InvalidInputError                  a caller's value is wrong: field and fix                400
│   ├── PayloadError                   bytes that are not the telemetry they claim to be      400
│   └── PolicyError                    a policy document that must not be applied             422
├── LimitExceededError                 a named limit was hit                                   413
├── RateLimitedError                   too many requests in a minute: wait                     429
├── AuthenticationError                no, unknown, expired or revoked credential              401
├── ForbiddenError                     a valid credential without the scope or tenant          403
├── NotFoundError                                                                              404
├── ConflictError                      the state moved under the caller (ETag, unique key)     409
└── UnavailableError                   a dependency can not answer now; a retry can help       503
    ├── StoreUnavailableError          the span store; nothing was written
    └── SpoolFullError                 back-pressure: retry after the spool has drained
"""

from typing import ClassVar


class ControlPlaneError(Exception):
    """Base of the tree; `code` is stable and machine-readable."""

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False


class ConfigError(ControlPlaneError):
    """A setting is wrong; `key` is its dotted name, `fix` says what to write instead."""

    code = "bad_config"

    def __init__(self, key: str, problem: str, fix: str) -> None:
        self.key = key
        self.problem = problem
        self.fix = fix
        super().__init__(f"{key}: {problem}. {fix}")


class InvalidInputError(ControlPlaneError):
    """A value from outside is wrong; `field` names it, `fix` says what would be accepted."""

    code = "invalid_input"
    http_status = 400

    def __init__(self, field: str, problem: str, fix: str = "") -> None:
        self.field = field
        self.problem = problem
        self.fix = fix
        super().__init__(f"{field}: {problem}" + (f". {fix}" if fix else ""))


class PayloadError(InvalidInputError):
    """Bytes that are not what their content type says; `reason` is the counter's label."""

    code = "malformed_payload"

    def __init__(self, reason: str, problem: str, fix: str = "") -> None:
        self.reason = reason
        super().__init__("body", problem, fix)


class PolicyError(InvalidInputError):
    """A policy document that must not be applied; `line` is where in the authored text."""

    code = "invalid_policy"
    http_status = 422

    def __init__(self, field: str, problem: str, fix: str = "", *, line: int | None = None) -> None:
        self.line = line
        super().__init__(field, problem, fix)
        if line is not None:
            self.args = (f"line {line}: {self.args[0]}",)


class LimitExceededError(ControlPlaneError):
    """A named limit was hit; `limit` is its settings key."""

    code = "limit_exceeded"
    http_status = 413

    def __init__(
        self,
        limit: str,
        allowed: int,
        seen: int | None = None,
        *,
        hint: str = "Send less at once or raise the limit",
    ) -> None:
        self.limit = limit
        self.allowed = allowed
        self.seen = seen
        self.hint = hint
        got = "" if seen is None else f", got {seen}"
        super().__init__(f"{limit}: at most {allowed}{got}. {hint}")


class RateLimitedError(ControlPlaneError):
    """Too many requests; `retry_after_seconds` is when the next one fits."""

    code = "rate_limited"
    http_status = 429
    retryable = True

    def __init__(self, limit: str, allowed: int, *, retry_after_seconds: int) -> None:
        self.limit = limit
        self.allowed = allowed
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{limit}: at most {allowed}. Retry after {retry_after_seconds} s")


class AuthenticationError(ControlPlaneError):
    """No, unknown, expired or revoked credential; `reason` is the counter's label."""

    code = "unauthenticated"
    http_status = 401

    def __init__(self, reason: str, fix: str) -> None:
        self.reason = reason
        super().__init__(f"{reason.replace('_', ' ')}. {fix}")


class ForbiddenError(ControlPlaneError):
    """A valid credential that lacks the scope or belongs to another tenant."""

    code = "forbidden"
    http_status = 403

    def __init__(self, needed: str) -> None:
        self.needed = needed
        super().__init__(f"this key lacks {needed}. Use a key that has it")


class NotFoundError(ControlPlaneError):
    """The thing named does not exist for this principal; `fix` says what would make it, if known."""

    code = "not_found"
    http_status = 404

    def __init__(self, kind: str, key: str, fix: str = "") -> None:
        self.kind = kind
        self.key = key
        self.fix = fix
        super().__init__(f"{kind} {key!r} does not exist" + (f". {fix}" if fix else ""))


class ConflictError(ControlPlaneError):
    """The state moved under the caller."""

    code = "conflict"
    http_status = 409


class UnavailableError(ControlPlaneError):
    """A dependency can not answer now."""

    code = "unavailable"
    http_status = 503
    retryable = True


class StoreUnavailableError(UnavailableError):
    """The span store can not answer; nothing was written."""

    code = "store_unavailable"


class SpoolFullError(UnavailableError):
    """The spool is at its size limit; `retry_after_seconds` is when to try again."""

    code = "spool_full"
    http_status = 429

    def __init__(self, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"the spool is full. Retry after {retry_after_seconds} s")
