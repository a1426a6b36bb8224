"""OTLP over HTTP: granian on a thread with a loop of its own; checks and disk on other threads."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import structlog
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server

from collectors.otlp.inflate import ENCODINGS
from collectors.otlp.manners import DEFAULT_MANNERS, Manners, TlsFiles
from collectors.otlp.receive import Receiver, Request
from collectors.otlp.replies import (
    MEDIA_TYPES,
    Accepted,
    Refusal,
    accepted_body,
    refusal_body,
)
from collectors.otlp.stalled import StalledGuard
from controlplane.core.errors import UnavailableError
from controlplane.ingest.ports import ContentType, Signal

PATHS: Final[dict[str, Signal]] = {
    "/v1/traces": "traces",
    "/v1/metrics": "metrics",
    "/v1/logs": "logs",
}
START_SECONDS: Final = 10.0
DRAIN_SECONDS: Final = 5
THREADS: Final = 32
"""Requests that wait for one fsync together."""
BACKLOG: Final = 1_024
_POLL_SECONDS: Final = 0.005

log = structlog.stdlib.get_logger()


class Headers(Protocol):
    """Lower-case names."""

    def get(self, key: str, default: str = "") -> str:
        """Return a header's value."""
        ...


class Scope(Protocol):
    """What granian's RSGI says about a request."""

    method: str
    path: str

    @property
    def headers(self) -> Headers:
        """The request's headers."""
        ...


class Exchange(Protocol):
    """Granian's RSGI protocol object: the body in, the response out."""

    def __call__(self) -> Awaitable[bytes]:
        """Answer the body when all of it has arrived."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives."""
        ...

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer."""
        ...


class OtlpHttpServer:
    """Serves a receiver on one address; `start` and `stop` are each called once."""

    def __init__(
        self, receiver: Receiver, *, host: str, port: int, manners: Manners = DEFAULT_MANNERS
    ) -> None:
        self._receiver = receiver
        self._manners = manners
        self._host = host
        # Bound but never listening: it finds the port when 0 is asked for, and keeps it ours. The
        # server listens on the same port beside it (SO_REUSEPORT); only listeners get connections.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._reserved = socket.socket(family, socket.SOCK_STREAM)
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._reserved.bind((host, port))
        except OSError as error:
            self._reserved.close()
            raise UnavailableError(_taken(port)) from error
        self.port: int = self._reserved.getsockname()[1]
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="otlp-http")
        self._thread = threading.Thread(target=self._run, name="otlp-http", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None
        self._guard = StalledGuard(self.port, manners) if manners.tls is not None else None

    def start(self) -> None:
        """Return when connections are accepted.

        Raises:
            UnavailableError: it does not listen within START_SECONDS, or another process does.
        """
        if self._answers():
            self._reserved.close()
            raise UnavailableError(_taken(self.port))
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._thread.is_alive():
            if self._answers():
                if self._guard is not None:
                    self._guard.start()
                return
            time.sleep(_POLL_SECONDS)
        raise UnavailableError(f"OTLP/HTTP does not listen on {self._host}:{self.port}")

    def stop(self) -> None:
        """Accept nothing new; let requests in flight end within DRAIN_SECONDS."""
        if self._guard is not None:
            self._guard.stop()
        loop, server = self._loop, self._server
        if loop is not None and server is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop ended by itself meanwhile
                loop.call_soon_threadsafe(server.stop)
            self._thread.join(DRAIN_SECONDS + 1)
        self._pool.shutdown(wait=True)
        self._reserved.close()

    def _answers(self) -> bool:
        with contextlib.closing(socket.socket(self._reserved.family)) as probe:
            return probe.connect_ex((self._host, self.port)) == 0

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except TimeoutError:
            log.warning("otlp_requests_cut_off", after_seconds=DRAIN_SECONDS)

    async def _serve(self) -> None:
        target: Any = self._handle
        server = Server(
            target,
            address=self._host,
            port=self.port,
            interface=Interfaces.RSGI,
            websockets=False,
            log_enabled=False,
            backlog=BACKLOG,
            backpressure=self._manners.max_connections,
            # Where it has to find out which version a peer speaks, it waits for the first byte for
            # ever; every OTLP/HTTP exporter speaks 1.1, and OTLP over HTTP/2 is gRPC.
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(
                header_read_timeout=int(self._manners.header_seconds * 1_000)
            ),
            **_tls(self._manners.tls),
        )
        server.workers_kill_timeout = DRAIN_SECONDS
        self._loop, self._server = asyncio.get_running_loop(), server
        await server.serve()

    async def _handle(self, scope: Scope, exchange: Exchange) -> None:
        content_type = _content_type(scope.headers)
        answer = await self._answer(scope, exchange, content_type)
        reply_type: ContentType = content_type or "json"
        headers = [("content-type", MEDIA_TYPES[reply_type])]
        if isinstance(answer, Accepted):
            exchange.response_bytes(200, headers, accepted_body(answer, reply_type))
            return
        if answer.retry_after_seconds is not None:
            headers.append(("retry-after", str(answer.retry_after_seconds)))
        if answer.http_status == 405:  # noqa: PLR2004 - the number is its name
            headers.append(("allow", "POST"))
        body = refusal_body(answer, reply_type)
        exchange.response_bytes(answer.http_status, headers, body)

    async def _answer(
        self, scope: Scope, exchange: Exchange, content_type: ContentType | None
    ) -> Accepted | Refusal:
        """Refuse as early as the headers allow; then read, bounded; then hand to a thread."""
        checked = _check_head(scope, content_type)
        if isinstance(checked, Refusal):
            return self._receiver.refuse(checked)
        sender = self._receiver.authenticate(scope.headers.get("authorization", ""))
        if isinstance(sender, Refusal):
            return sender
        body = await self._read(scope.headers, exchange)
        if isinstance(body, Refusal):
            return body
        request = Request(checked.signal, checked.content_type, checked.encoding, body)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._receiver.accept, request, sender)

    async def _read(self, headers: Headers, exchange: Exchange) -> bytes | Refusal:
        announced = headers.get("content-length", "")
        is_announced = announced.isdecimal() and not headers.get("transfer-encoding", "")
        if is_announced and (refusal := self._receiver.check_size(int(announced))):
            return refusal
        try:
            async with asyncio.timeout(self._manners.body_seconds):
                # The server ends a body at its announced length: no more can come. Waking up for
                # each piece of it costs more than all else that a request needs here.
                body = await exchange() if is_announced else await self._bounded(exchange)
        except TimeoutError:
            within = f"the body did not come within {self._manners.body_seconds:g} s"
            return self._receiver.refuse(Refusal(408, "slow_body", f"{within}. Send it faster"))
        return self._receiver.check_size(len(body)) or body

    async def _bounded(self, exchange: Exchange) -> bytes:
        """Read until the end, or until it is too much."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in exchange:
            chunks.append(chunk)
            size += len(chunk)
            if size > self._receiver.limits.max_compressed_bytes:
                break
        return b"".join(chunks)


def _tls(files: TlsFiles | None) -> dict[str, Any]:
    if files is None:
        return {}
    return {
        "ssl_cert": files.cert,
        "ssl_key": files.key,
        "ssl_ca": files.client_ca,
        "ssl_client_verify": files.client_ca is not None,
        "ssl_protocol_min": SSLProtocols.tls12,
    }


def _check_head(scope: Scope, content_type: ContentType | None) -> Request | Refusal:
    """Return the request without its body, or why it can not be one."""
    signal = PATHS.get(scope.path)
    encoding = scope.headers.get("content-encoding", "identity").strip().lower()
    if signal is None:
        return Refusal(404, "not_found", f"POST to one of {', '.join(PATHS)}")
    if scope.method != "POST":
        return Refusal(405, "method_not_allowed", f"Use POST on {scope.path}")
    if content_type is None:
        allowed = " or ".join(MEDIA_TYPES.values())
        return Refusal(415, "unsupported_content_type", f"Set Content-Type to {allowed}")
    if encoding not in ENCODINGS:
        allowed = ", ".join(ENCODINGS)
        return Refusal(415, "unsupported_encoding", f"Set Content-Encoding to one of {allowed}")
    return Request(signal, content_type, encoding, b"")


def _content_type(headers: Headers) -> ContentType | None:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return next((kind for kind, name in MEDIA_TYPES.items() if name == media_type), None)


def _taken(port: int) -> str:
    return f"port {port} is in use. Stop the program that has it, or choose another port"
