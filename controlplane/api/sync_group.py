"""The syncs of a moment in one transaction: a commit to disk is what a sync costs (L9).

The first sync after a quiet moment is taken at once; those that come in the GROUP_SECONDS after it
wait for their end and share the next transaction. So there are at most fifty commits a second,
however many holders there are, and each answer is sent after the commit that it speaks of.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from controlplane import telemetry
from controlplane.core.errors import ControlPlaneError
from controlplane.pipelines.sync import SyncAnswer, SyncCall
from controlplane.policy.wire import SyncReply

GROUP_SECONDS: Final = 0.02
MAX_TOGETHER: Final = 200
"""Syncs of one transaction; the others wait for the next, so that nobody waits for long."""

Together = Callable[[Sequence[SyncCall]], list[SyncAnswer]]


class SyncGroup:
    """Collects syncs and does them together; used from one event loop."""

    def __init__(self, do_together: Together) -> None:
        self._do = do_together
        self._waiting: list[tuple[SyncCall, asyncio.Future[SyncReply]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._began = float("-inf")

    async def sync(self, call: SyncCall) -> SyncReply:
        """Return the answer to a call once it is durable.

        Raises:
            ControlPlaneError: as `pipelines.sync.sync`.
        """
        answer: asyncio.Future[SyncReply] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="sync-group")
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(max(0.0, self._began + GROUP_SECONDS - time.monotonic()))
            self._began = time.monotonic()
            together = self._waiting[:MAX_TOGETHER]
            del self._waiting[:MAX_TOGETHER]
            telemetry.SYNCS_TOGETHER.observe(len(together))
            await self._answer(together)

    async def _answer(
        self, together: Sequence[tuple[SyncCall, "asyncio.Future[SyncReply]"]]
    ) -> None:
        try:
            answers = await asyncio.to_thread(self._do, [call for call, _ in together])
        except Exception as wrong:  # noqa: BLE001 - each request ends with it, and logs it
            for _, waiting in together:
                if not waiting.done():
                    waiting.set_exception(wrong)
            return
        for (_, waiting), answer in zip(together, answers, strict=True):
            if waiting.done():
                continue  # its client is gone
            if isinstance(answer, ControlPlaneError):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)
