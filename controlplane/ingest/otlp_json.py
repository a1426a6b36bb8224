"""Reads OTLP/JSON into the same split form as protobuf, so that one path decodes both.

The mapping is protobuf's JSON mapping with OTLP's exceptions (opentelemetry-proto,
docs/specification "JSON Protobuf Encoding"): ids are hex, 64-bit integers may be strings, enums
are numbers (names are accepted too), keys are lowerCamelCase, unknown keys are ignored. A value
that can not be read loses itself, never its span.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from controlplane.core.errors import LimitExceededError, PayloadError
from controlplane.ingest import otlp_pb2 as pb
from controlplane.ingest.json_scalars import (
    as_bool,
    as_double,
    as_enum,
    as_id,
    as_int64,
    as_uint64,
    member,
    objects_of,
)
from controlplane.ingest.limits import Limits
from controlplane.ingest.otlp_split import SpanGroup, SplitRequest

_SPAN_KINDS: Final = {
    "SPAN_KIND_UNSPECIFIED": 0,
    "SPAN_KIND_INTERNAL": 1,
    "SPAN_KIND_SERVER": 2,
    "SPAN_KIND_CLIENT": 3,
    "SPAN_KIND_PRODUCER": 4,
    "SPAN_KIND_CONSUMER": 5,
}
_STATUS_CODES: Final = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}
MALFORMED_SPAN: Final = b"\x00"
"""Not a valid message: stands for a JSON span that could not be read, and is rejected as such."""


def split_json_request(body: bytes, *, limits: Limits) -> SplitRequest:
    """Read a JSON ExportTraceServiceRequest; a span that can not be read is MALFORMED_SPAN.

    Raises:
        PayloadError: not JSON, or not an object of this shape (`malformed_payload`).
        LimitExceededError: more than `max_spans_per_request`.
    """
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _malformed(f"it is not JSON ({error})") from None
    groups: list[SpanGroup] = []
    spans: list[bytes] = []
    try:
        for resource_spans in objects_of(request, "resourceSpans"):
            resource = _resource(resource_spans.get("resource"), limits=limits)
            for scope_spans in objects_of(resource_spans, "scopeSpans"):
                found = objects_of(scope_spans, "spans")
                if len(spans) + len(found) > limits.max_spans_per_request:
                    raise LimitExceededError(
                        "max_spans_per_request",
                        limits.max_spans_per_request,
                        len(spans) + len(found),
                    )
                if found:
                    scope = _scope(scope_spans.get("scope"))
                    groups.append(SpanGroup(resource, scope, len(found)))
                    spans += [_span_or_malformed(span, limits=limits) for span in found]
    except (TypeError, ValueError) as error:
        raise _malformed(str(error)) from None
    return SplitRequest(groups, spans)


def _span_or_malformed(span: Mapping[str, Any], *, limits: Limits) -> bytes:
    try:
        return _span(span, limits=limits)
    except (TypeError, ValueError, OverflowError, AttributeError, RecursionError):
        return MALFORMED_SPAN


def _span(span: Mapping[str, Any], *, limits: Limits) -> bytes:
    message = pb.Span(
        trace_id=as_id(member(span, "traceId"), 16),
        span_id=as_id(member(span, "spanId"), 8),
        parent_span_id=as_id(member(span, "parentSpanId"), 8),
        name=_text(span.get("name")),
        kind=as_enum(span.get("kind"), _SPAN_KINDS, prefix="SPAN_KIND_"),
        start_time_unix_nano=as_uint64(member(span, "startTimeUnixNano")),
        end_time_unix_nano=as_uint64(member(span, "endTimeUnixNano")),
        attributes=_attributes(span, depth=limits.max_nesting),
        events=[
            pb.Event(
                time_unix_nano=as_uint64(member(event, "timeUnixNano")),
                name=_text(event.get("name")),
                attributes=[
                    pair.SerializeToString()
                    for pair in _attributes(event, depth=limits.max_nesting)
                ],
            )
            for event in objects_of(span, "events")
        ],
    )
    status = span.get("status")
    if isinstance(status, dict):
        message.status.code = as_enum(status.get("code"), _STATUS_CODES, prefix="STATUS_CODE_")
        message.status.message = _text(status.get("message"))
    return bytes(message.SerializeToString())


def _resource(resource: object, *, limits: Limits) -> bytes:
    if not isinstance(resource, dict):
        return b""
    pairs = _attributes(resource, depth=limits.max_nesting)
    return bytes(pb.Resource(attributes=pairs).SerializeToString())


def _scope(scope: object) -> bytes:
    if not isinstance(scope, dict):
        return b""
    message = pb.Scope(name=_text(scope.get("name")), version=_text(scope.get("version")))
    return bytes(message.SerializeToString())


def _attributes(holder: Mapping[str, Any], *, depth: int) -> list[pb.KeyValue]:
    return [_pair(pair, depth=depth) for pair in objects_of(holder, "attributes")]


def _pair(pair: Mapping[str, Any], *, depth: int) -> pb.KeyValue:
    return pb.KeyValue(key=_text(pair.get("key")), value=_any_value(pair.get("value"), depth=depth))


def _any_value(value: object, *, depth: int) -> pb.AnyValue:
    """Write one value; what is unknown, or nested deeper than `depth`, is an empty value."""
    if not isinstance(value, dict) or depth == 0:
        return pb.AnyValue()
    try:
        for name, read in _SCALARS.items():
            if (scalar := member(value, name)) is not None:
                return read(scalar)
        if (array := member(value, "arrayValue")) is not None:
            items = [_any_value(v, depth=depth - 1) for v in objects_of(array, "values")]
            return pb.AnyValue(array_value=pb.ArrayValue(values=items).SerializeToString())
        if (listed := member(value, "kvlistValue")) is not None:
            pairs = [_pair(p, depth=depth - 1) for p in objects_of(listed, "values")]
            return pb.AnyValue(kvlist_value=pb.KeyValueList(values=pairs).SerializeToString())
    except (TypeError, ValueError, OverflowError):
        return pb.AnyValue()
    return pb.AnyValue()


_SCALARS: Final[dict[str, Callable[[object], pb.AnyValue]]] = {
    "stringValue": lambda v: pb.AnyValue(string_value=_text(v)),
    "boolValue": lambda v: pb.AnyValue(bool_value=as_bool(v)),
    "intValue": lambda v: pb.AnyValue(int_value=as_int64(v)),
    "doubleValue": lambda v: pb.AnyValue(double_value=as_double(v)),
    "bytesValue": lambda _: pb.AnyValue(bytes_value=b""),  # never read, so never decoded
}


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        msg = "a text is not a string"
        raise TypeError(msg)
    return value.encode("utf-8", "replace").decode()  # a lone surrogate is not text


def _malformed(problem: str) -> PayloadError:
    return PayloadError(
        "malformed_payload",
        f"not an OTLP/JSON ExportTraceServiceRequest: {problem}",
        "Send lowerCamelCase keys and hex ids as the OTLP specification describes",
    )
