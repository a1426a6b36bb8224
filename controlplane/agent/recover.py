"""What a dead process left in its journal, told to the server under that process's name."""

from collections.abc import Awaitable, Callable
from itertools import islice

from controlplane.agent.holder import Holder
from controlplane.agent.journal import Remains
from controlplane.agent.log import say
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import lost
from controlplane.core.clock import Clock
from controlplane.policy.wire import LAST_SEQ, MAX_SYNC_ITEMS, SyncReply, SyncRequest

Post = Callable[[SyncRequest], Awaitable[SyncReply]]


async def report_dead(holder: Holder, settings: AgentSettings, *, post: Post, clock: Clock) -> int:
    """Report every dead holder's settles, open holds and unspent leases; return how many holders.

    A hold that was open when the process died is settled as unknown: charged in full. A journal
    goes only after the server has everything in it; settles and returns are idempotent there.

    Raises:
        httpx.HTTPError: the server was not reached; the journals stay for the next start.
    """
    told = 0
    for path, remains in holder.dead():
        for held in remains.open_holds.values():
            remains.settles[held.hold_id] = lost(held, clock.now())
        if remains.holder and not remains.is_empty:
            await _report(remains, settings, post)
            say("journal_recovered", holder=remains.holder, settles=len(remains.settles))
        path.unlink(missing_ok=True)
        told += 1
    return told


async def _report(remains: Remains, settings: AgentSettings, post: Post) -> None:
    settles = iter(remains.settles.values())
    returns = remains.returns()
    while True:
        batch = tuple(islice(settles, MAX_SYNC_ITEMS))
        now_returned, returns = returns[:MAX_SYNC_ITEMS], returns[MAX_SYNC_ITEMS:]
        if not batch and not now_returned:
            return
        await post(
            SyncRequest(
                node=settings.node,
                boot_id=remains.holder,
                scope=remains.scope,
                settle=batch,
                returns=now_returned,
                seq=LAST_SEQ,
                leases=remains.leases,
            )
        )
