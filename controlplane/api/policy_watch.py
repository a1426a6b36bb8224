"""Policy generations to whoever waits: long polls and streams, one reader a scope.

A publish in this process wakes the reader at once; one of another process is seen by the re-read,
at most REREAD_SECONDS later, or sooner by a hint (D3). A caller that has a higher generation than
we know is served nothing until we know as much: a replica behind never takes anybody back.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from controlplane import telemetry
from controlplane.api.policy_stream import Frames, Subscriber
from controlplane.core.errors import LimitExceededError, NotFoundError, UnavailableError
from controlplane.policy.history import Serving, SignedGeneration
from controlplane.policy.wire import Generation

REREAD_SECONDS: Final = 1.0
MAX_WAIT_SECONDS: Final = 25.0
"""Below the 30 s after which proxies in between commonly cut an idle request."""
MAX_SCOPES: Final = 256
PING_SECONDS: Final = 5.0
PING_SLOTS: Final = 50
"""Streams are pinged in as many groups, so that ten thousand do not wake at once."""
YIELD_EVERY: Final = 250
"""Frames handed out before other work gets its turn."""
MAX_NODES_REMEMBERED: Final = 50_000
_PAIR: Final = re.compile(r'"(\d{1,9})\.(\d{1,9})"')

log = structlog.stdlib.get_logger()


class _Scope:
    def __init__(self) -> None:
        self.serving: Serving | None = None
        self.frames: Frames | None = None
        self.read_at = float("-inf")
        self.published = 0  # publishes heard of
        self.read_published = 0  # of those, before the last read began
        self.changed = asyncio.Event()
        self.waiters = 0
        self.lock = asyncio.Lock()
        self.rereader: asyncio.Task[None] | None = None
        self.slots: list[set[Subscriber]] = [set() for _ in range(PING_SLOTS)]
        self.next_slot = 0
        self.fan_out: asyncio.Task[None] | None = None


class PolicyWatch:
    """What each scope that somebody asks for is to run.

    Used from one event loop; only `published` and `close` may be called from any thread.
    """

    def __init__(self, serving: Callable[[str], Serving | None]) -> None:
        self._read = serving
        self._scopes: dict[str, _Scope] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._applied: dict[tuple[str, str], Generation] = {}
        self._forged: set[tuple[str, str, Generation, str]] = set()

    async def wait(
        self, scope: str, *, unless: Generation | None, seconds: float, node: str = ""
    ) -> SignedGeneration | None:
        """Return what a node is to run as soon as it is above `unless`; None: nothing is.

        Raises:
            NotFoundError: the scope has no generation, and got none in `seconds`.
            LimitExceededError: more than MAX_SCOPES scopes are waited for.
        """
        self._loop = asyncio.get_running_loop()
        deadline = time.monotonic() + seconds
        known = self._enter(scope)
        try:
            await self._refresh(scope, known)
            while not _is_new(known.serving, node, unless):
                left = deadline - time.monotonic()
                if left <= 0 or self._closed:
                    break
                self._reread(scope, known)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(known.changed.wait(), left)
        finally:
            self._leave(scope, known)
        if known.serving is None:
            raise NotFoundError("policy of the scope", scope)
        return known.serving.of(node) if _is_new(known.serving, node, unless) else None

    async def subscribe(self, scope: str, *, node: str, unless: Generation | None) -> Subscriber:
        """Open a stream: what is new comes at once, later generations when they are published.

        Raises:
            LimitExceededError: more than MAX_SCOPES scopes are waited for.
            UnavailableError: the server is stopping.
        """
        self._loop = asyncio.get_running_loop()
        if self._closed:
            raise UnavailableError("the server is stopping. Connect to another")
        known = self._enter(scope)
        subscriber = Subscriber(node, unless)
        slot = known.next_slot
        known.next_slot = (slot + 1) % PING_SLOTS
        known.slots[slot].add(subscriber)

        def leave() -> None:
            known.slots[slot].discard(subscriber)
            self._leave(scope, known)

        subscriber.on_close = leave
        try:
            await self._refresh(scope, known)
        except BaseException:
            subscriber.close()
            raise
        if known.frames is not None:
            known.frames.give(subscriber, also_ping=True)
        self._reread(scope, known)
        return subscriber

    def published(self) -> None:
        """Look for new generations now; call it after a publish has been committed."""
        self._call(self._look_again)

    def recall(self, *budget_ids: str) -> None:
        """Ask every agent that listens to sync now: what it leases of these budgets is wanted back."""
        names = ",".join(budget_ids)
        frame = f"event: lease\ndata: {names}\n\n".encode()

        def push() -> None:
            for scope in self._scopes.values():
                for slot in scope.slots:
                    for subscriber in list(slot):
                        subscriber.push(frame)

        self._call(push)

    def close(self) -> None:
        """Answer every waiter now, end every stream, and answer later ones without waiting."""
        self._closed = True
        self._call(self._wake_all)

    def applied(
        self,
        scope: str,
        node: str,
        generation: Generation | None,
        *,
        sha256: str | None = None,
        ago_seconds: float = 0.0,
        now: datetime,
    ) -> None:
        """Note what a node says it runs: how long that took, and whether it is really ours (D2)."""
        if generation is None:
            return
        self._compare((scope, node), generation, sha256)
        if self._applied.get((scope, node)) == generation:
            return
        if len(self._applied) >= MAX_NODES_REMEMBERED:
            self._applied.clear()
        self._applied[scope, node] = generation
        known = self._scopes.get(scope)
        issued = known.frames.issued_at(generation) if known and known.frames else None
        if issued is not None:
            took = (now - issued).total_seconds() - max(0.0, ago_seconds)
            telemetry.POLICY_PROPAGATION_SECONDS.observe(max(0.0, took))

    def _compare(self, whose: tuple[str, str], generation: Generation, sha256: str | None) -> None:
        scope, node = whose
        known = self._scopes.get(scope)
        serving = known.serving if known else None
        ours = (serving.stable, serving.candidate) if serving else ()
        told = (scope, node, generation, sha256 or "")
        for signed in ours:
            is_pair = signed is not None and signed.generation == generation
            if signed is None or not is_pair or sha256 in {None, signed.sha256}:
                continue
            if told not in self._forged and len(self._forged) < MAX_NODES_REMEMBERED:
                self._forged.add(told)
                telemetry.POLICY_FORGED.inc()
                log.error(
                    "policy_forged",
                    scope=scope,
                    node=node,
                    generation=generation.etag(),
                    has=sha256,
                )

    def _call(self, act: Callable[[], None]) -> None:
        for scope in list(self._scopes.values()):
            scope.published += 1
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its waiters with it
                self._loop.call_soon_threadsafe(act)

    def _look_again(self) -> None:
        for name, scope in self._scopes.items():
            if scope.waiters:
                self._reread(name, scope, at_once=True)

    def _wake_all(self) -> None:
        for scope in list(self._scopes.values()):
            scope.changed.set()
            if scope.rereader is not None:
                scope.rereader.cancel()
            for slot in scope.slots:
                for subscriber in list(slot):
                    subscriber.close()

    def _enter(self, name: str) -> _Scope:
        if name not in self._scopes and len(self._scopes) >= MAX_SCOPES:
            raise LimitExceededError("policy scopes waited for at once", MAX_SCOPES)
        known = self._scopes.setdefault(name, _Scope())
        known.waiters += 1
        return known

    def _leave(self, name: str, known: _Scope) -> None:
        known.waiters -= 1
        if not known.waiters and known.serving is None:
            self._scopes.pop(name, None)

    def _reread(self, name: str, scope: _Scope, *, at_once: bool = False) -> None:
        """Keep one task per scope that reads again while anybody waits."""
        if scope.rereader is not None and not scope.rereader.done():
            if not at_once:
                return
            scope.rereader.cancel()
        scope.rereader = asyncio.create_task(self._keep_reading(name, scope, at_once=at_once))

    async def _keep_reading(self, name: str, scope: _Scope, *, at_once: bool) -> None:
        if at_once:
            await self._refresh(name, scope)
        tick = PING_SECONDS / PING_SLOTS
        slot, next_read = 0, time.monotonic() + REREAD_SECONDS
        while scope.waiters and not self._closed:
            await asyncio.sleep(tick if any(scope.slots) else REREAD_SECONDS)
            if scope.frames is not None:
                for subscriber in list(scope.slots[slot]):
                    scope.frames.ping(subscriber)
            slot = (slot + 1) % PING_SLOTS
            if time.monotonic() >= next_read:
                await self._refresh(name, scope)
                next_read = time.monotonic() + REREAD_SECONDS

    async def _refresh(self, name: str, scope: _Scope) -> None:
        """Read what is to run unless that was done a moment ago and nothing came since.

        A read that fails leaves what is known: an agent acts on its last known good document, so
        its poll must not turn into an error.
        """
        async with scope.lock:
            heard, started = scope.published, time.monotonic()
            if heard == scope.read_published and started - scope.read_at < REREAD_SECONDS:
                return
            try:
                serving = await asyncio.to_thread(self._read, name)
            except UnavailableError as error:
                log.warning("policy_not_read", scope=name, exc_info=error)
                return
            scope.read_at, scope.read_published = started, heard
            if serving is None or not _is_ahead(serving, scope.serving):
                return
            scope.serving, scope.frames = serving, Frames(serving, before=scope.frames)
            scope.changed.set()
            scope.changed = asyncio.Event()
            if any(scope.slots):
                if scope.fan_out is not None:
                    scope.fan_out.cancel()  # those not reached yet get the newer one only
                scope.fan_out = asyncio.create_task(_hand_out(scope, scope.frames))


async def _hand_out(scope: _Scope, frames: Frames) -> None:
    given = 0
    for slot in scope.slots:
        for subscriber in list(slot):
            frames.give(subscriber)
            given += 1
            if given % YIELD_EVERY == 0:
                await asyncio.sleep(0)


def _is_ahead(serving: Serving, before: Serving | None) -> bool:
    """Whether there is news; another replica's read may come from a moment before ours (D3)."""
    if before is None:
        return True
    if serving.versions == before.versions:
        return False
    newest = max(serving.stable.generation, _candidate(serving))
    return newest >= max(before.stable.generation, _candidate(before))


def _candidate(serving: Serving) -> Generation:
    return (serving.candidate or serving.stable).generation


def _is_new(serving: Serving | None, node: str, unless: Generation | None) -> bool:
    if serving is None:
        return False
    return unless is None or serving.of(node).generation > unless


def highest_pair(text: str) -> Generation | None:
    """Return the highest `"epoch.gen"` in an If-None-Match or Last-Event-ID header; None: none."""
    pairs = [Generation(int(epoch), int(gen)) for epoch, gen in _PAIR.findall(text)]
    return max(pairs, default=None)
