"""Every refusal as `application/problem+json` (RFC 9457), counted by its code.

A body never holds a stack, SQL or a path of the server: what we did not expect is logged with its
stack under the request id that the caller gets.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from controlplane import telemetry
from controlplane.api.body_paths import known_at
from controlplane.core.errors import (
    AuthenticationError,
    ControlPlaneError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    PolicyError,
    RateLimitedError,
    SpoolFullError,
)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 1
"""Told to a caller whose retry can help and for whom we know no better time."""
SERVER_ERROR: Final = 500
BAD_REQUEST: Final = 400
_SEE_FIELDS: Final = "See /api/v1/openapi.json for the fields"
_NAMED_FIELD: Final = re.compile(r"(missing required field|contains unknown field) `([^`]{1,64})`")
_UNSPOKEN: Final = {
    True: "It can not answer now. Retry",
    False: "The server failed; give the request id to its operator",
}
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")
_CODES: Final = {
    400: "invalid_input",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "limit_exceeded",
    415: "unsupported_media_type",
    503: "unavailable",
}
_FIXES: Final = {
    404: "See /api/v1/openapi.json for the paths",
    405: "Use a method of the Allow header",
    413: "Send less at once",
    415: "Send application/json",
}

log = structlog.stdlib.get_logger()


class FieldProblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One wrong value: where, what, and what would be accepted."""

    field: str
    problem: str
    fix: str = ""
    line: int | None = None


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An RFC 9457 body; `code` is stable, `request_id` finds our log line."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    instance: str
    errors: tuple[FieldProblem, ...] = ()


def request_id_of(request: Request[Any, Any, Any]) -> str:
    """Return the request's id: the caller's when it is a safe token, else one of ours."""
    state: dict[str, Any] = request.scope.setdefault("state", {})
    known = state.get("request_id")
    if known is None:
        told = request.headers.get("x-request-id", "")
        known = told if _SAFE_ID.fullmatch(told) else request.app.state.services.ids.new("req")
        state["request_id"] = known
    return str(known)


def refuse(
    request: Request[Any, Any, Any],
    *,
    status: int,
    code: str,
    detail: str,
    errors: tuple[FieldProblem, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Response[bytes]:
    """Build the problem response and count it."""
    telemetry.API_REFUSED.labels(code=code).inc()
    request_id = request_id_of(request)
    problem = Problem(
        type=f"urn:controlplane:problem:{code}",
        title=code.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        request_id=request_id,
        instance=request.url.path,
        errors=errors,
    )
    return Response(
        msgspec.json.encode(problem),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers={**(headers or {}), "x-request-id": request_id},
    )


def _headers_of(error: ControlPlaneError) -> dict[str, str]:
    if isinstance(error, AuthenticationError):
        return {"www-authenticate": 'Bearer realm="controlplane"'}
    if isinstance(error, (RateLimitedError, SpoolFullError)):
        return {"retry-after": str(error.retry_after_seconds)}
    return {"retry-after": str(RETRY_AFTER_SECONDS)} if error.retryable else {}


def _fields_of(error: ControlPlaneError) -> tuple[FieldProblem, ...]:
    if isinstance(error, InvalidInputError):
        line = error.line if isinstance(error, PolicyError) else None
        return (FieldProblem(error.field, error.problem, error.fix, line),)
    if isinstance(error, NotFoundError):
        return (FieldProblem(error.kind, "does not exist", error.fix),)
    if isinstance(error, LimitExceededError):
        return (FieldProblem(error.limit, f"at most {error.allowed}", error.hint),)
    return ()


def _on_ours(request: Request[Any, Any, Any], error: ControlPlaneError) -> Response[bytes]:
    if error.http_status >= SERVER_ERROR:
        log.warning("request_failed", code=error.code, path=request.url.path, exc_info=error)
    return refuse(
        request,
        status=error.http_status,
        code=error.code,
        # What a database or a setting says of itself is for the log.
        detail=str(error) if error.http_status < SERVER_ERROR else _UNSPOKEN[error.retryable],
        errors=_fields_of(error),
        headers=_headers_of(error),
    )


def _on_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    code = _CODES.get(
        error.status_code, "invalid_input" if error.status_code < SERVER_ERROR else ""
    )
    if not code:
        return _on_unexpected(request, error)
    errors = _body_problems(error, request) if error.status_code == BAD_REQUEST else ()
    detail = "; ".join(f"{wrong.field}: {wrong.problem}" for wrong in errors)
    detail = detail or error.detail or code.replace("_", " ")
    return refuse(
        request,
        status=error.status_code,
        code=code,
        detail=". ".join(filter(None, (detail, _FIXES.get(error.status_code, "")))),
        errors=errors,
        headers=error.headers,
    )


def _body_problems(
    error: HTTPException, request: Request[Any, Any, Any]
) -> tuple[FieldProblem, ...]:
    """Say which field of a body is wrong; the words are msgspec's, which quote no value."""
    if not isinstance(error, ValidationException) or not isinstance(error.extra, list):
        return (FieldProblem("body", "not valid JSON in UTF-8", "Send one JSON object"),)
    data = getattr(request.route_handler, "parsed_data_field", None)
    body = data.annotation if data else None
    return tuple(
        _body_problem(str(item.get("key", "")), str(item.get("message", "not accepted")), body)
        for item in error.extra
    )


def _body_problem(key: str, message: str, body: object) -> FieldProblem:
    # Litestar calls the whole body `data`, and says so when there is none.
    named = _NAMED_FIELD.search(message)
    is_choice = "unknown field" in message or "Invalid enum value" in message
    at_place = " - at " not in message  # litestar leaves a place that it does not know in the text
    known = known_at(body, "" if key == "data" else key) if is_choice and at_place else ()
    fix = f"Known: {', '.join(known)}" if known else _SEE_FIELDS
    if key != "data":
        return FieldProblem(key, message, fix)
    if named:
        return FieldProblem(named[2], message, fix)
    missing = message == repr(key)
    return FieldProblem("body", "missing" if missing else message, "Send one JSON object")


def _on_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log.error(
        "request_crashed",
        path=request.url.path,
        request_id=request_id_of(request),
        exc_info=error,
    )
    return refuse(
        request,
        status=SERVER_ERROR,
        code="internal_error",
        detail=_UNSPOKEN[False],
    )


def exception_handlers() -> ExceptionHandlersMap:
    """Return the handlers that turn every exception of a request into a problem."""
    return {
        ControlPlaneError: _on_ours,
        HTTPException: _on_http,
        Exception: _on_unexpected,
    }
