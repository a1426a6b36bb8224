"""The other side of `bench policy`: thousands of raw subscribers, or some real agents, in a process.

Driven by lines on stdin, answers by JSON lines on stdout. Instants are CLOCK_MONOTONIC, which every
process of a machine shares. A raw subscriber is a socket and a search for the end of an event:
anything more would measure itself.
"""

import asyncio
import os
import random
import re
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx
import msgspec
from typing_extensions import override

from controlplane.agent.main import build_agent
from controlplane.agent.runtime import Surroundings
from controlplane.agent.settings import AgentSettings
from controlplane.policy.wire import Generation

WAIT_SECONDS: Final = 120.0
CONNECTS_AT_ONCE: Final = 200
AGENTS_STARTED_PER_SECOND: Final = 50
LOOK_SECONDS: Final = 0.05
"""How often an agent's stream is looked at: so exact is its time to come back."""
_EVENT: Final = re.compile(rb'id: "(\d+)\.(\d+)"\nevent: (\w+)')
_RETRY: Final = re.compile(rb"retry-after: (\d+)", re.IGNORECASE)
_RANDOM: Final = random.SystemRandom()


class Order(msgspec.Struct, frozen=True):
    """What a process of clients is to be; the first line it reads."""

    host: str
    port: int
    key: str
    policy_keys: dict[str, str]
    subscribers: int = 0
    agents: int = 0


class Fleet:
    """What has arrived where: generation → one instant per client."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.arrived: dict[Generation, list[float]] = {}
        self.connected: set[object] = set()
        self.changed = asyncio.Event()
        self.refused = 0

    def note(self, client: object, generation: Generation, at: float) -> None:
        """Count a client that has a generation."""
        self.arrived.setdefault(generation, []).append(at)
        self.connected.add(client)
        self.changed.set()

    def note_connected(self, client: object) -> None:
        """Count a client that is told that it is current."""
        if client not in self.connected:
            self.connected.add(client)
            self.changed.set()

    def note_lost(self, client: object) -> None:
        """Count a client out."""
        self.connected.discard(client)

    async def until_all(self, generation: Generation) -> list[float]:
        """Return when each client got a generation; fewer than all when time is over."""
        deadline = time.monotonic() + WAIT_SECONDS
        while len(self.arrived.get(generation, ())) < self.size:
            if not await self._change(deadline):
                break
        return self.arrived.get(generation, [])

    async def until_connected(self) -> float | None:
        """Return the instant at which all are connected; None when time is over."""
        deadline = time.monotonic() + WAIT_SECONDS
        while len(self.connected) < self.size:
            if not await self._change(deadline):
                return None
        return time.monotonic()

    async def _change(self, deadline: float) -> bool:
        self.changed.clear()
        try:
            await asyncio.wait_for(self.changed.wait(), deadline - time.monotonic())
        except TimeoutError:
            return False
        return True


class Subscriber(asyncio.Protocol):
    """One raw connection; `over` ends with how long to wait before the next."""

    def __init__(self, fleet: Fleet, request: bytes) -> None:
        self._fleet = fleet
        self._request = request
        self._rest = bytearray()
        self._has_head = False
        self.over: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
            transport.write(self._request)

    @override
    def data_received(self, data: bytes) -> None:
        at = time.monotonic()
        self._rest += data
        if not self._has_head and not self._read_head():
            return
        while (end := self._rest.find(b"\n\n")) >= 0:
            found = _EVENT.search(self._rest, 0, end)
            if found:
                if found[3] == b"ping":
                    self._fleet.note_connected(self)
                else:
                    self._fleet.note(self, Generation(int(found[1]), int(found[2])), at)
            del self._rest[: end + 2]

    def _read_head(self) -> bool:
        end = self._rest.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._rest[:end])
        del self._rest[: end + 4]
        self._has_head = True
        if b" 200 " in head[:20]:
            return True
        self._fleet.refused += 1
        told = _RETRY.search(head)
        self._end(float(told[1]) if told else 1.0)
        self._transport.abort()
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._fleet.note_lost(self)
        self._end(0.2 if exc is None else 0.4)  # a reset is a crash: give it a moment more

    def _end(self, wait: float) -> None:
        if not self.over.done():
            self.over.set_result(wait)


async def _keep_subscribed(fleet: Fleet, order: Order, gate: asyncio.Semaphore) -> None:
    """Stay connected as a careful client does: wait as told, never all at once."""
    request = (
        f"GET /api/v1/stream HTTP/1.1\r\nHost: {order.host}\r\n"
        f"Authorization: Bearer {order.key}\r\nAccept: text/event-stream\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    wait = 0.1
    while True:
        try:
            async with gate:
                _, client = await loop.create_connection(
                    lambda: Subscriber(fleet, request), order.host, order.port
                )
            wait = 0.1
            pause = await client.over
        except OSError:
            wait = min(5.0, 2 * wait)
            pause = wait
        await asyncio.sleep(pause * _RANDOM.uniform(0.5, 1.0) + _RANDOM.uniform(0, 0.3))


async def _run_agent(
    fleet: Fleet, order: Order, folder: Path, *, number: int, tls: ssl.SSLContext
) -> None:
    """One shipped agent, whole: it streams, polls, syncs, verifies, and keeps journal and policy."""
    agent = build_agent(
        AgentSettings(
            server_url=f"http://{order.host}:{order.port}",
            api_key=order.key,
            policy_keys=order.policy_keys,
            node=f"bench-{os.getpid()}-{number}",
            state_dir=folder / str(number),
            first_policy_wait_seconds=0.0,
        ),
        surroundings=Surroundings(transport=httpx.AsyncHTTPTransport(verify=tls)),
    )
    seen: set[Generation] = set()

    def changed() -> None:
        applied = agent.puller.applied
        if applied and applied.generation not in seen:
            seen.add(applied.generation)
            fleet.note(number, applied.generation, time.monotonic())

    agent.on_change(changed)
    await asyncio.sleep(_RANDOM.uniform(0, number / AGENTS_STARTED_PER_SECOND))
    await agent.ready()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if agent.puller.is_streaming:
            fleet.note_connected(number)
        else:
            fleet.note_lost(number)


async def _answer(fleet: Fleet, line: str) -> dict[str, object]:
    verb, _, rest = line.partition(" ")
    if verb == "connected":
        return {"at": await fleet.until_connected(), "refused": fleet.refused}
    epoch, _, gen = rest.partition(".")
    return {"at": await fleet.until_all(Generation(int(epoch), int(gen)))}


async def main() -> None:
    """Be what the first line says, and answer until stdin ends."""
    loop = asyncio.get_running_loop()
    order = msgspec.json.decode(await loop.run_in_executor(None, sys.stdin.readline), type=Order)
    fleet = Fleet(order.subscribers + order.agents)
    gate = asyncio.Semaphore(CONNECTS_AT_ONCE)
    tls = ssl.create_default_context()  # reads every authority there is: once for all agents
    with tempfile.TemporaryDirectory(prefix="controlplane-bench-agents-") as folder:
        tasks = [
            asyncio.create_task(_keep_subscribed(fleet, order, gate))
            for _ in range(order.subscribers)
        ]
        tasks += [
            asyncio.create_task(_run_agent(fleet, order, Path(folder), number=number, tls=tls))
            for number in range(order.agents)
        ]
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            answer = await _answer(fleet, line.strip())
            sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
            sys.stdout.flush()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
