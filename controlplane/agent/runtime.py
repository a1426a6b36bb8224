"""The agent in one process: admit here and now, talk to the server beside the traffic.

Admission reads the policy and the lease book only. The network is used by two tasks, one polling
for policy and one syncing leases and settles; an admission waits for the second, briefly, when no
lease has room.
"""

import asyncio
import contextlib
import os
import random
import weakref
from collections.abc import Callable, Mapping
from typing import Final

import httpx
import msgspec

from controlplane.agent.admission import Admission, Waiting
from controlplane.agent.clock import THIS_MACHINE, Machine
from controlplane.agent.holder import Holder
from controlplane.agent.keyring import AgentKeys
from controlplane.agent.lease import Instant
from controlplane.agent.log import say
from controlplane.agent.puller import UNPREDICTABLE, Puller, Verify
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import Ending, overran
from controlplane.agent.stream import PolicyStream
from controlplane.agent.syncer import Syncer
from controlplane.agent.ticket import Request, Ticket
from controlplane.core.clock import Clock
from controlplane.core.ids import IdFactory
from controlplane.policy.wire import Generation


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent finds around it; a simulator puts a network and a machine of its own there."""

    machine: Machine = THIS_MACHINE
    client: type[httpx.AsyncClient] = httpx.AsyncClient
    transport: httpx.AsyncBaseTransport | None = None
    jitter: random.Random = UNPREDICTABLE


HERE: Final = Surroundings()


STATUS_SECONDS: Final = 60.0
ACKNOWLEDGE_SECONDS: Final = 0.5
"""Within which the server hears of another policy in force, each agent at a moment of its own."""


class Agent:
    """One agent; every method but `start`, `stop` and `admit` is synchronous and local."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        clock: Clock,
        ids: IdFactory,
        verify: Verify,
        keys: AgentKeys | None = None,
        surroundings: Surroundings = HERE,
    ) -> None:
        self._keys = keys
        self.settings = settings
        self._surroundings = surroundings
        self.clock = clock
        self._ids = ids
        self._verify = verify
        self._tasks: list[asyncio.Task[None]] = []
        self._has_begun = self._has_ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: list[Callable[[], None]] = []
        self._begin()
        _agents.add(self)

    def _begin(self) -> None:
        """Become a holder of our own, with connections of our own."""
        self._client = self._surroundings.client(
            base_url=self.settings.server_url,
            headers={"Authorization": f"Bearer {self.settings.api_key}"},
            timeout=self.settings.request_timeout_seconds,
            trust_env=False,
            transport=self._surroundings.transport,
        )
        self.holder = Holder(self.settings, self._surroundings.machine)
        self.puller = Puller(
            self._client,
            self.settings,
            clock=self.clock,
            verify=self._verify,
            jitter=self._surroundings.jitter,
        )
        self.stream = PolicyStream(
            self._client,
            self.settings,
            self.puller,
            clock=self.clock,
            jitter=self._surroundings.jitter,
        )
        self.syncer = Syncer(self._client, self.settings, self.holder, clock=self.clock)
        self.admission = Admission(
            self.settings,
            clock=self.clock,
            ids=self._ids,
            holder=self.holder,
            puller=self.puller,
            syncer=self.syncer,
        )

    def forked(self) -> None:
        """Drop what belongs to the parent: its leases, holds, tasks and sockets (L11)."""
        self._tasks = []
        self._has_begun = False
        self._loop = None
        self.holder.abandon()
        self._begin()

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """The tasks that run beside the traffic."""
        return tuple(self._tasks)

    async def ready(self) -> None:
        """Start the tasks in this loop, once, and wait a little for the first policy."""
        if not self._tasks:
            self._has_begun = True
            self._loop = asyncio.get_running_loop()
            self._tasks = [
                asyncio.create_task(self.puller.run(self._changed), name="policy-poll"),
                asyncio.create_task(
                    self.stream.run(self._changed, self.syncer.wake), name="policy-stream"
                ),
                asyncio.create_task(self.syncer.run(self.puller), name="lease-sync"),
                asyncio.create_task(self._tell(), name="agent-status"),
            ]
            if self._keys is not None:
                running = self._keys.run(self._client)
                self._tasks.append(asyncio.create_task(running, name="policy-keys"))
        if self.puller.applied is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self.puller.seen.wait(), self.settings.first_policy_wait_seconds
                )

    async def _tell(self) -> None:
        """Log how the agent is now and then: open holds that only grow mean a front is broken."""
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            say("agent_status", **self.status())

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call the listener, in the loop of the tasks, when another policy is in force."""
        self._listeners.append(listener)

    def _changed(self) -> None:
        """Act on another policy, and tell the server: a refusal now, the rest not all at once."""
        if self.puller.nack is not None:
            self.syncer.wake()
        else:
            self.holder.book.forget_refusals(Instant.of(self.clock))
            wait = self._surroundings.jitter.uniform(0, ACKNOWLEDGE_SECONDS)
            asyncio.get_running_loop().call_later(wait, self.syncer.wake)
        for listener in self._listeners:
            listener()

    def refused_by_front(self, generation: Generation, reason: str) -> None:
        """Tell the server that what stands before us can not apply a generation, and why."""
        self.puller.refused_by_front(generation, reason)
        self._in_loop(self.syncer.wake)

    async def stop(self) -> None:
        """Give the leases back, send what is owed, and end."""
        async with self.syncer.talking:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await asyncio.to_thread(self.goodbye)
        await self._client.aclose()

    def retire(self) -> None:
        """Begin to leave, from a signal handler: the leases go back while calls still end."""
        self._in_loop(self.syncer.retire)

    def goodbye(self) -> None:
        """Give the leases back and send what is owed, without a loop: for the end of a process.

        What does not reach the server stays in the journal for the next start. A process that
        never started its tasks has nothing to say.
        """
        if not self._has_begun or self._has_ended:
            return
        self._has_ended = True
        with contextlib.suppress(httpx.HTTPError):
            self.syncer.say_goodbye(self.puller)
        self.puller.persist_confirmation()
        self.holder.close()

    @property
    def policy(self) -> str:
        """The generation in force, as `epoch.gen`."""
        return self.admission.policy

    @property
    def dimension_map(self) -> Mapping[str, str]:
        """Where the policy says that each dimension is read in a request."""
        applied = self.puller.applied
        return applied.document.dimension_map if applied else {}

    @property
    def tenant(self) -> str:
        """Whose a request is that names no tenant; empty when the policy does not say."""
        applied = self.puller.applied
        return applied.document.tenant if applied else ""

    @property
    def is_policy_late(self) -> bool:
        """Whether the server has not confirmed the policy for as long as the policy itself bears."""
        applied = self.puller.applied
        if applied is None:
            return True
        age_seconds = applied.confirmed.seconds_until(Instant.of(self.clock))
        return age_seconds > applied.document.on_stale.warn_after_seconds

    @property
    def is_degraded(self) -> bool:
        """Whether it does not do, or soon will not, what the server wants of it."""
        return self.is_policy_late or self.puller.nack is not None or self.syncer.is_late

    def status(self) -> dict[str, object]:
        """Return what an operator would ask: which policy, how old, what is open."""
        applied, nack = self.puller.applied, self.puller.nack
        now = Instant.of(self.clock)
        return {
            "policy": self.policy,
            "confirmed_seconds_ago": round(applied.confirmed.seconds_until(now), 1)
            if applied
            else None,
            "policy_late": self.is_policy_late,
            "policy_refused": nack.reason if nack else None,
            "policy_error": self.puller.error,
            "sync_late": self.syncer.is_late,
            "sync_error": self.syncer.error,
            "unsettled_holds": self.holder.queue.unsettled,
            "pending_settles": self.holder.queue.pending,
            "leases": len(self.holder.book.leases),
            "syncs": self.syncer.syncs,
            "sync_failures": self.syncer.failures,
            "demoted_bounds": len(self.admission.desk.demoted),
            "refusals": dict(self.admission.desk.refusals),
        }

    def admit_now(self, request: Request) -> Ticket | Waiting:
        """Admit one call from what is at hand, in any thread; else say that it has to wait.

        Raises:
            RefusedError: with the answer for the sender.
        """
        return self.admission.start(request)

    def admit_again_now(self, request: Request) -> Ticket | Waiting:
        """Hold another attempt of an admitted call from what is at hand, in any thread.

        Raises:
            RefusedError: with the answer for the sender.
        """
        return self.admission.start_again(request)

    def look_again(self, request: Request) -> Ticket:
        """Say what the rules change in a later attempt at another model, in any thread.

        Raises:
            RefusedError: with the answer for the sender.
        """
        return self.admission.look_again(request)

    async def wait(self, waiting: Waiting) -> Ticket:
        """Admit a call that needs more lease, in the loop that this agent was started in.

        Raises:
            RefusedError: with the answer for the sender.
        """
        return await self.admission.finish(waiting)

    async def admit(self, request: Request) -> Ticket:
        """Admit one call, using the network only when no lease has room for it.

        Raises:
            RefusedError: with the answer for the sender.
        """
        if not self._tasks or self.puller.applied is None:
            await self.ready()
        answer = self.admit_now(request)
        return await self.wait(answer) if isinstance(answer, Waiting) else answer

    async def admit_again(self, request: Request) -> Ticket:
        """Hold another attempt of an admitted call: its budgets apply, quotas are not used twice.

        Raises:
            RefusedError: with the answer for the sender.
        """
        answer = self.admit_again_now(request)
        return await self.wait(answer) if isinstance(answer, Waiting) else answer

    def settle(self, hold_id: str, ending: Ending) -> bool:
        """End a call's hold, in any thread; False when it was ended before."""
        with self.holder.lock:
            ended = self.holder.ended(hold_id, ending)
            if ended is None:
                return False
            if overran(ended.hold, ending):
                hold = ended.hold
                self.admission.desk.overran(hold.operation, hold.provider, hold.model)
            self.holder.tally.errors += ending.status == "error" and ending.was_sent
            if not ended.is_released:
                self.holder.book.forget_refusal(ended.hold.leases, Instant.of(self.clock))
        if self.syncer.cares(ended.hold.leases):
            self._in_loop(self.syncer.released if ended.is_released else self.syncer.wake)
        return True

    def never_sent(self, hold_id: str | None, slot: str | None) -> None:
        """End what was admitted for a call that nobody will send: it costs and uses nothing."""
        ending = Ending(
            ended_at=self.clock.now(),
            usage={},
            status="error",
            error_type="cancelled",
            was_sent=False,
        )
        if hold_id:
            self.settle(hold_id, ending)
        if slot:
            self.release(slot, ending)

    def release(self, slot: str, ending: Ending) -> bool:
        """Count a request out, in any thread; False when it was before."""
        with self.holder.lock:
            return self.admission.desk.slots.close(slot, ending, now=self.clock.now())

    def _in_loop(self, action: Callable[[], None]) -> None:
        """Do it in the loop of our tasks; asyncio's own objects are not for other threads."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if _running() is loop:
            action()
        else:
            loop.call_soon_threadsafe(action)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_agents: "weakref.WeakSet[Agent]" = weakref.WeakSet()


def _after_fork() -> None:
    for agent in list(_agents):
        agent.forked()


os.register_at_fork(after_in_child=_after_fork)
