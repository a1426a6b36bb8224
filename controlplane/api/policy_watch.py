"""Long polls on policy generations: many waiters, one reader, woken by a publish in this process.

A generation published by another process is seen by the re-read, at most REREAD_SECONDS later.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import structlog

from controlplane.core.errors import LimitExceededError, NotFoundError, UnavailableError
from controlplane.policy.history import SignedGeneration

REREAD_SECONDS: Final = 1.0
MAX_WAIT_SECONDS: Final = 25.0
"""Below the 30 s after which proxies in between commonly cut an idle request."""
MAX_SCOPES: Final = 256

log = structlog.stdlib.get_logger()


class _Scope:
    def __init__(self) -> None:
        self.policy: SignedGeneration | None = None
        self.read_at = float("-inf")
        self.published = 0  # publishes heard of
        self.read_published = 0  # of those, before the last read began
        self.changed = asyncio.Event()
        self.waiters = 0
        self.lock = asyncio.Lock()
        self.rereader: asyncio.Task[None] | None = None


class PolicyWatch:
    """The newest generation of each scope that somebody asks for.

    Used from one event loop; only `published` and `close` may be called from any thread.
    """

    def __init__(self, newest: Callable[[str], SignedGeneration | None]) -> None:
        self._newest = newest
        self._scopes: dict[str, _Scope] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def wait(
        self, scope: str, *, unless: frozenset[str], seconds: float
    ) -> SignedGeneration | None:
        """Return the newest generation as soon as its ETag is not in `unless`; None: unchanged.

        Raises:
            NotFoundError: the scope has no generation, and got none in `seconds`.
            LimitExceededError: more than MAX_SCOPES scopes are waited for.
        """
        self._loop = asyncio.get_running_loop()
        deadline = time.monotonic() + seconds
        known = self._scope(scope)
        known.waiters += 1
        try:
            await self._refresh(scope, known)
            while not _is_new(known.policy, unless):
                left = deadline - time.monotonic()
                if left <= 0 or self._closed:
                    break
                self._reread(scope, known)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(known.changed.wait(), left)
        finally:
            known.waiters -= 1
            if not known.waiters and known.policy is None:
                self._scopes.pop(scope, None)
        if known.policy is None:
            raise NotFoundError("policy of the scope", scope)
        return known.policy if _is_new(known.policy, unless) else None

    def published(self) -> None:
        """Look for new generations now; call it after a publish has been committed."""
        self._call(self._look_again)

    def close(self) -> None:
        """Answer every waiter now, and later ones without waiting."""
        self._closed = True
        self._call(self._wake_all)

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
        for scope in self._scopes.values():
            scope.changed.set()
            if scope.rereader is not None:
                scope.rereader.cancel()

    def _scope(self, name: str) -> _Scope:
        if name not in self._scopes and len(self._scopes) >= MAX_SCOPES:
            raise LimitExceededError("policy scopes waited for at once", MAX_SCOPES)
        return self._scopes.setdefault(name, _Scope())

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
        while scope.waiters and not self._closed:
            await asyncio.sleep(REREAD_SECONDS)
            await self._refresh(name, scope)

    async def _refresh(self, name: str, scope: _Scope) -> None:
        """Read the newest generation unless that was done a moment ago and none came since.

        A read that fails leaves what is known: an agent acts on its last known good document, so
        its poll must not turn into an error.
        """
        async with scope.lock:
            heard, started = scope.published, time.monotonic()
            if heard == scope.read_published and started - scope.read_at < REREAD_SECONDS:
                return
            try:
                policy = await asyncio.to_thread(self._newest, name)
            except UnavailableError as error:
                log.warning("policy_not_read", scope=name, exc_info=error)
                return
            scope.read_at, scope.read_published = started, heard
            if policy is not None and _is_new(policy, _etags(scope.policy)):
                scope.policy = policy
                scope.changed.set()
                scope.changed = asyncio.Event()


def _etags(policy: SignedGeneration | None) -> frozenset[str]:
    return frozenset() if policy is None else frozenset({policy.generation.etag()})


def _is_new(policy: SignedGeneration | None, unless: frozenset[str]) -> bool:
    return policy is not None and policy.generation.etag() not in unless
