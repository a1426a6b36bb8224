"""Postgres says that another replica has published: a hint that spares the wait for the re-read (D3).

It is never the truth: a hint that is lost costs at most the second until the next read.
"""

import contextlib
import threading
from collections.abc import Callable

import psycopg
import structlog
from psycopg import sql
from sqlalchemy import Engine

from controlplane.store.metadata.policies import NEW_POLICY_CHANNEL

LISTEN_SECONDS = 1.0
RECONNECT_SECONDS = 2.0

log = structlog.stdlib.get_logger()


class PolicyHints:
    """Listens on a connection of its own and calls `published`; on SQLite there is nothing to do."""

    def __init__(self, engine: Engine, published: Callable[[], None]) -> None:
        self._engine = engine
        self._published = published
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy-hints", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        if self._engine.dialect.name == "postgresql":
            self._thread.start()

    def stop(self) -> None:
        """Stop within LISTEN_SECONDS."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(LISTEN_SECONDS + RECONNECT_SECONDS)

    def _run(self) -> None:
        url = self._engine.url.set(drivername="postgresql")
        conninfo = url.render_as_string(hide_password=False)
        while not self._stopping.is_set():
            with contextlib.suppress(psycopg.OperationalError):
                self._listen(conninfo)
            if not self._stopping.is_set():
                log.warning("policy_hints_lost")
                self._stopping.wait(RECONNECT_SECONDS)

    def _listen(self, conninfo: str) -> None:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(NEW_POLICY_CHANNEL)))
            while not self._stopping.is_set():
                for _ in connection.notifies(timeout=LISTEN_SECONDS, stop_after=1):
                    self._published()
