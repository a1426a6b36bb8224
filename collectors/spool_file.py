"""The spool's SQLite file: tables, pragmas, connections."""

import os
import sqlite3
from pathlib import Path
from typing import Final

import msgspec

from collectors.sealing import Sealer, UnreadableError
from controlplane.core.errors import ConfigError, UnavailableError
from controlplane.durable import sync_directory

_PAGE_BYTES: Final = 32 * 1024
"""Requests are large: fewer, longer overflow pages than SQLite's default of 4 KiB."""
_CHECKPOINT_PAGES: Final = 512
"""16 MiB of log between checkpoints: a checkpoint is what an unlucky request waits for."""

_CHECK: Final = b"controlplane spool"

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS epoch (id INTEGER PRIMARY KEY AUTOINCREMENT, salt BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch INTEGER NOT NULL,
    size INTEGER NOT NULL,
    sealed BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS batch (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    batch_id TEXT NOT NULL UNIQUE,
    first_id INTEGER NOT NULL,
    last_id INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS aside (
    entry_id INTEGER PRIMARY KEY, epoch INTEGER, reason TEXT NOT NULL, sealed BLOB
);
"""


def connect(path: Path, *, synchronous: str) -> sqlite3.Connection:
    """Open one connection; transactions are explicit.

    `synchronous` FULL makes a commit durable on return; NORMAL leaves it to the next FULL one.

    Raises:
        ConfigError: not a spool, or not ours to open.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    except sqlite3.Error as error:
        raise ConfigError(
            "data_dir", f"{path} can not be opened as a spool ({error})", "Move it away"
        ) from error
    return connection


def create(path: Path) -> None:
    """Make the file, readable by its owner only, and its tables; nothing if they are there.

    The log and shared-memory files that SQLite makes beside it inherit the mode.

    Raises:
        ConfigError: the place can not be written.
        UnavailableError: the disk refused.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigError(
            "data_dir",
            f"{path} can not be written ({error.strerror})",
            "Let the user that runs this program write it",
        ) from error
    connection = connect(path, synchronous="FULL")
    try:
        connection.executescript(_TABLES)
    except sqlite3.Error as error:
        raise UnavailableError(f"{path} can not be written ({error}). Free some space") from error
    finally:
        connection.close()
    sync_directory(path.parent)


def open_epoch(connection: sqlite3.Connection, sealer: Sealer, *, path: Path) -> int:
    """Record the salt of this opening and forget those that no entry needs; return its id.

    Raises:
        ConfigError: what is in the spool was sealed with another key.
    """
    row = connection.execute("SELECT value FROM meta WHERE key = 'check'").fetchone()
    if row is not None:
        salt, sealed = msgspec.msgpack.decode(row[0], type=tuple[bytes, bytes])
        try:
            sealer.open(sealed, salt=salt)
        except UnreadableError as error:
            raise ConfigError(
                "keys_dir",
                f"{path} was written with another key",
                "Restore that key, or move the spool away and lose what is in it",
            ) from error
    check = msgspec.msgpack.encode((sealer.salt, sealer.seal(_CHECK)))
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('check', ?)", (check,))
    connection.execute(
        "DELETE FROM epoch WHERE id NOT IN (SELECT epoch FROM entry) "
        "AND id NOT IN (SELECT epoch FROM aside WHERE epoch IS NOT NULL)"
    )
    cursor = connection.execute("INSERT INTO epoch (salt) VALUES (?)", (sealer.salt,))
    connection.execute("COMMIT")
    return cursor.lastrowid or 0


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is broken here, and not merely busy, full or unreadable now."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_CORRUPT


def copy_aside(connection: sqlite3.Connection, entry_id: int, *, reason: str) -> int | None:
    """Keep a copy of an entry under `aside`, of one on a damaged page its id.

    Return the bytes that leave the queue by it; None if it was aside already.
    """
    row = connection.execute(
        "SELECT size FROM entry WHERE id = ? AND id NOT IN (SELECT entry_id FROM aside)",
        (entry_id,),
    ).fetchone()
    if row is None:
        return None
    try:
        connection.execute(
            "INSERT INTO aside SELECT id, epoch, ?, sealed FROM entry WHERE id = ?",
            (reason, entry_id),
        )
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        connection.execute("INSERT INTO aside (entry_id, reason) VALUES (?, ?)", (entry_id, reason))
    size: int = row[0]
    return size


def trim_aside(connection: sqlite3.Connection, *, keep: int) -> None:
    """Forget the oldest beyond `keep`, but none whose entry could not be deleted."""
    connection.execute(
        "DELETE FROM aside WHERE entry_id NOT IN (SELECT id FROM entry) "
        "AND entry_id NOT IN (SELECT entry_id FROM aside ORDER BY entry_id DESC LIMIT ?)",
        (keep,),
    )


def delete_range(connection: sqlite3.Connection, first_id: int, last_id: int) -> tuple[int, int]:
    """Delete entries; return how many and how many bytes leave the queue by it.

    Those set aside left the queue before. Of them, entries on damaged pages can not be deleted,
    and trying would spoil the transaction: they stay, known by their ids alone.
    """
    entries, size = connection.execute(
        "SELECT count(*), coalesce(sum(size), 0) FROM entry WHERE id BETWEEN ? AND ? "
        "AND id NOT IN (SELECT entry_id FROM aside)",
        (first_id, last_id),
    ).fetchone()
    connection.execute(
        "DELETE FROM entry WHERE id BETWEEN ? AND ? "
        "AND id NOT IN (SELECT entry_id FROM aside WHERE sealed IS NULL)",
        (first_id, last_id),
    )
    return entries, size
