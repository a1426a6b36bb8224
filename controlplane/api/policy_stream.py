"""Server-sent events of one scope: encoded once, written to ten thousand sockets.

Events: `policy` (two data lines: the signature header, then the exact signed bytes), `changed` (the
pair alone, for a document too large to push: fetch it), `patch` (three data lines: the signature
header, both hashes and how much of the last body stays, the bytes between: what `changed` is to a
reader that does not know it or has something else), `ping` with the pair in force, so that silence
and drift are both visible, and `lease` with the budgets that are called back. The id of every event
is its pair.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from datetime import datetime
from types import coroutine
from typing import Any, Final

from litestar.response.base import ASGIResponse
from litestar.types import HTTPResponseStartEvent, Receive, Scope, Send
from typing_extensions import override

from controlplane import telemetry
from controlplane.policy.history import Serving, SignedGeneration
from controlplane.policy.patch import make_patch
from controlplane.policy.wire import Generation

MAX_PUSHED_BYTES: Final = 64 * 1024
"""A larger document is fetched instead: the clients spread that over a moment, a push can not."""
MAX_WAITING_FRAMES: Final = 8
"""A reader that is further behind is cut off; it comes back with what it has."""


_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the events back
]


class Subscriber:
    """One open stream.

    A frame is written where it is pushed: to wake a task for each of ten thousand streams costs
    several times what the write does. Only what a full socket does not take at once is left to the
    stream's own task, which waits for it in `write_to`.
    """

    __slots__ = ("_blocked", "_is_open", "_send", "_waiter", "_waiting", "node", "on_close", "sent")

    def __init__(self, node: str, has: Generation | None) -> None:
        self.node = node
        self.sent = has
        self.on_close: Callable[[], None] | None = None
        self._waiting: deque[bytes] = deque()
        self._send: Send | None = None
        self._blocked: Awaitable[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_open = True

    def push(self, frame: bytes) -> None:
        """Write a frame, or queue it behind one that the socket has not taken yet."""
        if not self._is_open:
            return
        if self._send is not None and self._blocked is None and not self._waiting:
            self._write(self._send, frame)
        elif len(self._waiting) < MAX_WAITING_FRAMES:
            self._waiting.append(frame)
        else:
            self.close()

    def close(self) -> None:
        """End the stream after what is queued."""
        if self._is_open:
            self._is_open = False
            if self.on_close is not None:
                self.on_close()
            self._wake()

    async def write_to(self, send: Send) -> None:
        """Write what is pushed, and wait with it for the socket, until the stream is closed."""
        self._send = send
        while self._is_open or self._waiting or self._blocked:
            if self._blocked is not None:
                await self._blocked
                self._blocked = None
            elif self._waiting:
                frames = b"".join(self._waiting)
                self._waiting.clear()
                self._write(send, frames)
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter

    def _write(self, send: Send, frame: bytes) -> None:
        """Run a send up to where it would wait, which it does for a full socket only."""
        sending = send({"type": "http.response.body", "body": frame, "more_body": True}).__await__()
        try:
            awaited = next(sending)
        except StopIteration:
            return
        except (OSError, RuntimeError):  # the client is gone
            self.close()
        else:
            self._blocked = _go_on(awaited, sending)
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@coroutine
def _go_on(awaited: object, sending: Generator[Any, Any, None]) -> Generator[Any, Any, None]:
    """Let another task wait for what a send was run up to, and for the rest of it."""
    yield awaited
    yield from sending


class _Line:
    """The frames of one generation."""

    def __init__(self, signed: SignedGeneration, before: "Sequence[_Line]" = ()) -> None:
        self.signed = signed
        self.generation = signed.generation
        self.issued_at = signed.issued_at
        self._patches: dict[Generation, bytes] = {}
        pair = signed.generation.etag()
        head = f"id: {pair}\nevent: "
        self.ping = f"{head}ping\ndata: {pair}\n\n".encode()
        if len(signed.body) <= MAX_PUSHED_BYTES and b"\n" not in signed.body:
            self._policy = b"".join(
                (
                    f"{head}policy\ndata: {signed.signature}\ndata: ".encode(),
                    signed.body,
                    b"\n\n",
                )
            )
        else:
            self._policy = f"{head}changed\ndata: {pair}\n\n".encode()
            self._patches = _patches(signed, before)

    def after(self, sent: Generation | None) -> bytes:
        """Return the frame for a reader that was sent a pair before."""
        return self._policy if sent is None else self._patches.get(sent, self._policy)


def _patches(signed: SignedGeneration, before: Sequence[_Line]) -> dict[Generation, bytes]:
    found = {}
    for line in before:
        patch = make_patch(line.signed.body, signed.body)
        if len(patch.middle) > MAX_PUSHED_BYTES or b"\n" in patch.middle:
            continue
        head = f"id: {signed.generation.etag()}\nevent: patch\ndata: {signed.signature}\n"
        place = f"data: {patch.place()}\ndata: "
        found[line.generation] = b"".join((head.encode(), place.encode(), patch.middle, b"\n\n"))
    return found


class Frames:
    """What is pushed while a scope serves this."""

    def __init__(self, serving: Serving, *, before: "Frames | None" = None) -> None:
        self._nodes = serving.nodes
        self._stable = _line(serving.stable, before)
        candidate = serving.candidate
        self._candidate = _line(candidate, before) if candidate else None

    def of(self, node: str) -> _Line:
        """Return the line a node is on."""
        return self._candidate if self._candidate and node in self._nodes else self._stable

    def lines(self) -> tuple[_Line, ...]:
        """Return both lines, or the one there is."""
        return (self._stable,) if self._candidate is None else (self._stable, self._candidate)

    def give(self, subscriber: Subscriber, *, also_ping: bool = False) -> None:
        """Push the document, unless the subscriber has it or a newer one."""
        line = self.of(subscriber.node)
        if subscriber.sent is None or line.generation > subscriber.sent:
            frame = line.after(subscriber.sent)
            subscriber.sent = line.generation
            subscriber.push(frame)
        elif also_ping:
            subscriber.push(line.ping)

    def ping(self, subscriber: Subscriber) -> None:
        """Say that we are there, and what is in force."""
        subscriber.push(self.of(subscriber.node).ping)

    def issued_at(self, generation: Generation) -> datetime | None:
        """Return when a generation that is served was published."""
        return next(
            (line.issued_at for line in self.lines() if line.generation == generation), None
        )


def _line(signed: SignedGeneration, before: Frames | None) -> _Line:
    known = before.lines() if before else ()
    for line in known:
        if line.generation == signed.generation:
            return line
    return _Line(signed, known)


class EventStream(ASGIResponse):
    """Writes a subscriber's frames until it or the client ends."""

    def __init__(self, subscriber: Subscriber) -> None:
        super().__init__(media_type="text/event-stream")
        self._subscriber = subscriber

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; one future watches for the client's end, no task per stream sleeps for pings."""
        subscriber = self._subscriber
        telemetry.POLICY_STREAMS.inc()
        gone: asyncio.Future[Any] = asyncio.ensure_future(_until_gone(receive))
        gone.add_done_callback(lambda _: subscriber.close())
        start: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": 200,
            "headers": list(_HEADERS),
        }
        try:
            await send(start)
            await subscriber.write_to(send)
            with contextlib.suppress(OSError, RuntimeError):  # it may be gone already
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            telemetry.POLICY_STREAMS.dec()
            gone.cancel()
            subscriber.close()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
