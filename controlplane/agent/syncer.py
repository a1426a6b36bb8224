"""One call that says everything: settles, wants, returns, ack or nack; leases come back."""

import asyncio
from typing import Final

import httpx
import msgspec

from controlplane.agent.admit import Claim
from controlplane.agent.holder import Holder
from controlplane.agent.lease import Instant, Need
from controlplane.agent.log import say
from controlplane.agent.puller import CAPABILITIES, Puller
from controlplane.agent.recover import report_dead
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import Ending
from controlplane.core.clock import Clock
from controlplane.core.errors import ControlPlaneError
from controlplane.policy.wire import (
    Generation,
    LeaseReturn,
    LeaseWant,
    Nack,
    Standing,
    SyncReply,
    SyncRequest,
)

MIN_GAP_SECONDS: Final = 0.02  # between two syncs, however many calls wait
HEARTBEAT_SECONDS: Final = 5.0  # a node that says nothing for longer is stale to the server
MAX_BACKOFF_SECONDS: Final = 5.0
GOODBYE_SECONDS: Final = 2.0


class Waiter(msgspec.Struct, eq=False):
    """A call that waits for the answer to the next sync."""

    claim: Claim
    answered: asyncio.Future[None]


class Syncer:
    """The lease side of the conversation with the server."""

    def __init__(
        self, client: httpx.AsyncClient, settings: AgentSettings, holder: Holder, *, clock: Clock
    ) -> None:
        self._client = client
        self._settings = settings
        self._holder = holder
        self._clock = clock
        self._wake = asyncio.Event()
        self._waiters: list[Waiter] = []
        self.talking = asyncio.Lock()
        """Held while a sync is under way: to give up then could lose a lease in its answer."""
        self._last = Instant.of(clock)
        self._decoder = msgspec.json.Decoder(SyncReply)
        self._is_retired = False
        self.standings: dict[str, Standing] = {}
        self.syncs = 0
        self.failures = 0

    def wake(self) -> None:
        """Sync soon."""
        self._wake.set()

    def retire(self) -> None:
        """Ask for no lease any more and give back what is left; settles still go out."""
        self._is_retired = True
        self.wake()

    @property
    def has_waiters(self) -> bool:
        """Whether a call waits for lease."""
        return bool(self._waiters)

    def settled(self) -> None:
        """A call ended: what it frees may serve one that waits."""
        if self._waiters:
            self.wake()

    async def more(self, wanted: Claim, within_seconds: float) -> bool:
        """Wait for more lease; True when the server has answered, whatever it said.

        A budget that the server called empty is not asked about again at once: only a call of
        ours that ends can make room, so without one in flight the answer is known.
        """
        now = Instant.of(self._clock)
        book, queue = self._holder.book, self._holder.queue
        is_refused = any(
            book.is_refused(budget_id, wanted.least_nusd, now) for budget_id in wanted.budget_ids
        )
        if is_refused and not queue.is_busy:
            return True
        waiter = Waiter(wanted, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        if not is_refused:  # else the next settle of ours wakes us, or the interval
            self.wake()
        try:
            await asyncio.wait_for(waiter.answered, within_seconds)
        except TimeoutError:
            return False
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return True

    async def run(self, puller: Puller) -> None:
        """Sync until cancelled: when woken, at the interval, and never faster than MIN_GAP."""
        backoff = 0.0
        await self._recover()
        while True:
            try:
                async with asyncio.timeout(self._settings.sync_interval_seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass  # nobody woke us: the interval has passed
            self._wake.clear()
            self._expire_holds()
            try:
                if self._has_something_to_say(puller):
                    async with self.talking:
                        await self.sync(puller)
                backoff = MIN_GAP_SECONDS
            except (httpx.HTTPError, msgspec.DecodeError, ControlPlaneError, OSError) as wrong:
                self.failures += 1
                backoff = min(MAX_BACKOFF_SECONDS, max(0.1, backoff * 2))
                say("sync_failed", error=type(wrong).__name__, detail=str(wrong)[:200])
            await asyncio.sleep(backoff)

    async def _recover(self) -> None:
        """Say what earlier processes of this state directory left, before speaking for ourselves."""
        try:
            await report_dead(self._holder, self._settings, post=self._post, clock=self._clock)
        except (httpx.HTTPError, msgspec.DecodeError, OSError) as wrong:
            say("recovery_failed", error=type(wrong).__name__, detail=str(wrong)[:200])

    def _has_something_to_say(self, puller: Puller) -> bool:
        silent = self._last.seconds_until(Instant.of(self._clock))
        return bool(
            self._waiters
            or self._holder.queue.pending
            or puller.unacknowledged
            or self._holder.book.leases
            or silent > HEARTBEAT_SECONDS
        )

    async def sync(self, puller: Puller) -> SyncReply:
        """Say everything once.

        Raises:
            httpx.HTTPError: nothing is known to have reached the server; all is said again.
        """
        now = Instant.of(self._clock)
        waiting, needs = self._needs()
        book = self._holder.book
        with self._holder.lock:
            wants = book.wants(needs, elapsed_seconds=self._last.seconds_until(now), now=now)
            if self._is_retired:
                wants = ()
            self._last = now
            largest = {
                budget_id: max(need.held_nusd for need in waiting_here)
                for budget_id, waiting_here in needs.items()
            }
            closing = book.give_back_all() if self._is_retired else book.give_back(largest, now)
            returns = self._holder.returns(closing)
        reply = await self._say(puller, wants=wants, returns=returns)
        with self._holder.lock:
            for grant in reply.grants:
                self._holder.granted(grant, now)
            self.standings.update((standing.budget_id, standing) for standing in reply.standings)
            self._holder.acknowledged(reply, returns)
            for waiter in waiting:
                for budget_id in waiter.claim.budget_ids:
                    book.fell_short(budget_id, waiter.claim.least_nusd, now)
        for waiter in waiting:
            if not waiter.answered.done():
                waiter.answered.set_result(None)
        await asyncio.to_thread(self._holder.journal.sync)
        return reply

    async def _say(
        self, puller: Puller, *, wants: tuple[LeaseWant, ...], returns: tuple[LeaseReturn, ...]
    ) -> SyncReply:
        state = puller.state()
        request = self._request(state, wants=wants, returns=returns, sha256=puller.sha256)
        reply = await self._post(request)
        puller.acknowledged(*state)
        return reply

    def _request(
        self,
        state: tuple[Generation | None, Nack | None],
        *,
        returns: tuple[LeaseReturn, ...],
        wants: tuple[LeaseWant, ...] = (),
        sha256: str | None = None,
    ) -> SyncRequest:
        with self._holder.lock:
            settle, open_holds = self._holder.queue.batch(), self._holder.queue.open_nusd()
        return SyncRequest(
            node=self._settings.node,
            boot_id=self._holder.name,
            scope=self._settings.scope,
            applied=state[0],
            applied_sha256=sha256,
            counts=self._holder.tally.counts(),
            nack=state[1],
            capabilities=CAPABILITIES,
            settle=settle,
            want=wants,
            returns=returns,
            open_holds_nusd=open_holds,
        )

    def _needs(self) -> tuple[list[Waiter], dict[str, list[Need]]]:
        """Return who waits, and per budget the claims to size the lease for."""
        waiting, self._waiters = self._waiters, []
        needs: dict[str, list[Need]] = {}
        for waiter in waiting:
            need = Need(waiter.claim.held_nusd, waiter.claim.least_nusd)
            for budget_id in waiter.claim.budget_ids:
                needs.setdefault(budget_id, []).append(need)
        return waiting, needs

    async def _post(self, request: SyncRequest) -> SyncReply:
        response = await self._client.post(
            "/api/v1/sync",
            content=msgspec.json.encode(request),
            headers={"Content-Type": "application/json"},
        )
        response.raise_for_status()
        self.syncs += 1
        return self._decoder.decode(response.content)

    def _expire_holds(self) -> None:
        """Settle as unknown what no hook will end any more: a client or a task that vanished."""
        now = Instant.of(self._clock)
        with self._holder.lock:
            expired = self._holder.queue.expired(now, self._settings.max_call_seconds)
            for hold_id in expired:
                ending = Ending(ended_at=now.wall, status="error", error_type="timeout")
                self._holder.queue.ended(hold_id, ending)
        for hold_id in expired:
            say("hold_expired_unsettled", hold_id=hold_id)

    def say_goodbye(self, puller: Puller) -> None:
        """Give every lease back and send what is owed, on a connection of its own.

        Raises:
            httpx.HTTPError: the server was not reached; the journal keeps it for the next start.
        """
        returns = self._holder.returns(self._holder.book.give_back_all())
        if not returns and not self._holder.queue.pending:
            return
        response = httpx.post(
            f"{self._settings.server_url}/api/v1/sync",
            content=msgspec.json.encode(self._request(puller.state(), returns=returns)),
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Bearer {self._settings.api_key}",
            },
            timeout=GOODBYE_SECONDS,
            trust_env=False,
        )
        response.raise_for_status()
        self._holder.acknowledged(self._decoder.decode(response.content), returns)
