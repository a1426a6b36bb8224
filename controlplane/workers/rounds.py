"""A worker that does one thing again and again on a thread, and survives its failures."""

import threading
from collections.abc import Callable
from typing import Final

import structlog

from controlplane import telemetry
from controlplane.core.errors import UnavailableError

MAX_WAIT_SECONDS: Final = 30.0
STOP_SECONDS: Final = 30.0

log = structlog.stdlib.get_logger()


class Rounds:
    """Calls `work` every `seconds`, counted from the end of the call; failures wait longer."""

    def __init__(self, name: str, work: Callable[[], object], *, seconds: float) -> None:
        self._name = name
        self._work = work
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin with a round."""
        self._thread.start()

    def stop(self) -> None:
        """Let the round in progress end, and begin no other."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        wait = self._seconds
        while not self._stopping.is_set():
            try:
                self._work()
            except UnavailableError as wrong:
                telemetry.WORKER_ERRORS.labels(self._name).inc()
                log.warning("round_postponed", worker=self._name, says=str(wrong))
                wait = min(2 * wait, MAX_WAIT_SECONDS)
            except Exception:
                telemetry.WORKER_ERRORS.labels(self._name).inc()
                log.exception("round_failed", worker=self._name)
                wait = min(2 * wait, MAX_WAIT_SECONDS)
            else:
                wait = self._seconds
            self._stopping.wait(wait)
