"""The durable queue between acknowledging a request and storing its spans; ack means on disk.

Batches are ranges of ids: ids grow in commit order, so a range that was claimed never gains a
member, and its bounds are all that a restart needs to form the same batch again.
"""

import sqlite3
import threading
from pathlib import Path
from typing import Final

import msgspec
import structlog

from collectors import spool_file
from collectors.group_commit import FailPoint, GroupCommit, no_fail_point
from collectors.packing import pack, unpack
from collectors.sealing import Sealer, UnreadableError
from controlplane import telemetry
from controlplane.core.errors import SpoolFullError, UnavailableError
from controlplane.core.ids import IdFactory
from controlplane.ingest.ports import SpoolBatch, SpoolEntry

DEFAULT_MAX_BYTES: Final = 4 * 2**30
RETRY_AFTER_SECONDS: Final = 5
MAX_ASIDE: Final = 1_000
"""Entries kept aside for a person to look at; older ones go, because they hold prompts."""
UNREADABLE: Final = "unreadable_spool_entry"

log = structlog.stdlib.get_logger()


class SqliteSpool:
    """The Spool and SpoolQueue ports on one SQLite file in WAL mode with synchronous=FULL.

    `key` is the 32-byte master key; it is kept in a file apart from the spool's directory. Sizes
    are those of the entries before they are packed: what a batch of them takes in memory, and more
    than they take on disk.
    """

    def __init__(
        self,
        path: Path,
        *,
        key: bytes,
        ids: IdFactory,
        max_bytes: int = DEFAULT_MAX_BYTES,
        fail_point: FailPoint = no_fail_point,
    ) -> None:
        """Open or create the spool.

        Raises:
            ConfigError: the file is no spool, or its entries were sealed with another key.
        """
        self._ids = ids
        self._max_bytes = max_bytes
        self._sealer = Sealer(key)
        self._decoder = msgspec.msgpack.Decoder(SpoolEntry)
        spool_file.create(path)
        self._inserts = spool_file.connect(path, synchronous="FULL")
        self._claims = spool_file.connect(path, synchronous="FULL")
        # A drop that a power cut undoes is done again: the batch's id is in the store's ledger.
        self._drops = spool_file.connect(path, synchronous="NORMAL")
        epoch = spool_file.open_epoch(self._inserts, self._sealer, path=path)
        self._bytes, self._entries = self._inserts.execute(
            "SELECT coalesce(sum(size), 0), count(*) FROM entry "
            "WHERE id NOT IN (SELECT entry_id FROM aside)"
        ).fetchone()
        self._transaction = threading.Lock()
        self._state = threading.Condition()
        self._closing = False
        self._publish()
        self._commits = GroupCommit(
            self._inserts, transaction=self._transaction, epoch=epoch, fail_point=fail_point
        )

    # The way in; any number of threads.

    def append(self, entry: SpoolEntry) -> None:
        """Keep an entry; on disk when this returns.

        Raises:
            SpoolFullError: the size limit is reached; nothing was kept.
            UnavailableError: the disk refused; nothing was kept.
        """
        if self._bytes + len(entry.payload.body) > self._max_bytes:
            raise SpoolFullError(RETRY_AFTER_SECONDS)  # before paying for the encryption
        plain = msgspec.msgpack.encode(entry)
        sealed, size = self._sealer.seal(pack(plain)), len(plain)
        with self._state:
            if self._bytes + size > self._max_bytes:
                raise SpoolFullError(RETRY_AFTER_SECONDS)
            self._bytes += size
        try:
            self._commits.insert(sealed, size=size)
        except UnavailableError:
            self._count(entries=0, size=-size)
            raise
        self._count(entries=1, size=0)

    # The way out; one consumer.

    def wait(self, timeout_seconds: float) -> int:
        """Answer the bytes waiting, as soon as there are any or when the time is up (0)."""
        with self._state:
            self._state.wait_for(lambda: self._entries > 0 or self._closing, timeout_seconds)
            return self._bytes if self._entries > 0 else 0

    def claim(self, *, max_bytes: int, max_entries: int) -> SpoolBatch | None:
        """Answer the oldest batch not dropped, else a new one of the oldest entries, else None.

        Raises:
            UnavailableError: the file can not be read or written now.
        """
        try:
            row = self._claims.execute(
                "SELECT batch_id, first_id, last_id FROM batch ORDER BY seq LIMIT 1"
            ).fetchone() or self._new_batch(max_bytes=max_bytes, max_entries=max_entries)
            if row is None:
                return None
            batch_id, first_id, last_id = row
            found = self._read(first_id, last_id)
        except sqlite3.Error as error:
            raise UnavailableError(f"the spool can not be used ({error})") from error
        return SpoolBatch(batch_id, tuple(found.values()), tuple(found))

    def _new_batch(self, *, max_bytes: int, max_entries: int) -> tuple[str, int, int] | None:
        sizes = self._claims.execute(
            "SELECT id, size FROM entry WHERE id NOT IN (SELECT entry_id FROM aside) "
            "ORDER BY id LIMIT ?",
            (max_entries,),
        ).fetchall()
        if not sizes:
            return None
        total, last_id = 0, sizes[0][0]
        for entry_id, size in sizes:
            if total and total + size > max_bytes:
                break
            total, last_id = total + size, entry_id
        batch = (self._ids.new("batch"), sizes[0][0], last_id)
        with self._transaction:
            self._claims.execute(
                "INSERT INTO batch (batch_id, first_id, last_id) VALUES (?, ?, ?)", batch
            )
        return batch

    def _read(self, first_id: int, last_id: int) -> dict[int, SpoolEntry]:
        """Read a range row by row, so that a damaged page costs the entries on it alone."""
        ids = self._claims.execute(
            "SELECT id FROM entry WHERE id BETWEEN ? AND ? "
            "AND id NOT IN (SELECT entry_id FROM aside) ORDER BY id",
            (first_id, last_id),
        ).fetchall()
        found: dict[int, SpoolEntry] = {}
        for (entry_id,) in ids:
            try:
                found[entry_id] = self._read_entry(entry_id)
            except (UnreadableError, msgspec.MsgspecError):
                self.set_aside(entry_id, reason=UNREADABLE)
        return found

    def _read_entry(self, entry_id: int) -> SpoolEntry:
        try:
            row = self._claims.execute(
                "SELECT sealed, salt FROM entry JOIN epoch ON epoch.id = epoch WHERE entry.id = ?",
                (entry_id,),
            ).fetchone()
        except sqlite3.DatabaseError as error:
            if spool_file.is_damage(error):
                raise UnreadableError from error
            raise
        if row is None:
            raise UnreadableError
        sealed, salt = row
        return self._decoder.decode(unpack(self._sealer.open(sealed, salt=salt)))

    def set_aside(self, entry_id: int, *, reason: str) -> None:
        """Take an entry out of its batch for good, and keep it sealed for a person to look at."""
        with self._transaction:
            size = spool_file.copy_aside(self._claims, entry_id, reason=reason)
            spool_file.trim_aside(self._claims, keep=MAX_ASIDE)
        if size is not None:
            telemetry.REJECTED.labels(reason).inc()
            log.error("spool_entry_set_aside", entry_id=entry_id, reason=reason)
            self._count(entries=-1, size=-size)

    def drop(self, batch_id: str) -> None:
        """Forget a batch whose rows are durable in the store. Twice is once.

        Raises:
            UnavailableError: the file can not be written now; the batch is still there.
        """
        span = self._drops.execute(
            "SELECT first_id, last_id FROM batch WHERE batch_id = ?", (batch_id,)
        ).fetchone()
        if span is None:
            return
        with self._transaction:
            try:
                self._drops.execute("BEGIN IMMEDIATE")
                entries, size = spool_file.delete_range(self._drops, *span)
                self._drops.execute("DELETE FROM batch WHERE batch_id = ?", (batch_id,))
                self._drops.execute("COMMIT")
            except sqlite3.Error as error:
                if self._drops.in_transaction:
                    self._drops.execute("ROLLBACK")
                raise UnavailableError(f"the spool can not be written ({error})") from error
        self._count(entries=-entries, size=-size)

    # Life.

    def close(self) -> None:
        """Commit what waits, refuse what comes, and close the file."""
        self._commits.close()
        with self._state:
            self._closing = True
            self._state.notify_all()
        for connection in (self._drops, self._claims, self._inserts):
            connection.close()

    def _count(self, *, entries: int, size: int) -> None:
        with self._state:
            self._entries += entries
            self._bytes += size
            self._publish()
            self._state.notify_all()

    def _publish(self) -> None:
        telemetry.SPOOL_BYTES.set(self._bytes)
        telemetry.SPOOL_ENTRIES.set(self._entries)
