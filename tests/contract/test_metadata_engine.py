"""What a commit on the metadata database means, and what is said when there can be none."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from controlplane.core.errors import UnavailableError
from controlplane.store.metadata.engine import LEDGER_LOCK, open_engine, reading, writing
from controlplane.store.metadata.migrate import migrate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "metadata.sqlite"


def test_sqlite_commits_survive_a_power_cut(path: Path) -> None:
    """WAL with synchronous=FULL (2) on every connection; the file is its owner's alone."""
    engine = open_engine(f"sqlite:///{path}")
    for _ in range(2):
        with reading(engine) as connection:
            assert "wal" == connection.execute(text("PRAGMA journal_mode")).scalar()
            assert 2 == connection.execute(text("PRAGMA synchronous")).scalar()
            assert 1 == connection.execute(text("PRAGMA foreign_keys")).scalar()
        engine.dispose()
    assert 0o600 == path.stat().st_mode & 0o777
    assert 0o700 == path.parent.stat().st_mode & 0o777


def test_sqlite_writer_that_must_wait_too_long_is_told_to_retry(path: Path) -> None:
    """Another process holds the write lock: nothing was changed, and readers go on."""
    engine = open_engine(f"sqlite:///{path}", busy_timeout_ms=50)
    migrate(engine)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError) as refused, writing(engine):
        pytest.fail("the lock is not ours")
    assert refused.value.retryable
    with reading(engine) as connection:
        assert 0 == connection.execute(text("SELECT count(*) FROM budget")).scalar()
    other.execute("ROLLBACK")
    other.close()
    with writing(engine) as connection:
        connection.execute(text("DELETE FROM budget"))
    engine.dispose()


def test_postgres_ledger_has_one_writer(postgres_url: str) -> None:
    """A second one waits, and is told to retry when that takes too long."""
    engine = open_engine(postgres_url, busy_timeout_ms=100)
    with writing(engine, lock=LEDGER_LOCK):
        with writing(engine) as connection:
            assert 1 == connection.execute(text("SELECT 1")).scalar()
        with pytest.raises(UnavailableError), writing(engine, lock=LEDGER_LOCK):
            pytest.fail("the lock is not ours")
    with writing(engine, lock=LEDGER_LOCK) as connection:
        assert "on" == connection.execute(text("SHOW synchronous_commit")).scalar()
    engine.dispose()


def test_postgres_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    """A socket nobody listens on: a sentence, not a stack of the driver's."""
    engine = open_engine(f"postgresql:///x?host={tmp_path}")
    with pytest.raises(UnavailableError), reading(engine):
        pytest.fail("there is no server")
