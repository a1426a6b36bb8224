"""OTLP/HTTP as the specification prescribes it, against real sockets and a real spool."""

import contextlib
import gzip
import json
import resource
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
import zstandard
from google.rpc import status_pb2
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from collectors.otlp.collector import OtlpCollector
from collectors.spool import SqliteSpool
from controlplane.bootstrap.system import SystemClock
from controlplane.core.errors import UnavailableError
from controlplane.ingest.limits import Limits
from controlplane.ingest.ports import KeyResolver, SpoolEntry
from controlplane.signals.sender import Sender

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
SMALL = Limits(
    max_compressed_bytes=10_000, max_decompressed_bytes=50_000, max_spans_per_request=100
)

Post = Callable[..., httpx.Response]
RequestOf = Callable[..., bytes]
Refused = Callable[[str], float]


@pytest.fixture
def spool(open_spool: Callable[..., SqliteSpool]) -> SqliteSpool:
    return open_spool(max_bytes=40_000_000)


@pytest.fixture
def collector(spool: SqliteSpool, start_collector: Callable[..., OtlpCollector]) -> OtlpCollector:
    return start_collector(spool)


def _client(port: int) -> Post:
    def post(
        body: bytes | Iterator[bytes], headers: dict[str, str], path: str = "/v1/traces"
    ) -> httpx.Response:
        url = f"http://127.0.0.1:{port}{path}"
        return httpx.post(url, content=body, headers=headers, timeout=60)

    return post


@pytest.fixture
def post(collector: OtlpCollector) -> Post:
    return _client(collector.http_port)


@pytest.fixture
def small(spool: SqliteSpool, start_collector: Callable[..., OtlpCollector]) -> OtlpCollector:
    return start_collector(spool, limits=SMALL)


@pytest.fixture
def post_small(small: OtlpCollector) -> Post:
    return _client(small.http_port)


def _kept(spool: SqliteSpool) -> list[SpoolEntry]:
    batch = spool.claim(max_bytes=2**30, max_entries=1000)
    return [] if batch is None else list(batch.entries)


def _status(response: httpx.Response) -> status_pb2.Status:
    assert "application/x-protobuf" == response.headers["content-type"]
    return status_pb2.Status.FromString(response.content)


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("", bytes),
        ("identity", bytes),
        ("gzip", gzip.compress),
        ("GZIP", lambda b: gzip.compress(b[:50]) + gzip.compress(b[50:])),
        ("zstd", zstandard.compress),
        ("zstd", lambda b: zstandard.compress(b[:50]) + zstandard.compress(b[50:])),
    ],
)
def test_protobuf_is_acknowledged_once_it_is_in_the_spool(
    post: Post,
    spool: SqliteSpool,
    request_of: RequestOf,
    encoding: str,
    encode: Callable[[bytes], bytes],
) -> None:
    body = request_of(3)
    headers = PROTOBUF | ({"content-encoding": encoding} if encoding else {})
    answer = post(encode(body), headers)
    assert (200, "application/x-protobuf") == (answer.status_code, answer.headers["content-type"])
    assert ExportTraceServiceResponse() == ExportTraceServiceResponse.FromString(answer.content)
    (entry,) = _kept(spool)
    assert (body, "protobuf", "traces") == (
        entry.payload.body,
        entry.payload.content_type,
        entry.payload.signal,
    )


def test_json_is_answered_in_json(post: Post, spool: SqliteSpool) -> None:
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "name": "chat",
        "startTimeUnixNano": "1700000000000000000",
        "endTimeUnixNano": "1700000001000000000",
    }
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    answer = post(body, {"content-type": "application/json; charset=utf-8"})
    assert (200, {}) == (answer.status_code, answer.json())
    assert [("json", body)] == [(e.payload.content_type, e.payload.body) for e in _kept(spool)]


def test_sender_is_who_the_key_says(
    post: Post, spool: SqliteSpool, request_of: RequestOf, good_key: str
) -> None:
    post(request_of(1), PROTOBUF | {"authorization": good_key})
    post(request_of(1), PROTOBUF)
    assert [("acme", "k1"), ("default", "")] == [
        (e.sender.tenant, e.sender.key_id) for e in _kept(spool)
    ]
    assert isinstance(_kept(spool)[0].sender, Sender)


def test_empty_request_is_fine_and_keeps_nothing(post: Post, spool: SqliteSpool) -> None:
    assert 200 == post(b"", PROTOBUF).status_code
    assert [] == _kept(spool)


def test_expired_key_gets_401_before_the_body_is_read(
    post: Post, spool: SqliteSpool, request_of: RequestOf, refused: Refused
) -> None:
    before = refused("expired_key")
    answer = post(request_of(1), PROTOBUF | {"authorization": "Bearer cp_ingest_k2_old"})
    assert (401, 16) == (answer.status_code, _status(answer).code)
    assert "key create" in _status(answer).message
    assert before + 1 == refused("expired_key")
    assert [] == _kept(spool)


def test_key_of_another_kind_gets_403(post: Post, request_of: RequestOf) -> None:
    answer = post(request_of(1), PROTOBUF | {"authorization": "Bearer cp_user_k3_good"})
    assert (403, 7) == (answer.status_code, _status(answer).code)


def test_truncated_protobuf_gets_400_and_loses_nothing_else(
    post: Post, spool: SqliteSpool, request_of: RequestOf, refused: Refused
) -> None:
    before = refused("malformed_payload")
    good = request_of(5)
    post(good, PROTOBUF)
    answer = post(good[:-7], PROTOBUF)
    post(good, PROTOBUF)
    assert (400, 3) == (answer.status_code, _status(answer).code)
    assert "Send" in _status(answer).message
    assert before + 1 == refused("malformed_payload")
    assert [good, good] == [e.payload.body for e in _kept(spool)]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"resourceSpans": 3}', b"\xff\xfe", b"[" * 5000])
def test_malformed_json_gets_400_in_json(
    post: Post, spool: SqliteSpool, refused: Refused, body: bytes
) -> None:
    before = refused("malformed_payload")
    answer = post(body, JSON)
    assert (400, 3) == (answer.status_code, answer.json()["code"])
    assert answer.json()["message"]
    assert before + 1 == refused("malformed_payload")
    assert [] == _kept(spool)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"content-type": "text/plain"}, "unsupported_content_type"),
        ({}, "unsupported_content_type"),
        (PROTOBUF | {"content-encoding": "br"}, "unsupported_encoding"),
        (PROTOBUF | {"content-encoding": "gzip, gzip"}, "unsupported_encoding"),
    ],
)
def test_unsupported_media_gets_415_that_names_what_is(
    post: Post, request_of: RequestOf, refused: Refused, headers: dict[str, str], reason: str
) -> None:
    before = refused(reason)
    answer = post(request_of(1), headers)
    assert 415 == answer.status_code
    assert b"application/x-protobuf" in answer.content or b"gzip" in answer.content
    assert before + 1 == refused(reason)


def test_other_paths_get_404_and_other_methods_405(post: Post, collector: OtlpCollector) -> None:
    assert 404 == post(b"", PROTOBUF, "/v1/profiles").status_code
    answer = httpx.get(f"http://127.0.0.1:{collector.http_port}/v1/traces", headers=PROTOBUF)
    assert (405, "POST") == (answer.status_code, answer.headers["allow"])


def test_full_spool_gets_429_with_retry_after_and_takes_it_later(
    post: Post, spool: SqliteSpool, request_of: RequestOf, refused: Refused
) -> None:
    before = refused("spool_full")
    spool._max_bytes = spool._bytes
    body = request_of(2)
    answer = post(body, PROTOBUF)
    assert (429, 8) == (answer.status_code, _status(answer).code)
    assert int(answer.headers["retry-after"]) > 0
    assert "type.googleapis.com/google.rpc.RetryInfo" == _status(answer).details[0].type_url
    assert (
        "5s"
        == post(b'{"resourceSpans":[{"scopeSpans":[{"spans":[{}]}]}]}', JSON).json()["details"][0][
            "retryDelay"
        ]
    )
    assert before + 2 == refused("spool_full")
    spool._max_bytes = 10_000_000
    assert 200 == post(body, PROTOBUF).status_code
    assert [body] == [e.payload.body for e in _kept(spool)]


def test_body_over_the_limit_gets_413_by_length_and_by_stream(
    post_small: Post, spool: SqliteSpool, refused: Refused
) -> None:
    before = refused("max_compressed_bytes")
    announced = post_small(b"\x0a" * 10_001, PROTOBUF)
    streamed = post_small(iter([b"\x0a" * 4000] * 10), PROTOBUF)
    assert [413, 413] == [announced.status_code, streamed.status_code]
    assert "max_compressed_bytes" in _status(announced).message
    assert before + 2 == refused("max_compressed_bytes")
    assert [] == _kept(spool)


@pytest.mark.parametrize("order", [1, -1])
def test_a_length_beside_chunks_does_not_lift_the_limit(
    small: OtlpCollector, spool: SqliteSpool, order: int
) -> None:
    """Both headers at once are how requests are smuggled; the body is four times the limit."""
    framing = [b"content-length: 5", b"transfer-encoding: chunked"]
    head = [
        b"POST /v1/traces HTTP/1.1",
        b"host: x",
        b"content-type: application/x-protobuf",
        *framing[::order],
    ]
    chunks = (b"fa0\r\n" + b"\x0a" * 4000 + b"\r\n") * 10 + b"0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", small.http_port), timeout=60) as connection:
        connection.sendall(b"\r\n".join(head) + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            connection.sendall(chunks)
            answer = connection.recv(10_000)
            assert answer.split(b" ")[1:2] in ([], [b"400"], [b"413"])
    assert [] == _kept(spool)


def test_too_many_spans_get_413(post_small: Post, request_of: RequestOf) -> None:
    assert 413 == post_small(request_of(101, text=""), PROTOBUF).status_code
    assert 200 == post_small(request_of(100, text=""), PROTOBUF).status_code


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_bomb_gets_413_quickly_and_without_the_memory(
    post: Post, spool: SqliteSpool, request_of: RequestOf, refused: Refused, encoding: str
) -> None:
    """A gigabyte of zeros; memory rises by the limit of 64 MiB and some slack at most."""
    reasons = ("max_decompressed_bytes", "max_compression_ratio")
    before = sum(map(refused, reasons))
    bomb = _zeros(encoding, 2**30)
    peak_before, started = _peak_bytes(), time.monotonic()
    answer = post(bomb, PROTOBUF | {"content-encoding": encoding})
    assert (413, 8) == (answer.status_code, _status(answer).code)
    assert time.monotonic() - started < 30
    assert _peak_bytes() - peak_before < 96 * 2**20
    assert before + 1 == sum(map(refused, reasons))
    assert 200 == post(request_of(1), PROTOBUF).status_code
    assert 1 == len(_kept(spool))


def _zeros(encoding: str, size: int) -> bytes:
    block = bytes(2**20)
    if encoding == "zstd":
        packer = zstandard.ZstdCompressor().compressobj()
        return b"".join(packer.compress(block) for _ in range(size // 2**20)) + packer.flush()
    one = gzip.compress(bytes(64 * 2**20))
    return one * (size // (64 * 2**20))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    ("encoding", "spoil"),
    [
        ("gzip", lambda b: gzip.compress(b)[:-5]),
        ("gzip", lambda b: gzip.compress(b) + b"tail"),
        ("gzip", lambda b: b),
        ("zstd", lambda b: zstandard.compress(b)[:-5]),
        ("zstd", lambda b: zstandard.compress(b) + b"tail"),
        ("zstd", lambda b: b),
    ],
)
def test_damaged_compression_gets_400(
    post: Post,
    spool: SqliteSpool,
    request_of: RequestOf,
    refused: Refused,
    encoding: str,
    spoil: Callable[[bytes], bytes],
) -> None:
    before = refused(f"malformed_{encoding}")
    answer = post(spoil(request_of(50)), PROTOBUF | {"content-encoding": encoding})
    assert (400, 3) == (answer.status_code, _status(answer).code)
    assert before + 1 == refused(f"malformed_{encoding}")
    assert [] == _kept(spool)


def _metrics() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    gauge, histogram = metrics.add(), metrics.add()
    gauge.gauge.data_points.add(as_int=1, time_unix_nano=1)
    gauge.gauge.data_points.add(as_int=2, time_unix_nano=2)
    histogram.histogram.data_points.add(count=3, time_unix_nano=3)
    return request


def test_metrics_are_kept_before_they_are_acknowledged(post: Post, spool: SqliteSpool) -> None:
    body = _metrics().SerializeToString()
    answer = post(body, PROTOBUF, "/v1/metrics")
    assert (200, b"") == (answer.status_code, answer.content)
    assert [("metrics", body)] == [(e.payload.signal, e.payload.body) for e in _kept(spool)]


def test_points_that_can_not_be_kept_are_told_and_the_others_are_kept(
    post: Post, spool: SqliteSpool
) -> None:
    request = _metrics()
    points = request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
    points[0].as_double = float("nan")
    points.add(as_int=3)
    answer = post(request.SerializeToString(), PROTOBUF, "/v1/metrics")
    partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
    assert (200, 2) == (answer.status_code, partial.rejected_data_points)
    assert "2 of 4 data points not kept: 1 missing_time, 1 not_a_number" == partial.error_message
    assert 1 == len(_kept(spool))


def test_logs_that_say_nothing_about_a_call_are_told_and_cost_no_disk(
    post: Post, spool: SqliteSpool, refused: Refused
) -> None:
    before = refused("not_about_a_call")
    body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},{}]}]}]}'
    partial = post(body, JSON, "/v1/logs").json()["partialSuccess"]
    assert "2" == partial["rejectedLogRecords"]
    assert before + 2 == refused("not_about_a_call")
    assert [] == _kept(spool)


def test_an_evaluation_among_logs_keeps_the_request(post: Post, spool: SqliteSpool) -> None:
    records = '{"eventName":"gen_ai.evaluation.result","timeUnixNano":"5"},{"timeUnixNano":"6"}'
    body = f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}'.encode()
    partial = post(body, JSON, "/v1/logs").json()["partialSuccess"]
    assert "1" == partial["rejectedLogRecords"]
    assert ["logs"] == [e.payload.signal for e in _kept(spool)]


@pytest.mark.parametrize("path", ["/v1/metrics", "/v1/logs"])
@pytest.mark.parametrize("body", [b"\x0a\xff", b"not protobuf at all"])
def test_what_is_no_metrics_or_logs_request_is_refused(
    post: Post, spool: SqliteSpool, path: str, body: bytes
) -> None:
    assert 400 == post(body, PROTOBUF, path).status_code
    assert [] == _kept(spool)


def test_spans_without_usable_ids_are_told_before_the_ack(post: Post, spool: SqliteSpool) -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, end_time_unix_nano=1)
    spans.add(trace_id=b"t" * 15, span_id=b"s" * 8, end_time_unix_nano=1)
    spans.add(trace_id=b"t" * 16, span_id=b"s" * 9, end_time_unix_nano=1)
    spans.add(span_id=b"s" * 8)
    answer = post(request.SerializeToString(), PROTOBUF)
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert (200, 3) == (answer.status_code, partial.rejected_spans)
    reasons = "1 invalid_span_id, 1 invalid_trace_id, 1 missing_time"
    assert f"3 of 4 spans not kept: {reasons}" == partial.error_message
    assert 1 == len(_kept(spool))


def test_sender_that_leaves_half_way_harms_nobody(
    post: Post, collector: OtlpCollector, spool: SqliteSpool, request_of: RequestOf
) -> None:
    with socket.create_connection(("127.0.0.1", collector.http_port)) as half:
        half.sendall(
            b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
            b"content-length: 1000\r\n\r\nabc"
        )
    body = request_of(1)
    assert 200 == post(body, PROTOBUF).status_code
    assert [body] == [e.payload.body for e in _kept(spool)]


def test_stopped_collector_closes_its_ports(
    spool: SqliteSpool, start_collector: Callable[..., OtlpCollector]
) -> None:
    collector = start_collector(spool)
    collector.stop()
    for port in (collector.http_port, collector.grpc_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_taken_port_is_said_before_anything_starts(spool: SqliteSpool, keys: KeyResolver) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        for ports in ({"http_port": taken, "grpc_port": 0}, {"http_port": 0, "grpc_port": taken}):
            with pytest.raises(UnavailableError, match="choose another port"):
                OtlpCollector(keys=keys, spool=spool, clock=SystemClock(), **ports)
