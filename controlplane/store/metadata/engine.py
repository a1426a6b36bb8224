"""One engine on SQLite or Postgres, and the two kinds of transaction on it.

SQLite runs in WAL with synchronous=FULL, so a commit that returned survives a power cut; a writing
transaction begins IMMEDIATE, because one that upgrades later can fail with work already done.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from controlplane.core.errors import ConflictError, UnavailableError

BUSY_TIMEOUT_MS: Final = 5_000
STATEMENT_TIMEOUT_MS: Final = 30_000
LEDGER_LOCK: Final = 7_131_001
"""Postgres advisory lock of the ledger's writer (algorithms L9: one at a time)."""
MIGRATION_LOCK: Final = 7_131_002
QUOTA_LOCK: Final = 7_131_003
_WRITES: Final = "controlplane_writes"


def open_engine(url: str, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS) -> Engine:
    """Return an engine for a `sqlite:///…` or `postgresql://…` URL; connects to nothing yet.

    Args:
        url: SQLAlchemy URL; a SQLite file is made for its owner alone.
        busy_timeout_ms: how long to wait for another writer.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed, busy_timeout_ms)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    options = f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={busy_timeout_ms}"
    return create_engine(parsed, pool_pre_ping=True, connect_args={"options": options})


def _open_sqlite(url: URL, busy_timeout_ms: int) -> Engine:
    if url.database:
        # Ours alone, before SQLite would create it with the process's umask; its WAL inherits it.
        path = Path(url.database)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    engine = create_engine(url, connect_args={"timeout": busy_timeout_ms / 1_000})
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def _set_pragmas(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver's own BEGIN would come too late and too weak
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Read a consistent state.

    Raises:
        UnavailableError: the database can not be read now.
    """
    with _translated(), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine, *, lock: int | None = None) -> Iterator[Connection]:
    """Write: everything at the end of the block, or nothing.

    Args:
        engine: from `open_engine`.
        lock: a Postgres advisory lock to hold meanwhile; SQLite has one writer anyway.

    Raises:
        UnavailableError: the database can not be written now; nothing was changed.
        ConflictError: a unique key is taken; nothing was changed.
    """
    with _translated(), engine.execution_options(**{_WRITES: True}).begin() as connection:
        if lock is not None and connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
        yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError as wrong:
        raise ConflictError(f"the state has moved: {wrong.orig}") from wrong
    except OperationalError as wrong:
        raise UnavailableError(f"the metadata database can not answer: {wrong.orig}") from wrong
    except PoolTimeoutError as wrong:
        raise UnavailableError("every connection to the metadata database is in use") from wrong
    except DBAPIError as wrong:
        if wrong.connection_invalidated:
            raise UnavailableError("the metadata database went away") from wrong
        raise
