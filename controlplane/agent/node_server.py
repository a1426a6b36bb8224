"""HTTP/1.1 on a Unix socket that only its owner may open: many workers, one holder."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final, Protocol

import h11
import msgspec

from controlplane.agent.log import say

MAX_BODY_BYTES: Final = 32 * 2**20
TOO_LARGE: Final = 413
IDLE_SECONDS: Final = 300.0
READ_BYTES: Final = 2**16
OWNER_ONLY: Final = 0o177  # umask: the socket is 0600

Answer = tuple[int, Mapping[str, str], bytes]


class Api(Protocol):
    """What is served."""

    async def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Answer one request."""
        ...

    def unheard(self, content: bytes) -> None:
        """Take back an answer whose sender had left before it read it."""
        ...


@contextlib.asynccontextmanager
async def serve_socket(path: Path, api: Api) -> AsyncIterator[asyncio.Server]:
    """Serve until left; a socket file that a dead process left is replaced.

    Raises:
        OSError: another process serves there, or the folder can not be written.
    """
    _make_way(path)
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a stream's callback is a task
        connections.add(task)
        try:
            await _Connection(reader, writer, api).serve()
        except (OSError, TimeoutError, h11.ProtocolError):
            pass  # it left, or does not speak HTTP: nobody to tell
        finally:
            connections.discard(task)
            writer.close()

    before = os.umask(OWNER_ONLY)
    try:
        server = await asyncio.start_unix_server(connected, path, limit=READ_BYTES)
    finally:
        os.umask(before)
    say("node_agent_serving", socket=str(path))
    try:
        yield server
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        _remove(path)


def _make_way(path: Path) -> None:
    """Remove what a dead process left, and make the folder."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as probe:
        if path.exists() and probe.connect_ex(str(path)) == 0:
            msg = f"another agent serves {path}"
            raise FileExistsError(msg)
    _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


class _Connection:
    """One client's connection, request after request."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, api: Api
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._api = api
        self._http = h11.Connection(h11.SERVER)
        self._said = b""

    async def serve(self) -> None:
        try:
            while await self._serve_one():
                self._http.start_next_cycle()
        except ConnectionError:
            # Unix says so only of a sender that left its last answer unread.
            if self._said:
                self._api.unheard(self._said)
            raise

    async def _serve_one(self) -> bool:
        """Answer one request; False when there is no further one on this connection."""
        try:
            request = await self._next(h11.Request)
            self._said = b""  # who goes on has read it
            body = await self._body() if request else None
        except h11.RemoteProtocolError as wrong:
            await self._send(*_problem(wrong.error_status_hint, str(wrong)), is_last=True)
            return False
        if request is None:
            return False
        if body is None:
            detail = f"a body may have {MAX_BODY_BYTES} bytes"
            await self._send(*_problem(TOO_LARGE, detail), is_last=True)
            return False
        method = request.method.decode()
        answer = await self._api.answer(method, request.target.decode(), body)
        await self._send(*answer, is_head=method == "HEAD")
        return self._http.our_state is not h11.MUST_CLOSE

    async def _event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                go = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._http.send(go) or b"")
            async with asyncio.timeout(IDLE_SECONDS):
                self._http.receive_data(await self._reader.read(READ_BYTES))

    async def _next(self, kind: type[h11.Request]) -> h11.Request | None:
        event = await self._event()
        return event if isinstance(event, kind) else None

    async def _body(self) -> bytes | None:
        """Return the body; None when it is longer than anything that is asked here."""
        parts: list[bytes] = []
        size = 0
        while isinstance(event := await self._event(), h11.Data):
            parts.append(bytes(event.data))
            size += len(event.data)
            if size > MAX_BODY_BYTES:
                return None
        return b"".join(parts)

    async def _send(
        self,
        status: int,
        headers: Mapping[str, str],
        content: bytes,
        *,
        is_last: bool = False,
        is_head: bool = False,
    ) -> None:
        self._said = content
        pairs = [*headers.items(), ("content-length", str(len(content)))]
        if is_last:
            pairs.append(("connection", "close"))
        response = h11.Response(status_code=status, headers=pairs)
        events = (response, h11.Data(data=b"" if is_head else content), h11.EndOfMessage())
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        await self._writer.drain()


def _problem(status: int, detail: str) -> Answer:
    headers = {"content-type": "application/problem+json"}
    return status, headers, msgspec.json.encode({"status": status, "detail": detail})
