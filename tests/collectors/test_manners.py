"""TLS, mTLS, deadlines and bounds of the receivers, with the real SDK exporters and real sockets."""

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from typing_extensions import override

from collectors.otlp.collector import OtlpCollector
from collectors.otlp.manners import Manners, TlsFiles
from collectors.spool import SqliteSpool
from controlplane.bootstrap.system import SystemClock
from controlplane.core.errors import ConfigError
from controlplane.ingest.ports import KeyResolver

PROTOBUF = {"content-type": "application/x-protobuf"}
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Authority:
    """A certificate authority of a test's own."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._cert = self._sign(self._name, self._key.public_key(), is_ca=True)
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(self._cert.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Write a certificate for 127.0.0.1 and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert = self._sign(subject, key.public_key(), is_ca=False)
        cert_file, key_file = (self._directory / f"{name}.{end}" for end in ("crt", "key"))
        cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cert_file, key_file

    def _sign(self, subject: x509.Name, key: Any, *, is_ca: bool) -> x509.Certificate:
        local = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW)
            .not_valid_after(NOW + dt.timedelta(days=3_650))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(local, critical=False)
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)  # requests prefers them to what it is told
    return Authority(tmp_path, "ca")


@pytest.fixture
def spool(open_spool: Callable[..., SqliteSpool]) -> SqliteSpool:
    return open_spool()


@pytest.fixture
def start(keys: KeyResolver, spool: SqliteSpool) -> Iterator[Callable[..., OtlpCollector]]:
    started: list[OtlpCollector] = []

    def make(**manners: Any) -> OtlpCollector:
        collector = OtlpCollector(
            keys=keys,
            spool=spool,
            clock=SystemClock(),
            grpc_port=0,
            http_port=0,
            manners=Manners(**manners),
        )
        started.append(collector)
        collector.start()
        return collector

    yield make
    for collector in started:
        collector.stop()


class Outcomes(SpanExporter):
    """An exporter that remembers what became of each export."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.seen: list[SpanExportResult] = []

    @override
    def export(self, spans: Any) -> SpanExportResult:
        self.seen.append(self.inner.export(spans))
        return self.seen[-1]

    @override
    def shutdown(self) -> None:
        self.inner.shutdown()

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self.inner.force_flush(timeout_millis))


def _send(exporter: Any) -> list[SpanExportResult]:
    outcomes = Outcomes(exporter)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(outcomes))
    with provider.get_tracer("t").start_as_current_span("chat"):
        pass
    provider.shutdown()
    return outcomes.seen


def _kept(spool: SqliteSpool) -> int:
    batch = spool.claim(max_bytes=2**30, max_entries=1_000)
    return len(batch.entries) if batch else 0


def test_both_sdk_exporters_speak_tls(
    start: Callable[..., OtlpCollector], spool: SqliteSpool, authority: Authority
) -> None:
    cert, key = authority.issue("server")
    collector = start(tls=TlsFiles(cert=cert, key=key))
    http = HttpExporter(
        f"https://127.0.0.1:{collector.http_port}/v1/traces", certificate_file=str(authority.file)
    )
    rpc = GrpcExporter(
        f"https://127.0.0.1:{collector.grpc_port}",
        credentials=grpc.ssl_channel_credentials(authority.file.read_bytes()),
    )
    assert [SpanExportResult.SUCCESS] == _send(http)
    assert [SpanExportResult.SUCCESS] == _send(rpc)
    assert 2 == _kept(spool)
    plain = f"http://127.0.0.1:{collector.http_port}/v1/traces"
    with pytest.raises(httpx.TransportError):
        httpx.post(plain, content=b"", headers=PROTOBUF, timeout=5)


def test_both_sdk_exporters_speak_mtls_and_strangers_do_not(
    start: Callable[..., OtlpCollector],
    spool: SqliteSpool,
    authority: Authority,
    tmp_path: Path,
    request_of: Callable[..., bytes],
) -> None:
    cert, key = authority.issue("server")
    collector = start(tls=TlsFiles(cert=cert, key=key, client_ca=authority.file))
    mine, my_key = authority.issue("client")
    http = HttpExporter(
        f"https://127.0.0.1:{collector.http_port}/v1/traces",
        certificate_file=str(authority.file),
        client_certificate_file=str(mine),
        client_key_file=str(my_key),
    )
    rpc = GrpcExporter(
        f"https://127.0.0.1:{collector.grpc_port}",
        credentials=grpc.ssl_channel_credentials(
            authority.file.read_bytes(), my_key.read_bytes(), mine.read_bytes()
        ),
    )
    assert [SpanExportResult.SUCCESS] == _send(http)
    assert [SpanExportResult.SUCCESS] == _send(rpc)
    assert 2 == _kept(spool)
    stranger = Authority(tmp_path, "other").issue("stranger")
    for pair in (None, stranger):
        context = ssl.create_default_context(cafile=str(authority.file))
        if pair:
            context.load_cert_chain(*pair)
        url = f"https://127.0.0.1:{collector.http_port}/v1/traces"
        with httpx.Client(verify=context) as client, pytest.raises(httpx.TransportError):
            client.post(url, content=request_of(1), headers=PROTOBUF, timeout=5)
        root = authority.file.read_bytes()
        shown = (pair[1].read_bytes(), pair[0].read_bytes()) if pair else (None, None)
        credentials = grpc.ssl_channel_credentials(root, *shown)
        with grpc.secure_channel(f"127.0.0.1:{collector.grpc_port}", credentials) as channel:
            ready = grpc.channel_ready_future(channel)
            with pytest.raises(grpc.FutureTimeoutError):
                ready.result(timeout=1)
    assert 2 == _kept(spool)


@pytest.mark.parametrize("broken", ["missing", "empty", "mismatch", "client_ca"])
def test_a_tls_file_that_can_not_be_used_refuses_to_start(
    start: Callable[..., OtlpCollector], authority: Authority, tmp_path: Path, broken: str
) -> None:
    cert, key = authority.issue("server")
    other = authority.issue("other")[1]
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    files = {
        "missing": TlsFiles(cert=tmp_path / "none", key=key),
        "empty": TlsFiles(cert=empty, key=key),
        "mismatch": TlsFiles(cert=cert, key=other),
        "client_ca": TlsFiles(cert=cert, key=key, client_ca=empty),
    }[broken]
    with pytest.raises(ConfigError, match=r"collector\.tls_"):
        start(tls=files)


def _open(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(sent)
    return connection


def test_a_head_that_never_ends_loses_its_connection(start: Callable[..., OtlpCollector]) -> None:
    collector = start(header_seconds=0.3)
    with _open(collector.http_port, b"POST /v1/traces HTTP/1.1\r\nhost: x\r\n") as slow:
        began = time.monotonic()
        answer = slow.recv(1_000)  # closed, with or without a 408
        assert time.monotonic() - began < 30
        assert answer == b"" or b" 408 " in answer


def _is_closed(connection: socket.socket) -> bool:
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(1_000):
            pass
    return True


def test_a_connection_that_says_nothing_is_closed(start: Callable[..., OtlpCollector]) -> None:
    """A thousand of these would keep every sender out."""
    collector = start(header_seconds=0.3)
    with _open(collector.http_port, b"") as silent:
        assert _is_closed(silent)


def test_http_2_without_a_request_is_no_way_to_stay(start: Callable[..., OtlpCollector]) -> None:
    collector = start(header_seconds=0.3)
    with _open(collector.http_port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") as idle:
        assert _is_closed(idle)


def test_a_handshake_that_stops_loses_its_connection(
    start: Callable[..., OtlpCollector], authority: Authority
) -> None:
    """Before its first byte, within it, after the server's part of it, and when it is done."""
    cert, key = authority.issue("server")
    collector = start(tls=TlsFiles(cert=cert, key=key), header_seconds=0.3, body_seconds=0.3)
    client = ssl.create_default_context(cafile=str(authority.file)).wrap_bio(
        ssl.MemoryBIO(), hello := ssl.MemoryBIO(), server_hostname="127.0.0.1"
    )
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    said = hello.read()
    for part in (b"", said[:20], said):
        with _open(collector.http_port, part) as stopped:
            assert _is_closed(stopped), part
    context = ssl.create_default_context(cafile=str(authority.file))
    with (
        _open(collector.http_port, b"") as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as shaken,
    ):
        assert _is_closed(shaken)


def test_a_slow_request_over_tls_is_let_be(
    start: Callable[..., OtlpCollector],
    authority: Authority,
    spool: SqliteSpool,
    request_of: Callable[..., bytes],
) -> None:
    """What drips in time is a sender far away; only silence ends a connection."""
    cert, key = authority.issue("server")
    collector = start(tls=TlsFiles(cert=cert, key=key), header_seconds=0.2, body_seconds=30.0)
    context = ssl.create_default_context(cafile=str(authority.file))
    body = request_of(1)

    def dripped() -> Iterator[bytes]:
        for at in range(0, len(body), len(body) // 8):
            time.sleep(0.1)  # the sender's own slowness is what is tried
            yield body[at : at + len(body) // 8]

    with httpx.Client(verify=context) as client:
        url = f"https://127.0.0.1:{collector.http_port}/v1/traces"
        answer = client.post(url, content=dripped(), headers=PROTOBUF, timeout=20)
    assert 200 == answer.status_code
    assert 1 == _kept(spool)


def test_a_body_that_drips_is_told_and_counted(
    start: Callable[..., OtlpCollector], refused: Callable[[str], float]
) -> None:
    collector = start(body_seconds=0.3)
    before = refused("slow_body")
    head = (
        b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
        b"content-length: 1000\r\n\r\nabc"
    )
    with _open(collector.http_port, head) as slow:
        assert b" 408 " in slow.recv(10_000).split(b"\r\n")[0]
    assert before + 1 == refused("slow_body")


def test_idle_connections_do_not_lock_others_out(
    start: Callable[..., OtlpCollector], spool: SqliteSpool, request_of: Callable[..., bytes]
) -> None:
    """Twice as many slow ones as may be open: a good sender gets its turn when they time out."""
    collector = start(max_connections=8, header_seconds=0.5)
    slow = [_open(collector.http_port, b"POST /v1/traces HTTP/1.1\r\n") for _ in range(16)]
    url = f"http://127.0.0.1:{collector.http_port}/v1/traces"
    answer = httpx.post(url, content=request_of(1), headers=PROTOBUF, timeout=60)
    assert 200 == answer.status_code
    assert 1 == _kept(spool)
    for connection in slow:
        connection.close()


def test_a_client_that_pings_every_ten_seconds_is_welcome(
    start: Callable[..., OtlpCollector], request_of: Callable[..., bytes]
) -> None:
    """Its keepalive settings are refused by servers that think pings are an attack."""
    collector = start()
    options = [
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    with grpc.insecure_channel(f"127.0.0.1:{collector.grpc_port}", options=options) as channel:
        method = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        export = channel.unary_unary(method, lambda body: body, lambda body: body)
        assert b"" == export(request_of(1), timeout=60)
