"""An agent inside any Python program: its loop runs in a thread of its own, calls are admitted in theirs.

The fast path takes a lock and no thread switch; only a call that needs more lease waits for the
agent's thread. After a fork the child starts a thread, and a holder, of its own.
"""

import asyncio
import atexit
import concurrent.futures
import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Coroutine, Mapping
from typing import Any, Final, Protocol, TypeVar

from controlplane.agent.admission import Waiting
from controlplane.agent.health import Deployments
from controlplane.agent.main import build_agent
from controlplane.agent.node_gate import NodeGate
from controlplane.agent.runtime import Agent
from controlplane.agent.settings import load_agent_settings
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import Request, Ticket

STOP_SECONDS: Final = 10.0
_T = TypeVar("_T")


class Gate(Protocol):
    """What every front needs of an agent, in its process or in another."""

    @property
    def policy(self) -> str:
        """The generation in force, as `epoch.gen`."""
        ...

    @property
    def dimension_map(self) -> Mapping[str, str]:
        """Where the policy says that each dimension is read in a request."""
        ...

    @property
    def tenant(self) -> str:
        """Whose a request is that names no tenant."""
        ...

    def ready(self) -> None:
        """Have a policy, or have waited for one long enough; for a thread that may wait."""
        ...

    async def ready_async(self) -> None:
        """Do the same without holding up the caller's loop."""
        ...

    async def admit(self, request: Request) -> Ticket:
        """Admit one call from any loop.

        Raises:
            RefusedError: with the answer for the sender.
        """
        ...

    def admit_blocking(self, request: Request) -> Ticket:
        """Admit one call from a thread that may wait.

        Raises:
            RefusedError: with the answer for the sender.
        """
        ...

    async def admit_again(self, request: Request) -> Ticket:
        """Hold another attempt of an admitted call, from any loop.

        Raises:
            RefusedError: with the answer for the sender.
        """
        ...

    def admit_again_blocking(self, request: Request) -> Ticket:
        """Hold another attempt of an admitted call, from a thread that may wait.

        Raises:
            RefusedError: with the answer for the sender.
        """
        ...

    async def look_again(self, request: Request) -> Ticket:
        """Say what the rules change in a later attempt at another model; nothing is held.

        Raises:
            RefusedError: with the answer for the sender.
        """
        ...

    def settle(self, hold_id: str, ending: Ending) -> None:
        """Say how an attempt ended; a second time is ignored."""
        ...

    def release(self, slot: str, ending: Ending) -> None:
        """Say how a request ended, whatever its attempts; a second time is ignored."""
        ...

    @property
    def deployments(self) -> Deployments:
        """What this process knows of the deployments it calls."""
        ...


class EmbeddedAgent:
    """A `Gate` in this process."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        atexit.register(self.close)
        os.register_at_fork(after_in_child=functools.partial(_forked, weakref.ref(self)))

    @property
    def policy(self) -> str:
        """The generation in force, as `epoch.gen`."""
        return self.agent.policy

    @property
    def dimension_map(self) -> Mapping[str, str]:
        """Where the policy says that each dimension is read in a request."""
        return self.agent.dimension_map

    @property
    def tenant(self) -> str:
        """Whose a request is that names no tenant."""
        return self.agent.tenant

    def ready(self) -> None:
        """Start the thread once a process, and wait a little for the first policy."""
        if self._pid == os.getpid() and self.agent.puller.applied is not None:
            return
        self._submit(self.agent.ready()).result()

    async def ready_async(self) -> None:
        """Do the same without holding up the caller's loop."""
        if self._pid == os.getpid() and self.agent.puller.applied is not None:
            return
        await asyncio.wrap_future(self._submit(self.agent.ready()))

    async def admit(self, request: Request) -> Ticket:
        """Admit one call from any loop."""
        await self.ready_async()
        return await self._finished(self.agent.admit_now(request))

    def admit_blocking(self, request: Request) -> Ticket:
        """Admit one call from a thread that may wait."""
        self.ready()
        return self._finished_blocking(self.agent.admit_now(request))

    async def admit_again(self, request: Request) -> Ticket:
        """Hold another attempt of an admitted call, from any loop."""
        return await self._finished(self.agent.admit_again_now(request))

    def admit_again_blocking(self, request: Request) -> Ticket:
        """Hold another attempt of an admitted call, from a thread that may wait."""
        return self._finished_blocking(self.agent.admit_again_now(request))

    async def look_again(self, request: Request) -> Ticket:
        """Say what the rules change in a later attempt at another model."""
        return self.agent.look_again(request)

    async def _finished(self, answer: Ticket | Waiting) -> Ticket:
        if not isinstance(answer, Waiting):
            return answer
        under_way: list[asyncio.Task[Any]] = []
        asked = self._submit(self._wait(answer, under_way))
        try:
            return await asyncio.shield(asyncio.wrap_future(asked))
        except asyncio.CancelledError:
            # Not through the future: a ticket that has just been made would be lost with it.
            asked.add_done_callback(self._unwanted)
            if self._loop is not None:
                self._loop.call_soon_threadsafe(_cancel, self._loop, under_way)
            raise

    async def _wait(self, answer: Waiting, under_way: list[asyncio.Task[Any]]) -> Ticket:
        task = asyncio.current_task()
        under_way += [task] if task else []
        return await self.agent.wait(answer)

    def _finished_blocking(self, answer: Ticket | Waiting) -> Ticket:
        if not isinstance(answer, Waiting):
            return answer
        asked = self._submit(self.agent.wait(answer))
        try:
            return asked.result()
        except (KeyboardInterrupt, SystemExit):
            asked.add_done_callback(self._unwanted)
            raise

    def _unwanted(self, asked: "concurrent.futures.Future[Ticket]") -> None:
        """End what was admitted for a sender that has left while it waited."""
        if not asked.cancelled() and asked.exception() is None:
            self.agent.never_sent(asked.result().hold_id, asked.result().slot)

    def settle(self, hold_id: str, ending: Ending) -> None:
        """Say how an attempt ended; a second time is ignored."""
        self.agent.settle(hold_id, ending)

    def release(self, slot: str, ending: Ending) -> None:
        """Say how a request ended, whatever its attempts; a second time is ignored."""
        self.agent.release(slot, ending)

    @property
    def deployments(self) -> Deployments:
        """What this process knows of the deployments it calls."""
        return self.agent.admission.desk.deployments

    def close(self) -> None:
        """Give the leases back, send what is owed, and end the thread."""
        atexit.unregister(self.close)
        if self._thread is None or self._pid != os.getpid() or self._loop is None:
            return
        with contextlib.suppress(concurrent.futures.TimeoutError):
            self._submit(self.agent.stop()).result(STOP_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        self._thread = None

    def forked(self) -> None:
        """Forget the thread: it did not come along, and may have held the lock."""
        self._lock = threading.Lock()
        self._thread = self._loop = None

    def _submit(self, work: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        with self._lock:
            if self._pid != os.getpid() or self._loop is None:  # never started, or forked
                self._pid, self._loop = os.getpid(), asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop,), name="controlplane-agent", daemon=True
                )
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)


def _cancel(loop: asyncio.AbstractEventLoop, under_way: list[asyncio.Task[Any]]) -> None:
    """Cancel a task that has begun, so that it cleans up; it is scheduled already, so soon."""
    if not under_way:
        loop.call_soon(_cancel, loop, under_way)
    for task in under_way:
        task.cancel()


def _forked(embedded: "weakref.ref[EmbeddedAgent]") -> None:
    found = embedded()
    if found is not None:
        found.forked()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


@functools.cache
def default_gate() -> Gate:
    """Return the agent of this process, set up by the environment (`CONTROLPLANE_AGENT_…`).

    Where `SOCKET` names the node agent's socket, that one is asked.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    settings = load_agent_settings()
    if settings.socket:
        return NodeGate(settings.socket)
    return EmbeddedAgent(build_agent(settings))
