"""The attribution rules of a role: the file of the settings recorded once, the newest version live."""

import threading
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import Engine

from controlplane import telemetry
from controlplane.attribution.history import RulesHistory, RulesVersion
from controlplane.attribution.rules import (
    BUILT_IN,
    AttributionRules,
    compile_rules,
    read_document,
)
from controlplane.bootstrap.data_files import read_yaml
from controlplane.bootstrap.system import SystemClock
from controlplane.core.errors import ConflictError
from controlplane.settings import Settings
from controlplane.store.metadata.attribution import RulesRepository

REFRESH_SECONDS: Final = 2.0
BY_FILE: Final = "file"
BY_PROGRAM: Final = "controlplane"
MAX_REMEMBERED: Final = 1_000


class LiveRules:
    """The newest version's rules, looked for at most every two seconds; safe for threads.

    A batch takes `current()` once: one batch, one version. A version takes effect for what is
    ingested after it; what is stored keeps its attribution and says which rule decided.
    """

    def __init__(
        self, history: RulesHistory, *, elapsed: Callable[[], float] = time.monotonic
    ) -> None:
        self._history = history
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._version = 0
        self._looked_at: float | None = None
        self._rules = BUILT_IN

    def current(self) -> AttributionRules:
        """Return the rules in force.

        Raises:
            UnavailableError: the history can not be read now.
        """
        with self._lock:
            now = self._elapsed()
            if self._looked_at is None or now - self._looked_at >= REFRESH_SECONDS:
                newest = self._history.latest()
                if newest is not None and newest.version != self._version:
                    self._rules = compile_rules(newest.document)
                    self._version = newest.version
                telemetry.ATTRIBUTION_VERSION.set(self._version)
                self._looked_at = now
            return self._rules


def open_rules(settings: Settings, engine: Engine) -> LiveRules:
    """Open the rules over a migrated database, with the settings' file recorded if it is new.

    Raises:
        ConfigError: names the rule of `attribution_rules` that is wrong.
    """
    history = RulesRepository(engine)
    record_file(settings, history)
    return LiveRules(history)


def record_file(settings: Settings, history: RulesHistory) -> None:
    """Append the file's document unless the newest one from a file says the same.

    So what was put through the API stands across restarts, until the file changes.
    """
    if settings.attribution_rules is None:
        return
    document = read_document(read_yaml("attribution_rules", settings.attribution_rules) or [])
    known = history.versions(limit=MAX_REMEMBERED)
    last = next((one for one in known if one.source == BY_FILE), None)
    if last is not None and last.document == document:
        return
    version = RulesVersion(
        version=known[0].version + 1 if known else 1,
        recorded_at=SystemClock().now(),
        source=BY_FILE,
        recorded_by=BY_PROGRAM,
        document=document,
    )
    try:
        history.append(version)
    except ConflictError:
        record_file(settings, history)  # another role that starts did the same: look again
