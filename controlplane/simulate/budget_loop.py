"""Time that passes only when everybody waits: an event loop whose clock jumps to the next timer.

A minute of traffic takes as long as its work; and because nothing runs beside the loop (a thread's
work is done in place), one seed gives one order of events, everywhere.
"""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from typing_extensions import TypeVarTuple, Unpack, override

STEP_SECONDS: Final = 1e-6
"""What one turn of the loop takes at least: without it a deadline can be approached for ever."""

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class _NothingOutside(selectors.SelectSelector):
    """Waits for no socket: there is nobody outside of the simulation."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_seconds = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits for something that no timer will bring")
        self.elapsed_seconds += max(STEP_SECONDS, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, from 0."""

    def __init__(self) -> None:
        self._outside = _NothingOutside()
        super().__init__(self._outside)

    @override
    def time(self) -> float:
        return self._outside.elapsed_seconds

    @override
    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        del executor  # no thread is needed
        done: asyncio.Future[_T] = self.create_future()
        try:
            done.set_result(func(*args))
        except OSError as wrong:
            done.set_exception(wrong)
        return done


def run_virtually(main: Callable[[VirtualLoop], Any]) -> None:
    """Run a coroutine function in a loop of its own, to its end.

    Args:
        main: given the loop, returns what to await.
    """
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main(loop))
        for task in (left := asyncio.all_tasks(loop)):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


class LocalClock:
    """One machine's clocks: beside the true time by an offset and a drift, and set now and then."""

    def __init__(
        self, loop: VirtualLoop, start: datetime, *, offset_seconds: float, drift_ratio: float
    ) -> None:
        self._loop = loop
        self._start = start
        self._offset_seconds = offset_seconds
        self._rate = 1.0 + drift_ratio

    def now(self) -> datetime:
        """Aware UTC wall time, as this machine has it."""
        passed = self._loop.time() * self._rate + self._offset_seconds
        return self._start + timedelta(seconds=passed)

    def monotonic(self) -> float:
        """Seconds since some time before the simulation began."""
        return 1_000.0 + self._loop.time() * self._rate

    def jump(self, seconds: float) -> None:
        """Set the wall clock; the monotonic one goes on."""
        self._offset_seconds += seconds
