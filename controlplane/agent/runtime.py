"""The agent in one process: admit here and now, talk to the server beside the traffic.

Admission reads the policy and the lease book only. The network is used by two tasks, one polling
for policy and one syncing leases and settles; an admission waits for the second, briefly, when no
lease has room.
"""

import asyncio
import contextlib
import os
import weakref
from collections.abc import Mapping

import httpx
import msgspec

from controlplane.agent.admit import Claim, Refusal, claim, exhausted
from controlplane.agent.consult import Consulted, Desk
from controlplane.agent.holder import Holder
from controlplane.agent.lease import Instant
from controlplane.agent.puller import Puller, Verify
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import Ending, Hold
from controlplane.agent.syncer import Syncer
from controlplane.agent.ticket import RefusedError, Request, Ticket
from controlplane.core.clock import Clock
from controlplane.core.ids import IdFactory
from controlplane.policy.document import BudgetClause, Mode, StaleMode
from controlplane.policy.match import matches


class Agent:
    """One agent; every method but `start`, `stop` and `admit` is synchronous and local."""

    def __init__(
        self, settings: AgentSettings, *, clock: Clock, ids: IdFactory, verify: Verify
    ) -> None:
        self.settings = settings
        self.clock = clock
        self._ids = ids
        self._verify = verify
        self._tasks: list[asyncio.Task[None]] = []
        self._has_begun = self._has_ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin()
        _agents.add(self)

    def _begin(self) -> None:
        """Become a holder of our own, with connections of our own."""
        self._client = httpx.AsyncClient(
            base_url=self.settings.server_url,
            headers={"Authorization": f"Bearer {self.settings.api_key}"},
            timeout=self.settings.request_timeout_seconds,
            trust_env=False,
        )
        self.holder = Holder(self.settings)
        self.desk = Desk(self.clock)
        self.puller = Puller(self._client, self.settings, clock=self.clock, verify=self._verify)
        self.syncer = Syncer(self._client, self.settings, self.holder, clock=self.clock)

    def forked(self) -> None:
        """Drop what belongs to the parent: its leases, holds, tasks and sockets (L11)."""
        self._tasks = []
        self._has_begun = False
        self._loop = None
        self.holder.abandon()
        self._begin()

    async def ready(self) -> None:
        """Start the two tasks in this loop, once, and wait a little for the first policy."""
        if not self._tasks:
            self._has_begun = True
            self._loop = asyncio.get_running_loop()
            self._tasks = [
                asyncio.create_task(self.puller.run(self.syncer.wake), name="policy-poll"),
                asyncio.create_task(self.syncer.run(self.puller), name="lease-sync"),
            ]
        if self.puller.applied is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self.puller.seen.wait(), self.settings.first_policy_wait_seconds
                )

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
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.syncer.retire)

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
        applied = self.puller.applied
        return applied.generation.etag().strip('"') if applied else "none"

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

    def status(self) -> dict[str, object]:
        """Return what an operator would ask: which policy, how old, what is open."""
        applied = self.puller.applied
        now = Instant.of(self.clock)
        return {
            "policy": self.policy,
            "confirmed_seconds_ago": round(applied.confirmed.seconds_until(now), 1)
            if applied
            else None,
            "unsettled_holds": self.holder.queue.unsettled,
            "pending_settles": self.holder.queue.pending,
            "leases": len(self.holder.book.leases),
            "syncs": self.syncer.syncs,
            "sync_failures": self.syncer.failures,
            "refusals": dict(self.desk.refusals),
        }

    async def admit(self, request: Request) -> Ticket:
        """Admit one call, using the network only when no lease has room for it.

        Raises:
            RefusedError: with the answer for the sender.
        """
        if not self._tasks or self.puller.applied is None:
            await self.ready()
        consulted = self._consult(request)
        wanted = claim(
            consulted.document,
            consulted.budgets,
            request.bound,
            candidates=request.candidates(consulted.model or request.facts.get("model", "")),
            cap_tokens=consulted.cap_tokens,
        )
        if isinstance(wanted, Refusal):
            raise self._refused(wanted)
        held = self._hold(request, wanted) or await self._wait(request, wanted, consulted.budgets)
        hold, kept = held
        asked, cap = request.bound.output_tokens, consulted.cap_tokens
        if kept.budget_ids:
            cap = kept.output_tokens
        lower = cap if cap is not None and (asked is None or cap < asked) else None
        return Ticket(
            hold_id=hold.hold_id if hold else None,
            model=consulted.model,
            output_tokens=lower,
            weights=consulted.weights,
            sticky=consulted.sticky,
            notes=consulted.notes,
        )

    async def admit_again(self, request: Request) -> Ticket:
        """Hold another attempt of an admitted call: its budgets apply, quotas are not used twice.

        Raises:
            RefusedError: with the answer for the sender.
        """
        applied = self.puller.applied
        if applied is None:
            return Ticket()
        budgets = tuple(b for b in applied.document.budgets if matches(b.match, request.facts))
        wanted = claim(
            applied.document,
            budgets,
            request.bound,
            candidates=request.candidates(request.facts.get("model", "")),
            cap_tokens=None,
        )
        if isinstance(wanted, Refusal):
            raise self._refused(wanted)
        whole = msgspec.structs.replace(wanted, least_nusd=wanted.held_nusd + 1)  # never cut
        held = self._hold(request, whole) or await self._wait(request, whole, budgets)
        return Ticket(hold_id=held[0].hold_id if held[0] else None)

    def _consult(self, request: Request) -> Consulted:
        applied = self.puller.applied
        if applied is None:
            if self.settings.without_policy == "allow":
                return Consulted.nothing()
            raise self._refused(
                Refusal(code="policy_missing", reason="no policy was ever received", status=503)
            )
        consulted = self.desk.consult(
            applied.document, request.facts, standings=self.syncer.standings
        )
        if consulted.refusal:
            raise self._refused(consulted.refusal)
        stale = applied.document.on_stale
        age = applied.confirmed.seconds_until(Instant.of(self.clock))
        hard = next((b for b in consulted.budgets if b.mode is Mode.HARD), None)
        if hard and age > stale.dead_after_seconds and stale.mode is StaleMode.PESSIMISTIC:
            raise self._refused(
                Refusal(
                    code="policy_stale",
                    reason=f"the policy was last confirmed {age:.0f} s ago; "
                    f"budget {hard.name!r} is not spent blindly",
                    status=503,
                    budget=hard,
                )
            )
        return consulted

    def _hold(self, request: Request, wanted: Claim) -> tuple[Hold | None, Claim] | None:
        """Take the claim from the lease book; None when it does not fit."""
        if not wanted.budget_ids:
            return None, wanted
        now = Instant.of(self.clock)
        leases = self.holder.book.hold(wanted.budget_ids, wanted.held_nusd, now)
        if leases is None:
            return None
        facts = request.facts
        hold = Hold(
            hold_id=self._ids.new("hold"),
            leases=leases,
            held_nusd=wanted.held_nusd,
            started=now,
            provider=request.provider,
            model=facts.get("model", ""),
            operation=request.bound.operation,
            call_id=request.call_id,
            dimensions=dict(facts),
        )
        self.holder.queue.opened(hold)
        return hold, wanted

    async def _wait(
        self, request: Request, wanted: Claim, budgets: tuple[BudgetClause, ...]
    ) -> tuple[Hold | None, Claim]:
        """Ask for more lease; cut the output to fit what came; give up after a moment."""
        deadline = self.clock.monotonic() + self.settings.admission_wait_seconds
        while True:
            left = deadline - self.clock.monotonic()
            answered = left > 0 and await self.syncer.more(wanted, left)
            held = self._hold(request, wanted)
            if held is None and (answered or left <= 0):
                fits = self.holder.book.fits_nusd(wanted.budget_ids, Instant.of(self.clock))
                cut = wanted.cut_to(fits)
                held = self._hold(request, cut) if cut else None
            if held is not None:
                return held
            if left <= 0 or (answered and not self.holder.queue.is_busy):
                raise self._refused(exhausted(budgets, self.syncer.standings, wanted.held_nusd))

    def settle(self, hold_id: str, ending: Ending) -> bool:
        """End a call's hold; False when it was ended before."""
        hold = self.holder.queue.ended(hold_id, ending)
        if hold is None:
            return False
        self.holder.book.forget_refusal(hold.leases)
        self.syncer.settled()
        return True

    def _refused(self, refusal: Refusal) -> RefusedError:
        self.desk.refusals[refusal.code] = self.desk.refusals.get(refusal.code, 0) + 1
        if refusal.budget and refusal.standing is None:
            standing = self.syncer.standings.get(refusal.budget.id)
            refusal = msgspec.structs.replace(refusal, standing=standing)
        return RefusedError(refusal, self.policy)


_agents: "weakref.WeakSet[Agent]" = weakref.WeakSet()


def _after_fork() -> None:
    for agent in list(_agents):
        agent.forked()


os.register_at_fork(after_in_child=_after_fork)
