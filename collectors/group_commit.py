"""Many requests, one fsync: a thread that commits everything that waits in one transaction."""

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

import msgspec
import structlog

from controlplane.core.errors import UnavailableError

MAX_COMMIT_BYTES: Final = 64 * 2**20

FailPoint = Callable[[str], None]
"""Called with the name of the step about to be taken; a test ends the process in it."""

log = structlog.stdlib.get_logger()


def no_fail_point(_step: str) -> None:
    """Go on."""


class _Waiting(msgspec.Struct, frozen=True, eq=False):
    sealed: bytes
    size: int
    done: Future[None]


class GroupCommit:
    """Inserts sealed entries in the order they are submitted.

    `transaction` is held while writing, so that the spool's connections queue here and not in
    SQLite's busy handler.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        transaction: threading.Lock,
        epoch: int,
        fail_point: FailPoint,
    ) -> None:
        self._connection = connection
        self._transaction = transaction
        self._epoch = epoch
        self._fail_point = fail_point
        self._queue: deque[_Waiting] = deque()
        self._state = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="spool-commit", daemon=True)
        self._thread.start()

    def insert(self, sealed: bytes, *, size: int) -> None:
        """Return when the entry is on disk; `size` is what it counts for.

        Raises:
            UnavailableError: the disk refused, or the spool is closing; nothing was kept.
        """
        waiting = _Waiting(sealed, size, Future())
        with self._state:
            if self._closing:
                raise UnavailableError("the collector is stopping. Send again in a moment")
            self._queue.append(waiting)
            self._state.notify()
        waiting.done.result()

    def close(self) -> None:
        """Commit what waits, then end."""
        with self._state:
            self._closing = True
            self._state.notify()
        self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            try:
                self._commit(group)
            except sqlite3.Error as error:
                log.exception("spool_write_failed", requests=len(group))
                refusal = f"the spool can not be written ({error}). Free some space on its disk"
                for waiting in group:
                    waiting.done.set_exception(UnavailableError(refusal))
            else:
                for waiting in group:
                    waiting.done.set_result(None)

    def _next_group(self) -> list[_Waiting]:
        """Wait; answer what has gathered meanwhile, empty when closing and all is written."""
        group: list[_Waiting] = []
        size = 0
        with self._state:
            self._state.wait_for(lambda: self._queue or self._closing)
            while self._queue and size < MAX_COMMIT_BYTES:
                group.append(self._queue.popleft())
                size += len(group[-1].sealed)
        return group

    def _commit(self, group: list[_Waiting]) -> None:
        rows = [(self._epoch, waiting.size, waiting.sealed) for waiting in group]
        with self._transaction:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(
                    "INSERT INTO entry (epoch, size, sealed) VALUES (?, ?, ?)", rows
                )
                self._fail_point("before_fsync")
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        self._fail_point("after_fsync")
