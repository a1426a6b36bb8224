"""OTLP/gRPC against a real channel, and both transports against the official exporters."""

import threading
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter

from collectors.otlp.collector import OtlpCollector
from collectors.spool import SqliteSpool
from controlplane.ingest.limits import Limits
from controlplane.ingest.ports import SpoolEntry

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
RequestOf = Callable[..., bytes]
Refused = Callable[[str], float]


@pytest.fixture
def spool(open_spool: Callable[..., SqliteSpool]) -> SqliteSpool:
    return open_spool(max_bytes=40_000_000)


@pytest.fixture
def collector(spool: SqliteSpool, start_collector: Callable[..., OtlpCollector]) -> OtlpCollector:
    limits = Limits(max_compressed_bytes=100_000, max_decompressed_bytes=8 * 2**20)
    return start_collector(spool, limits=limits)


@pytest.fixture
def channel(collector: OtlpCollector) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{collector.grpc_port}") as channel:
        yield channel


def _kept(spool: SqliteSpool) -> list[SpoolEntry]:
    batch = spool.claim(max_bytes=2**30, max_entries=1000)
    return [] if batch is None else list(batch.entries)


def _export(
    channel: grpc.Channel,
    body: bytes,
    *,
    metadata: tuple[tuple[str, str], ...] = (),
    compression: grpc.Compression | None = None,
    method: str = EXPORT,
) -> bytes:
    export = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
    answer: bytes = export(body, timeout=60, metadata=metadata, compression=compression)
    return answer


def _refusal(
    channel: grpc.Channel,
    body: bytes,
    *,
    metadata: tuple[tuple[str, str], ...] = (),
    compression: grpc.Compression | None = None,
    method: str = EXPORT,
) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """Send raw bytes; return the status, and the rich one from the trailers."""
    export = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
    call = export.future(body, timeout=60, metadata=metadata, compression=compression)
    trailers = dict(call.trailing_metadata())
    rich = trailers.get("grpc-status-details-bin", b"")
    assert isinstance(rich, bytes)
    return call.code(), status_pb2.Status.FromString(rich)


@pytest.mark.parametrize("compression", list(grpc.Compression))
def test_request_is_acknowledged_once_it_is_in_the_spool(
    channel: grpc.Channel,
    spool: SqliteSpool,
    request_of: RequestOf,
    good_key: str,
    compression: grpc.Compression,
) -> None:
    body = request_of(40)
    answer = _export(
        channel, body, metadata=(("authorization", good_key),), compression=compression
    )
    assert ExportTraceServiceResponse() == ExportTraceServiceResponse.FromString(answer)
    (entry,) = _kept(spool)
    assert (body, "acme") == (entry.payload.body, entry.sender.tenant)


def test_truncated_protobuf_is_invalid_and_loses_nothing_else(
    channel: grpc.Channel, spool: SqliteSpool, request_of: RequestOf, refused: Refused
) -> None:
    before = refused("malformed_payload")
    good = request_of(4)
    code, status = _refusal(channel, good[:-3])
    assert (grpc.StatusCode.INVALID_ARGUMENT, 3) == (code, status.code)
    assert status.message
    _export(channel, good)
    assert before + 1 == refused("malformed_payload")
    assert [good] == [e.payload.body for e in _kept(spool)]


def test_expired_key_is_unauthenticated(
    channel: grpc.Channel, spool: SqliteSpool, request_of: RequestOf, refused: Refused
) -> None:
    before = refused("expired_key")
    code, status = _refusal(
        channel, request_of(1), metadata=(("authorization", "Bearer cp_ingest_k2_old"),)
    )
    assert grpc.StatusCode.UNAUTHENTICATED == code
    assert "key create" in status.message
    assert before + 1 == refused("expired_key")
    assert [] == _kept(spool)


def test_full_spool_is_exhausted_with_retry_info(
    channel: grpc.Channel, spool: SqliteSpool, request_of: RequestOf
) -> None:
    spool._max_bytes = 0
    code, status = _refusal(channel, request_of(1))
    assert grpc.StatusCode.RESOURCE_EXHAUSTED == code
    info = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.retry_delay.seconds > 0


def test_large_request_is_exhausted_without_retry_info(
    channel: grpc.Channel, refused: Refused
) -> None:
    """Without RetryInfo a sender does not send the same again."""
    before = refused("max_compressed_bytes")
    code, status = _refusal(channel, b"\x0a" * 100_001)
    assert grpc.StatusCode.RESOURCE_EXHAUSTED == code
    assert [] == list(status.details)
    assert before + 1 == refused("max_compressed_bytes")


def test_bomb_is_refused_by_our_own_bound_and_counted(
    channel: grpc.Channel, refused: Refused
) -> None:
    reasons = ("max_decompressed_bytes", "max_compression_ratio")
    before = sum(map(refused, reasons))
    code, _ = _refusal(channel, bytes(16 * 2**20), compression=grpc.Compression.Gzip)
    assert grpc.StatusCode.RESOURCE_EXHAUSTED == code
    assert before + 1 == sum(map(refused, reasons))


def test_logs_about_no_call_are_told_that_nothing_keeps_them(
    channel: grpc.Channel, spool: SqliteSpool
) -> None:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "hello"
    method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
    answer = _export(channel, request.SerializeToString(), method=method)
    response = ExportLogsServiceResponse.FromString(answer)
    assert 1 == response.partial_success.rejected_log_records
    assert [] == _kept(spool)


def test_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    code, _ = _refusal(channel, b"", method="/a.B/Export")
    assert grpc.StatusCode.UNIMPLEMENTED == code


@pytest.mark.parametrize("transport", ["grpc", "grpc+gzip", "http"])
def test_official_exporters_deliver(
    collector: OtlpCollector, spool: SqliteSpool, transport: str
) -> None:
    exporter: SpanExporter
    if transport == "http":
        exporter = HttpExporter(f"http://127.0.0.1:{collector.http_port}/v1/traces")
    else:
        exporter = GrpcExporter(
            f"http://127.0.0.1:{collector.grpc_port}",
            insecure=True,
            compression=grpc.Compression.Gzip if "gzip" in transport else None,
        )
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("t").start_as_current_span("a call"):
        pass
    provider.shutdown()
    (entry,) = _kept(spool)
    request = ExportTraceServiceRequest.FromString(entry.payload.body)
    assert "a call" == request.resource_spans[0].scope_spans[0].spans[0].name


def test_many_senders_at_once_are_each_kept_once(
    channel: grpc.Channel, spool: SqliteSpool, request_of: RequestOf
) -> None:
    bodies = [request_of(2) for _ in range(120)]

    def send(part: list[bytes]) -> None:
        for body in part:
            _export(channel, body)

    threads = [threading.Thread(target=send, args=(bodies[i::12],)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bodies) == sorted(e.payload.body for e in _kept(spool))
