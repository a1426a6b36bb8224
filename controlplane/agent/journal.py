"""The holder's own record of leases, holds and settles, so that a restart tells the truth.

One file per holder. Every record is written before the call it concerns is sent upstream; `sync`
puts what was written on disk. A write without a sync survives the death of the process but not of
the machine: after a reboot the tail may be missing, so then only settles are reported and nothing
is given back (algorithms L2).
"""

import errno
import os
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from controlplane.core.json_errors import UNREADABLE
from controlplane.durable import sync_directory
from controlplane.policy.wire import LeaseReturn, Settle

COMPACT_ABOVE_BYTES: Final = 8 * 2**20


class Began(msgspec.Struct, frozen=True, tag="began"):
    """First record of a file: whose it is."""

    holder: str
    scope: str


class LeaseOpened(msgspec.Struct, frozen=True, tag="lease"):
    """A slice was granted; after compaction, what is left of it."""

    lease_id: str
    budget_id: str
    amount_nusd: int


class Held(msgspec.Struct, frozen=True, tag="held"):
    """A call may cost up to `held_nusd`, taken from each of these leases (budget id → lease id)."""

    hold_id: str
    leases: dict[str, str]
    held_nusd: int
    started_at_ns: int
    provider: str
    model: str
    call_id: str | None = None
    held: dict[str, int] = {}  # budget id → taken from its lease, where not `held_nusd`


class Settled(msgspec.Struct, frozen=True, tag="settled"):
    """A call ended."""

    settle: Settle


class Acked(msgspec.Struct, frozen=True, tag="acked"):
    """The server has these settles and has closed these leases."""

    hold_ids: tuple[str, ...] = ()
    lease_ids: tuple[str, ...] = ()


Record = Began | LeaseOpened | Held | Settled | Acked

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


class Journal:
    """An append-only file of records; not safe to share between processes or threads."""

    def __init__(self, path: Path, *, holder: str, scope: str) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._began = Began(holder, scope)
        self._file = self._open(path, os.O_EXCL)
        sync_directory(path.parent)
        self._close = self._closes(self._file)
        self._dirty = False
        self._bytes = 0
        self.append(self._began)

    @staticmethod
    def _open(path: Path, flags: int = 0) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)

    def _closes(self, descriptor: int) -> "weakref.finalize[[int], Journal]":
        """Answer what closes it, once: by order, or when a holder is dropped that never ended."""
        return weakref.finalize(self, os.close, descriptor)

    def append(self, record: Record) -> None:
        """Write one record; on return it survives this process.

        Raises:
            OSError: the disk is full or broken; nothing of the record stays, and what it was
                written for must not happen.
        """
        line = _encoder.encode(record) + b"\n"
        if os.write(self._file, line) != len(line):
            os.ftruncate(self._file, self._bytes)  # half a line would spoil the next one
            raise self._full()
        self._bytes += len(line)
        self._dirty = True

    def sync(self) -> None:
        """Put what was written on disk; on return it survives this machine."""
        if self._dirty:
            self._dirty = False
            os.fsync(self._file)

    @property
    def wants_compaction(self) -> bool:
        """Whether the file is long enough to be rewritten."""
        return self._bytes > COMPACT_ABOVE_BYTES

    def compact(self, live: Iterable[Record]) -> None:
        """Replace the file by the records that still matter, atomically.

        Raises:
            OSError: the disk is full or broken; the file is as it was, and in use.
        """
        fresh = self.path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        descriptor = self._open(fresh)
        lines = b"".join(_encoder.encode(record) + b"\n" for record in (self._began, *live))
        try:
            if os.write(descriptor, lines) != len(lines):
                raise self._full()
            os.fsync(descriptor)
            fresh.rename(self.path)
            sync_directory(self.path.parent)  # or the next syncs may be of a file that is gone
        except OSError:
            os.close(descriptor)
            fresh.unlink(missing_ok=True)
            raise
        self._close()
        self._file, self._bytes, self._dirty = descriptor, len(lines), False
        self._close = self._closes(descriptor)

    def _full(self) -> OSError:
        """Answer the error that a write in part stands for."""
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path.name)

    def let_go(self) -> None:
        """Close without a sync: the file belongs to the process that forked this one."""
        self._close()

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self._close()


class Remains(msgspec.Struct, kw_only=True):
    """What a journal says a holder left behind."""

    holder: str = ""
    scope: str = "default"
    settles: dict[str, Settle] = {}
    open_holds: dict[str, Held] = {}
    left_nusd: dict[str, int] = {}  # lease id → neither spent nor held
    is_whole: bool = True

    @property
    def leases(self) -> tuple[str, ...] | None:
        """Every lease it had; None when the journal may lack some."""
        return tuple(self.left_nusd) if self.is_whole else None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is owed to the server."""
        return not (self.settles or self.open_holds or self.left_nusd)

    def returns(self) -> tuple[LeaseReturn, ...]:
        """Give back every lease that was left."""
        return tuple(LeaseReturn(lease, left) for lease, left in self.left_nusd.items())


def replay(path: Path) -> Remains:
    """Read a journal; a torn last line is as if it was never written."""
    remains = Remains()
    for line in path.read_bytes().split(b"\n"):
        try:
            record = _decoder.decode(line)
        except UNREADABLE:
            continue  # only the last write can be torn, and its call was then never sent
        _apply(remains, record)
    return remains


def _apply(remains: Remains, record: Record) -> None:
    if isinstance(record, Began):
        remains.holder, remains.scope = record.holder, record.scope
    elif isinstance(record, LeaseOpened):
        remains.left_nusd[record.lease_id] = record.amount_nusd
    elif isinstance(record, Held):
        remains.open_holds[record.hold_id] = record
        _move(remains, record.leases, record, sign=-1)
    elif isinstance(record, Settled):
        settle = record.settle
        before = remains.open_holds.pop(settle.hold_id, None)
        remains.settles[settle.hold_id] = settle
        if before is not None:  # what the call did not use went back into its leases
            _move(remains, before.leases, before, sign=1)
            _move(remains, before.leases, settle, sign=-1)
    else:
        for hold_id in record.hold_ids:
            remains.settles.pop(hold_id, None)
        for lease_id in record.lease_ids:
            remains.left_nusd.pop(lease_id, None)


def _move(
    remains: Remains, leases: Mapping[str, str], amounts: Held | Settle, *, sign: int
) -> None:
    for budget_id, lease_id in leases.items():
        if lease_id in remains.left_nusd:
            held = amounts.held.get(budget_id, amounts.held_nusd)
            remains.left_nusd[lease_id] += sign * held
