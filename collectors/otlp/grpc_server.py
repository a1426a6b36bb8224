"""OTLP over gRPC: bytes in, bytes out, so that no protobuf object of ours is built on the way."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc

from collectors.otlp.manners import DEFAULT_MANNERS, Manners
from collectors.otlp.receive import Receiver, Request
from collectors.otlp.replies import GRPC_CODES, Refusal, accepted_body, refusal_body
from controlplane.core.errors import UnavailableError
from controlplane.ingest.ports import Signal

SERVICES: Final[dict[str, Signal]] = {
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
}
THREADS: Final = 32
"""Requests that wait for one fsync together."""
MAX_STREAMS: Final = 64
"""Requests that one connection may have open; the others wait at the sender."""
MAX_METADATA_BYTES: Final = 16 * 1024
DRAIN_SECONDS: Final = 5.0
IDLE_MS: Final = 15 * 60_000
KEEPALIVE_MS: Final = 60_000
KEEPALIVE_ANSWER_MS: Final = 20_000
CLIENT_PING_MS: Final = 10_000
_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x78": "deflate"}
"""Never the start of an OTLP request, whose every field has number 1, that is the tag 0x0a.

gRPC keeps the flag that says whether a message is compressed to itself.
"""
_DETAILS: Final = "grpc-status-details-bin"
_STATUS: Final[dict[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}


class OtlpGrpcServer:
    """Serves a receiver on one address; `start` and `stop` are each called once."""

    def __init__(
        self, receiver: Receiver, *, host: str, port: int, manners: Manners = DEFAULT_MANNERS
    ) -> None:
        self._receiver = receiver
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="otlp-grpc")
        self._server = grpc.server(self._pool, options=_options(receiver, manners))
        for service, signal in SERVICES.items():
            export = grpc.unary_unary_rpc_method_handler(self._export_of(signal))
            handler = grpc.method_handlers_generic_handler(service, {"Export": export})
            self._server.add_generic_rpc_handlers((handler,))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = _bind(self._server, address, manners)
        except RuntimeError as error:
            self._pool.shutdown(wait=False)
            fix = "Stop the program that has it, or choose another port"
            raise UnavailableError(f"OTLP/gRPC can not listen on {address}. {fix}") from error

    def start(self) -> None:
        """Return when connections are accepted."""
        self._server.start()

    def stop(self) -> None:
        """Accept nothing new; let requests in flight end within DRAIN_SECONDS."""
        self._server.stop(DRAIN_SECONDS).wait()
        self._pool.shutdown(wait=True)

    def _export_of(self, signal: Signal) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def export(body: bytes, context: grpc.ServicerContext) -> bytes:
            sender = self._receiver.authenticate(_authorization(context))
            if isinstance(sender, Refusal):
                return _refuse(context, sender)
            if refusal := self._receiver.check_size(len(body)):
                return _refuse(context, refusal)
            request = Request(signal, "protobuf", _encoding(body), body)
            answer = self._receiver.accept(request, sender)
            if isinstance(answer, Refusal):
                return _refuse(context, answer)
            return accepted_body(answer, "protobuf")

        return export


def _bind(server: grpc.Server, address: str, manners: Manners) -> int:
    if manners.tls is None:
        return server.add_insecure_port(address)
    client_ca = manners.tls.client_ca
    credentials = grpc.ssl_server_credentials(
        [(manners.tls.key.read_bytes(), manners.tls.cert.read_bytes())],
        root_certificates=client_ca.read_bytes() if client_ca else None,
        require_client_auth=client_ca is not None,
    )
    return server.add_secure_port(address, credentials)


def _options(receiver: Receiver, manners: Manners) -> list[tuple[str, int]]:
    return [
        # Connections that never finish their handshake, are idle, or whose peer is gone, end.
        ("grpc.server_handshake_timeout_ms", int(manners.header_seconds * 1_000)),
        ("grpc.max_allowed_incoming_connections", manners.max_connections),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_ANSWER_MS),
        # Exporters may ping as often as every ten seconds, between exports too.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", CLIENT_PING_MS),
        # Above our own limit, so that it is our check that refuses, counts and explains.
        ("grpc.max_receive_message_length", receiver.limits.max_decompressed_bytes),
        # Messages stay compressed until our own bounded inflater has them.
        ("grpc.per_message_decompression", 0),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        # Two collectors that share a port would share the senders, too.
        ("grpc.so_reuseport", 0),
    ]


def _encoding(body: bytes) -> str:
    return next((name for magic, name in _MAGIC.items() if body.startswith(magic)), "identity")


def _authorization(context: grpc.ServicerContext) -> str | None:
    for key, value in context.invocation_metadata():
        if key == "authorization":
            return value if isinstance(value, str) else value.decode("latin-1")
    return None


def _refuse(context: grpc.ServicerContext, refusal: Refusal) -> bytes:
    context.set_trailing_metadata(((_DETAILS, refusal_body(refusal, "protobuf")),))
    context.set_code(_STATUS[GRPC_CODES[refusal.http_status]])
    context.set_details(refusal.message)
    return b""
