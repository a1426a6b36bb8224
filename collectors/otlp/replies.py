"""What a receiver answers, in both encodings, as the OTLP specification 1.x prescribes it."""

from typing import Final

import msgspec

from collectors.otlp.envelope import ITEMS
from collectors.otlp.envelope_pb2 import (
    Detail,
    Duration,
    ExportResponse,
    PartialSuccess,
    RetryInfo,
    Status,
)
from controlplane.core.errors import (
    AuthenticationError,
    ControlPlaneError,
    LimitExceededError,
    PayloadError,
    SpoolFullError,
)
from controlplane.ingest.ports import ContentType, Signal

MEDIA_TYPES: Final[dict[ContentType, str]] = {
    "protobuf": "application/x-protobuf",
    "json": "application/json",
}
_RETRY_INFO_URL: Final = "type.googleapis.com/google.rpc.RetryInfo"
_RETRY_SECONDS: Final = 1

GRPC_CODES: Final = {
    400: 3,  # INVALID_ARGUMENT
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: 12,  # UNIMPLEMENTED
    405: 12,
    408: 4,  # DEADLINE_EXCEEDED
    413: 8,  # RESOURCE_EXHAUSTED; without RetryInfo it is not to be sent again
    415: 3,
    429: 8,
    500: 13,  # INTERNAL
    503: 14,  # UNAVAILABLE
}


class Accepted(msgspec.Struct, frozen=True):
    """The request is on disk, except `rejected` items, for the reason in `message`."""

    signal: Signal
    rejected: int = 0
    message: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """Nothing was kept; `reason` is the counter's label, the message names the fix."""

    http_status: int
    reason: str
    message: str
    retry_after_seconds: int | None = None


def refusal_of(error: ControlPlaneError) -> Refusal:
    """Translate an error of ours."""
    if isinstance(error, SpoolFullError):
        return Refusal(429, error.code, str(error), error.retry_after_seconds)
    if isinstance(error, PayloadError | AuthenticationError):
        return Refusal(error.http_status, error.reason, str(error))
    if isinstance(error, LimitExceededError):
        return Refusal(error.http_status, error.limit, str(error))
    retry = _RETRY_SECONDS if error.retryable else None
    return Refusal(error.http_status, error.code, str(error), retry)


def accepted_body(accepted: Accepted, content_type: ContentType) -> bytes:
    """Encode an Export…ServiceResponse; empty where all was kept."""
    if content_type == "protobuf":
        response = ExportResponse()
        if accepted.message:
            response.partial_success.CopyFrom(
                PartialSuccess(rejected=accepted.rejected, error_message=accepted.message)
            )
        encoded: bytes = response.SerializeToString()
        return encoded
    if not accepted.message:
        return b"{}"
    first, *rest = ITEMS[accepted.signal].split("_")
    field = "rejected" + first.capitalize() + "".join(word.capitalize() for word in rest)
    partial = {field: str(accepted.rejected), "errorMessage": accepted.message}
    return msgspec.json.encode({"partialSuccess": partial})


def refusal_body(refusal: Refusal, content_type: ContentType) -> bytes:
    """Encode a google.rpc.Status, with RetryInfo where sending again can help."""
    code = GRPC_CODES.get(refusal.http_status, 2)
    seconds = refusal.retry_after_seconds
    if content_type == "json":
        status: dict[str, object] = {"code": code, "message": refusal.message}
        if seconds is not None:
            status["details"] = [{"@type": _RETRY_INFO_URL, "retryDelay": f"{seconds}s"}]
        return msgspec.json.encode(status)
    details = []
    if seconds is not None:
        info = RetryInfo(retry_delay=Duration(seconds=seconds))
        details.append(Detail(type_url=_RETRY_INFO_URL, value=info.SerializeToString()))
    encoded: bytes = Status(code=code, message=refusal.message, details=details).SerializeToString()
    return encoded
