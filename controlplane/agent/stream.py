"""The push side of policy: a stream beside the poll, which it spares but never replaces.

However often a stream fails, it is tried again: two products had a bug where five failures ended
streaming for the life of the process.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from typing import Final

import httpx
import msgspec

from controlplane.agent.lease import Instant
from controlplane.agent.log import say
from controlplane.agent.puller import MAX_POLICY_BYTES, UNPREDICTABLE, Puller
from controlplane.agent.settings import AgentSettings
from controlplane.core.clock import Clock
from controlplane.core.errors import ControlPlaneError, LimitExceededError
from controlplane.policy.bundle import SIGNATURE_HEADER
from controlplane.policy.patch import read_patch
from controlplane.policy.wire import Generation

SILENCE_SECONDS: Final = 16.0
"""Three pings that did not come: the connection is dead, whatever the kernel believes."""
FIRST_BACKOFF_SECONDS: Final = 0.5
MAX_BACKOFF_SECONDS: Final = 30.0
FETCH_SPREAD_SECONDS: Final = 0.5
"""A document too large to push is fetched at a moment of one's own."""
_PAIR: Final = re.compile(rb'"(\d{1,9})\.(\d{1,9})"')


class Event(msgspec.Struct, frozen=True):
    """One server-sent event; data lines as they came."""

    kind: bytes
    pair: Generation | None
    data: tuple[bytes, ...]


class PolicyStream:
    """Listens until cancelled; `is_healthy` tells the poll that it may take its time."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        settings: AgentSettings,
        puller: Puller,
        *,
        clock: Clock,
        jitter: random.Random = UNPREDICTABLE,
    ) -> None:
        self._client = client
        self._settings = settings
        self._puller = puller
        self._clock = clock
        self._random = jitter
        self.failures = 0

    async def run(self, changed: Callable[[], None], recalled: Callable[[], None]) -> None:
        """Connect, listen, and connect again; the waits grow, and each is of its own length.

        Args:
            changed: called when another policy is in force, and when one was refused.
            recalled: called when the server wants to hear now what is leased.
        """
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            wait = backoff
            try:
                await self._listen(changed, recalled)
                # Healthy until it ended, as on a restart; or answered by what is no stream.
                is_healthy = self._puller.is_streaming
                backoff = (
                    FIRST_BACKOFF_SECONDS if is_healthy else min(MAX_BACKOFF_SECONDS, 2 * backoff)
                )
            except _BusyError as busy:
                wait = busy.seconds
            except (httpx.HTTPError, ControlPlaneError) as wrong:
                if self._puller.is_streaming or self.failures == 0:
                    say("policy_stream_lost", error=type(wrong).__name__, detail=str(wrong)[:200])
                changed()  # a NACK is told at once
                backoff = min(MAX_BACKOFF_SECONDS, 2 * backoff)
            self.failures += 1
            self._puller.streaming(healthy=False)
            await asyncio.sleep(wait * self._random.uniform(0.5, 1.0))

    async def _listen(self, changed: Callable[[], None], recalled: Callable[[], None]) -> None:
        puller = self._puller
        asked = Instant.of(self._clock)
        applied = puller.applied
        headers = {"Last-Event-ID": applied.generation.etag()} if applied else {}
        async with self._client.stream(
            "GET",
            "/api/v1/stream",
            params={"scope": self._settings.scope, "node": self._settings.node},
            headers=headers,
            timeout=httpx.Timeout(self._settings.request_timeout_seconds, read=SILENCE_SECONDS),
        ) as response:
            if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                raise _BusyError(_seconds(response.headers.get("retry-after", "")))
            response.raise_for_status()
            async for event in read_events(response.aiter_bytes()):
                puller.streaming(healthy=True)
                if event.kind == b"lease":
                    recalled()
                elif self._take(event, asked):
                    changed()
                asked = Instant.of(self._clock)

    def _take(self, event: Event, asked: Instant) -> bool:
        """Act on one event; True when another policy is in force."""
        puller = self._puller
        applied = puller.applied
        body = _body_of(event, puller.body)
        if body is not None:
            signature = event.data[0].decode("latin-1")
            return puller.accept(body, {SIGNATURE_HEADER: signature}, asked)
        if event.kind == b"ping" and applied and event.pair == applied.generation:
            # What the server says it serves now was in force when the ping before it came.
            puller.confirm(asked)
        elif event.pair and (applied is None or event.pair > applied.generation):
            puller.ask_soon(self._random.uniform(0, FETCH_SPREAD_SECONDS))
        return False


def _body_of(event: Event, before: bytes | None) -> bytes | None:
    """Return the signed bytes that an event carries; None: none, or a change of what is not ours."""
    match event.kind, event.data:
        case b"policy", (_, body):
            return body
        case b"patch", (_, place, middle):
            patch = read_patch(place, middle)
            return patch.apply(before) if patch and before is not None else None
        case _:
            return None


class _BusyError(Exception):
    """The server has enough new streams for now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"told to come back in {seconds:g} s")


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """Split bytes into events at line feeds alone: a document may hold any other separator.

    Raises:
        LimitExceededError: an event larger than any policy.
    """
    rest = bytearray()
    async for chunk in chunks:
        looked = max(0, len(rest) - 1)
        rest += chunk
        while (end := rest.find(b"\n\n", looked)) >= 0:
            yield _to_event(bytes(rest[:end]))
            del rest[: end + 2]
            looked = 0
        if len(rest) > MAX_POLICY_BYTES:
            raise LimitExceededError("bytes of an event", MAX_POLICY_BYTES)


def _to_event(block: bytes) -> Event:
    kind, pair, data = b"message", None, []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b": ")
        if name == b"event":
            kind = value
        elif name == b"data":
            data.append(value)
        elif name == b"id" and (found := _PAIR.fullmatch(value)):
            pair = Generation(int(found[1]), int(found[2]))
    return Event(kind, pair, tuple(data))


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else 1.0
