"""Spans built with the official protobuf classes, decoded and normalised by the code under test."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from controlplane.ingest.limits import DEFAULT_LIMITS, Limits
from controlplane.ingest.normalize import normalize
from controlplane.ingest.otlp import Decoded, decode_requests
from controlplane.ingest.ports import Payload
from controlplane.signals.sender import KEYLESS_SENDER

RECEIVED_AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
START = 1_790_000_000_000_000_000


@pytest.fixture
def make_request() -> Callable[..., ExportTraceServiceRequest]:
    """Build a request of one span: `scope`, span fields, and attributes as Python values."""

    def build(
        attributes: dict[str, Any] | None = None,
        *,
        scope: str = "opentelemetry.instrumentation.openai_v2",
        resource: dict[str, Any] | None = None,
        **fields: Any,
    ) -> ExportTraceServiceRequest:
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        group.resource.attributes.extend(_pairs(resource or {"service.name": "app"}))
        scope_spans = group.scope_spans.add()
        scope_spans.scope.name = scope
        values = {
            "trace_id": bytes(range(16)),
            "span_id": bytes(range(1, 9)),
            "name": "chat gpt-4o",
            "start_time_unix_nano": START,
            "end_time_unix_nano": START + 2_000_000_000,
            **fields,
        }
        scope_spans.spans.append(Span(**values, attributes=_pairs(attributes or {})))
        return request

    return build


def _pairs(attributes: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_any(value)) for key, value in attributes.items()]


def _any(value: object) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=str(value))


@pytest.fixture
def decode() -> Callable[..., Decoded]:
    """Decode bodies as keyless requests."""

    def run(*bodies: bytes, json: bool = False, limits: Limits = DEFAULT_LIMITS) -> Decoded:
        return decode_requests(
            [Payload(body, "json" if json else "protobuf") for body in bodies],
            senders=[KEYLESS_SENDER] * len(bodies),
            received_at=[RECEIVED_AT] * len(bodies),
            limits=limits,
        )

    return run


@pytest.fixture
def normalized(decode: Callable[..., Decoded]) -> Callable[..., dict[str, Any]]:
    """Answer the one normalised row of a request."""

    def run(request: ExportTraceServiceRequest) -> dict[str, Any]:
        table: pa.Table = normalize(decode(request.SerializeToString()))
        (row,) = table.to_pylist()
        return {**row, "attributes": dict(row["attributes"])}

    return run
