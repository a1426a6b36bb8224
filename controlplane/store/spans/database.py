"""The DuckDB file: opened once, hardened, brought to the newest schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from controlplane.core.errors import StoreUnavailableError

CHECKPOINT_THRESHOLD: Final = "256MB"
"""Log size that starts a checkpoint; every row is rewritten once more by a checkpoint, and a
larger log only lengthens a restart (replay runs at hundreds of MB a second)."""

ROW_GROUP_ROWS: Final = 16_384
"""A transaction that fills a row group writes it compressed to its place at once; what is smaller
goes through the log and is written again at the next checkpoint. With the default of 122,880 every
batch did: 12 us a span and seconds without a commit. Scans prune by group, too."""

STORAGE_VERSION: Final = "v1.5.0"
"""The pinned release's own format: its string compression writes a span in two thirds of the time
and of the space of the default, which every release since 1.0 can read."""

MEMORY_LIMIT: Final = "1GB"
"""Blocks and sorts beyond this go to disk; the default is four fifths of the machine, which the
other roles share."""

_OPENING: Final = {
    "memory_limit": MEMORY_LIMIT,
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
}
_HARDENING: Final = (
    "SET TimeZone = 'UTC'",
    f"SET checkpoint_threshold = '{CHECKPOINT_THRESHOLD}'",
    "SET preserve_insertion_order = true",
    "SET python_enable_replacements = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
_USE: Final = "USE spans"
_LOCKED: Final = "Conflicting lock"
_IN_USE: Final = (
    "another process has it open. Ask the running one (`export` and `reconcile` take --server URL and"
    " a key of `controlplane keys create`), or stop the hub first"
)
_PACKAGE: Final = resources.files("controlplane.store.spans")

IN_MEMORY: Final = ":memory:"


@cache
def read_sql(name: str) -> str:
    """Return the text of a query file in `sql/`, read once: an upgrade in place changes nothing."""
    return (_PACKAGE / "sql" / f"{name}.sql").read_text()


class SpanDatabase:
    """One open database file; the only process that may open it.

    Connections are cheap cursors with a transaction each; use one in one thread at a time.
    """

    def __init__(self, path: Path | None, *, threads: int = 1) -> None:
        """Open or create the file at `path`, or a database in memory.

        Raises:
            StoreUnavailableError: another process holds the file, or it can not be read.
        """
        config: dict[str, str | bool | int | float | list[str]] = {
            **_OPENING,
            "threads": str(threads),
            # Beside the file; the default is wherever the process was started.
            "temp_directory": f"{path}.tmp" if path else "",
        }
        try:
            self._root = duckdb.connect(config=config)
            self._root.execute(_attachment(path))
            self._root.execute(_USE)
            for statement in _HARDENING:
                self._root.execute(statement)
            _migrate(self._root)
        except duckdb.Error as error:
            if _LOCKED in str(error):
                raise StoreUnavailableError(f"can not open {path}: {_IN_USE}") from error
            raise StoreUnavailableError(f"can not open {path}: {error}") from error

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return a connection of its own; the caller closes it."""
        connection = self._root.cursor()
        connection.execute(_USE)
        return connection

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a connection whose queries all see one moment.

        Raises:
            StoreUnavailableError: the database can not answer.
        """
        connection = self.connect()
        try:
            with transaction(connection):
                yield connection
        finally:
            connection.close()

    def close(self) -> None:
        """Write the log into the file and let it go."""
        self._root.close()


def _attachment(path: Path | None) -> str:
    """The file's form is said where it is attached; none of it can be bound as a parameter."""
    name = str(path).replace("'", "''") if path else IN_MEMORY
    options = f"ROW_GROUP_SIZE {ROW_GROUP_ROWS}, STORAGE_VERSION '{STORAGE_VERSION}'"
    return f"ATTACH '{name}' AS spans ({options})"


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit what the block did, or nothing of it.

    Raises:
        StoreUnavailableError: nothing of it happened.
    """
    try:
        connection.begin()
        yield
        connection.commit()
    except duckdb.Error as error:
        _roll_back(connection)
        raise StoreUnavailableError(f"span store: {error}") from error
    except BaseException:
        _roll_back(connection)
        raise


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.rollback()
    except duckdb.TransactionException:
        return  # a failed commit has rolled back by itself


def checkpoint(connection: duckdb.DuckDBPyConnection) -> bool:
    """Write the log into the file, so that old versions leave memory; outside of transactions.

    Answers False, and does nothing, while others write.

    Raises:
        StoreUnavailableError: the file can not be written.
    """
    try:
        connection.execute("CHECKPOINT")
    except duckdb.TransactionException:
        return False
    except duckdb.Error as error:
        raise StoreUnavailableError(f"span store: {error}") from error
    return True


def load(connection: duckdb.DuckDBPyConnection, **tables: pa.Table) -> None:
    """Copy Arrow tables into temporary tables of the connection, replacing those before.

    Joined in place, DuckDB would push a join's time bounds into Arrow, and does that through a
    time-zone package that is not ours.
    """
    for name, table in tables.items():
        with streamed(connection, "arrow_source", table):
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM arrow_source")


@contextmanager
def streamed(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> Iterator[None]:
    """Let one query read an Arrow table once; without conditions on it, see `load`."""
    connection.register(name, table.to_reader())
    try:
        yield
    finally:
        connection.unregister(name)


def _migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Apply the numbered DDL files that this file has not seen, each in a transaction."""
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    rows = connection.execute("SELECT version FROM schema_version").fetchall()
    applied = {int(version) for (version,) in rows}
    scripts = sorted(
        (file for file in (_PACKAGE / "ddl").iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    for script in scripts:
        version = int(script.name.split("_", 1)[0])
        if version not in applied:
            with transaction(connection):
                connection.execute(script.read_text())
                connection.execute("INSERT INTO schema_version VALUES (?)", [version])
