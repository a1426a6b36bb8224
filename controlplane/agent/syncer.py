"""One call that says everything: settles, wants, returns, ack or nack; leases come back."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import httpx
import msgspec

from controlplane.agent.admit import Claim
from controlplane.agent.holder import Holder
from controlplane.agent.lease import Instant
from controlplane.agent.lease_book import Need
from controlplane.agent.log import say
from controlplane.agent.puller import CAPABILITIES, Puller
from controlplane.agent.recover import report_dead
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import Ending
from controlplane.core.clock import Clock
from controlplane.core.errors import ControlPlaneError
from controlplane.core.json_errors import UNREADABLE
from controlplane.policy.wire import (
    MAX_SYNC_ITEMS,
    Generation,
    LeaseReturn,
    LeaseWant,
    Nack,
    Standing,
    SyncReply,
    SyncRequest,
)

MIN_GAP_SECONDS: Final = 0.02  # between two syncs, however many calls wait
RECALLED_GAP_SECONDS: Final = 0.1  # between two, while the server wants back what we do not use
HEARTBEAT_SECONDS: Final = 5.0  # a node that says nothing for longer is stale to the server
MIN_PATIENCE_SECONDS: Final = 0.05  # with an answer; a call waits 0.25 s for one
FIRST_SECONDS: Final = 0.02  # what an answer is thought to take, give or take, before the first
SPREAD_RATIO: Final = 4.0  # so many mean deviations beyond the usual, an answer is lost (RFC 6298)
SMOOTHING: Final = 0.25
MAX_BACKOFF_SECONDS: Final = 5.0
GOODBYE_SECONDS: Final = 2.0
ISOLATED_FAILURES: Final = 3  # syncs in a row without an answer: what is in escrow may be spent


class Waiter(msgspec.Struct, eq=False):
    """A call that waits for the answer to the next sync."""

    claim: Claim
    answered: asyncio.Future[bool]
    """True: by the server; False: a call of ours has left something."""


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
        self._recalled: frozenset[str] = frozenset()
        self._usual_seconds = self._spread_seconds = FIRST_SECONDS
        self._patience_seconds = FIRST_SECONDS * (1 + SPREAD_RATIO)
        self._failures_in_a_row = 0
        self.standings: dict[str, Standing] = {}
        self.recovering_until: datetime | None = None
        """Until when the server grants nothing, by its clock; None: it is in order."""
        self.syncs = 0
        self.failures = 0
        self.error: str | None = None
        """Why the last sync has no answer that is understood."""

    @property
    def is_late(self) -> bool:
        """Whether several syncs in a row had no answer that is understood."""
        return self._failures_in_a_row >= ISOLATED_FAILURES

    def wake(self) -> None:
        """Sync soon."""
        self._wake.set()

    def retire(self) -> None:
        """Give back what is not in use and ask only for calls that wait; settles still go out."""
        self._is_retired = True
        self.wake()

    def cares(self, budget_ids: Iterable[str]) -> bool:
        """Whether it matters at once that a call of these budgets ended.

        A call of ours may wait for what it left; of a budget that is nearly empty, another's.
        """
        return bool(self._waiters) or not self._recalled.isdisjoint(budget_ids)

    def released(self) -> None:
        """A call ended and left something in its lease: those that wait may look again."""
        if self._recalled:
            self.wake()
        for waiter in self._waiters:
            if not waiter.answered.done():
                waiter.answered.set_result(False)

    async def more(self, wanted: Claim, within_seconds: float) -> bool:
        """Wait for more lease; True when the server has answered, whatever it said.

        False when the time is over, or a call of ours that ended has left something.

        A budget that the server called empty is not asked about again at once: only a call of
        ours that ends can make room, so without one in flight the answer is known.
        """
        loop = asyncio.get_running_loop()
        refused_seconds = self._refused_seconds(wanted)
        if refused_seconds > within_seconds and not self._holder.queue.is_busy:
            return True
        waiter = Waiter(wanted, loop.create_future())
        self._waiters.append(waiter)
        if refused_seconds <= within_seconds:  # else only a call of ours that ends can help
            loop.call_later(refused_seconds, self.wake)
        try:
            return await asyncio.wait_for(waiter.answered, within_seconds)
        except TimeoutError:
            return False
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _refused_seconds(self, wanted: Claim) -> float:
        now, book = Instant.of(self._clock), self._holder.book
        return max(
            (book.refused_seconds(one, least, now) for one, least in wanted.least.items()),
            default=0.0,
        )

    async def run(self, puller: Puller) -> None:
        """Sync until cancelled: when woken, at the interval, and never faster than MIN_GAP."""
        backoff = MIN_GAP_SECONDS
        await self._recover()
        while True:
            try:
                async with asyncio.timeout(self._interval_seconds):
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
            except (httpx.HTTPError, *UNREADABLE, ControlPlaneError, OSError) as wrong:
                self._failed()
                self.error = f"{type(wrong).__name__}: {wrong}"[:300]
                again = self._failures_in_a_row > 1
                backoff = min(MAX_BACKOFF_SECONDS, 2 * backoff) if again else MIN_GAP_SECONDS
                say("sync_failed", error=type(wrong).__name__, detail=str(wrong)[:200])
                if self._waiters:
                    self._wake.set()  # they can not wait for the interval
            await asyncio.sleep(backoff)

    @property
    def _interval_seconds(self) -> float:
        """Speak sooner while others may wait for what we have."""
        usual = self._settings.sync_interval_seconds
        recalled = self._holder.book.holds_of(self._recalled)
        return min(usual, RECALLED_GAP_SECONDS) if recalled else usual

    def _failed(self) -> None:
        """Have more patience with the next but one: a lost message needs none, a slow server does."""
        self.failures += 1
        self._failures_in_a_row += 1
        if self.is_late and not self._holder.book.is_isolated:
            with self._holder.lock:
                self._holder.book.is_isolated = True
            say("isolated", failures=self._failures_in_a_row)
        if self._failures_in_a_row > 1:
            self._patience_seconds = min(
                self._settings.request_timeout_seconds, 2 * self._patience_seconds
            )

    async def _recover(self) -> None:
        """Say what earlier processes of this state directory left, before speaking for ourselves."""
        try:
            await report_dead(self._holder, self._settings, post=self._post, clock=self._clock)
        except (httpx.HTTPError, *UNREADABLE, OSError) as wrong:
            say("recovery_failed", error=type(wrong).__name__, detail=str(wrong)[:200])

    def _has_something_to_say(self, puller: Puller) -> bool:
        silent = self._last.seconds_until(Instant.of(self._clock))
        return bool(
            self._waiters
            or self._holder.queue.pending
            or puller.unacknowledged
            or any(not lease.is_escrow for lease in self._holder.book.leases)
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
            wants, closing = self._trade(puller, needs, now)
            returns = self._holder.returns(closing)
        try:
            reply = await self._say(puller, wants=wants, returns=returns)
        except BaseException:
            self._waiters = [one for one in waiting if not one.answered.done()] + self._waiters
            raise
        recalled, self._recalled = self._recalled, frozenset(reply.recall)
        if any(one.budget_id in self._recalled - recalled for one in book.leases):
            self.wake()  # others wait for what we may not need
        with self._holder.lock:
            asked = {want.budget_id: want.least_nusd for want in wants if not want.is_escrow}
            for grant in reply.grants:
                self._holder.granted(grant, now, least_nusd=asked.get(grant.budget_id, 0))
            self.recovering_until = reply.recovering_until
            self.standings.update((standing.budget_id, standing) for standing in reply.standings)
            has_room = [standing for standing in reply.standings if book.heard(standing)]
            if has_room:
                self.wake()
            self._holder.acknowledged(reply, returns)
            for waiter in waiting:
                for budget_id, least in waiter.claim.least.items():
                    book.fell_short(budget_id, least, now)
        for waiter in waiting:
            if not waiter.answered.done():
                waiter.answered.set_result(True)
        await asyncio.to_thread(self._holder.journal.sync)
        return reply

    def _trade(
        self, puller: Puller, needs: Mapping[str, list[Need]], now: Instant
    ) -> tuple[tuple[LeaseWant, ...], tuple[LeaseReturn, ...]]:
        """Say what to ask for and what to give back, in one message where both are due."""
        book, escrows = self._holder.book, _escrows(puller)
        closing = book.give_back(
            {key: max(need.held_nusd for need in waiting) for key, waiting in needs.items()},
            now,
            standings=self.standings,
            recalled=self._recalled,
            is_leaving=self._is_retired,
            escrows=escrows,
        )
        wants = book.wants(  # after it: of what is given back something may be needed still
            needs,
            elapsed_seconds=self._last.seconds_until(now),
            now=now,
            in_advance=not self._is_retired,
            recalled=self._recalled,
            free=self._may_be_free(puller),
        )
        self._last = now
        if not self._is_retired:
            wants += book.escrow_wants(escrows, now, standings=self.standings)
        if closing or wants:
            closing += book.give_back_spent(now, standings=self.standings)
        # What calls wait for comes before what is for later.
        wants = tuple(sorted(wants, key=lambda one: one.budget_id not in needs))
        return wants[:MAX_SYNC_ITEMS], closing

    def _may_be_free(self, puller: Puller) -> dict[str, int]:
        """Return by budget what the server said is free, or else the whole limit."""
        applied = puller.applied
        budgets = applied.document.budgets if applied else ()
        limits = {one.id: one.limit_nusd for one in budgets}
        return {**limits, **{key: said.free_nusd for key, said in self.standings.items()}}

    async def _say(
        self, puller: Puller, *, wants: tuple[LeaseWant, ...], returns: tuple[LeaseReturn, ...]
    ) -> SyncReply:
        state = puller.state()
        request = msgspec.structs.replace(
            self._request(state, wants=wants, returns=returns),
            applied_sha256=puller.sha256,
            applied_ago_seconds=puller.applied_ago_seconds,
        )
        reply = await self._post(request)
        with self._holder.lock:
            self._holder.tally.said(request.refused)
        puller.acknowledged(*state)
        return reply

    def _request(
        self,
        state: tuple[Generation | None, Nack | None],
        *,
        returns: tuple[LeaseReturn, ...],
        wants: tuple[LeaseWant, ...] = (),
    ) -> SyncRequest:
        with self._holder.lock:
            settle = self._holder.queue.batch()
            seq, known = self._holder.next_seq(), self._holder.known_leases()
            refused = self._holder.tally.unsaid()
        return SyncRequest(
            node=self._settings.node,
            boot_id=self._holder.name,
            scope=self._settings.scope,
            applied=state[0],
            counts=self._holder.tally.counts(),
            nack=state[1],
            capabilities=CAPABILITIES,
            refused=refused,
            settle=settle,
            want=wants,
            returns=returns,
            seq=seq,
            leases=known,
        )

    def _needs(self) -> tuple[list[Waiter], dict[str, list[Need]]]:
        """Return who is asked for now, and per budget the claims to size the lease for.

        For a call that the server has just refused nothing is asked: it waits on.
        """
        waiting: list[Waiter] = []
        needs: dict[str, list[Need]] = {}
        for waiter in self._waiters:
            claim = waiter.claim
            if self._refused_seconds(claim):
                continue
            if waiting and len(needs.keys() | claim.amounts.keys()) > MAX_SYNC_ITEMS:
                self.wake()  # of the next sync's
                continue
            waiting.append(waiter)
            for budget_id, held in claim.amounts.items():
                needs.setdefault(budget_id, []).append(Need(held, claim.least[budget_id]))
        self._waiters = [one for one in self._waiters if one not in waiting]
        return waiting, needs

    def _answered_in(self, seconds: float) -> None:
        """Learn how long an answer takes: much longer than usual means that it was lost."""
        self._failures_in_a_row = 0
        self.error = None
        self._holder.book.is_isolated = False
        off = seconds - self._usual_seconds
        self._spread_seconds += SMOOTHING * (abs(off) - self._spread_seconds)
        self._usual_seconds += SMOOTHING * off
        self._patience_seconds = min(
            self._settings.request_timeout_seconds,
            max(MIN_PATIENCE_SECONDS, self._usual_seconds + SPREAD_RATIO * self._spread_seconds),
        )

    async def _post(self, request: SyncRequest) -> SyncReply:
        asked = Instant.of(self._clock)
        response = await self._client.post(
            "/api/v1/sync",
            content=msgspec.json.encode(request),
            headers={"Content-Type": "application/json"},
            timeout=self._patience_seconds,
        )
        response.raise_for_status()
        reply = self._decoder.decode(response.content)  # one that is not understood is none
        self.syncs += 1
        self._answered_in(asked.seconds_until(Instant.of(self._clock)))
        return reply

    def _expire_holds(self) -> None:
        """Settle as unknown what no hook will end any more: a client or a task that vanished."""
        now = Instant.of(self._clock)
        with self._holder.lock:
            expired = self._holder.queue.expired(now, self._settings.max_call_seconds)
            for hold_id in expired:
                ending = Ending(ended_at=now.wall, status="error", error_type="timeout")
                self._holder.ended(hold_id, ending)
        for hold_id in expired:
            say("hold_expired_unsettled", hold_id=hold_id)

    def say_goodbye(self, puller: Puller) -> None:
        """Give every lease back and send what is owed, on a connection of its own.

        Raises:
            httpx.HTTPError: the server was not reached; the journal keeps it for the next start.
        """
        returns = self._holder.returns(self._holder.book.give_back_all())
        unsaid = self._holder.tally.unsaid()
        if not returns and not self._holder.queue.pending and not unsaid:
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


def _escrows(puller: Puller) -> dict[str, int]:
    """Return by budget what the policy in force lets an agent keep for times without a server."""
    applied = puller.applied
    budgets = applied.document.budgets if applied else ()
    return {one.id: one.escrow_nusd for one in budgets if one.escrow_nusd > 0}
