"""Roles as child processes: start, wait until ready, stop; none outlives its parent.

A role prints one JSON line `{"event": "ready", …}` on stdout when it serves, with the addresses it
got, and stops when its stdin closes, which also happens when the parent is killed.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from controlplane.core.errors import UnavailableError

READY_SECONDS = 60.0
STOP_SECONDS = 15.0


class RoleFailedError(UnavailableError):
    """A role ended before it was ready; its log has the reason."""


class Role:
    """One running role."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log
        self.ready: dict[str, object] = {}
        self._seen = threading.Event()
        self._reader = threading.Thread(target=self._read, name=f"{name}-ready", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stream = self.process.stdout
        if stream is None:
            return
        for line in stream:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if isinstance(said, dict) and said.get("event") == "ready":
                    self.ready = said
                    self._seen.set()
        self._seen.set()

    def wait_ready(self, seconds: float = READY_SECONDS) -> dict[str, object]:
        """Return what the role said when it was ready.

        Raises:
            RoleFailedError: it ended or stayed silent; the message ends with its last log line.
        """
        self._seen.wait(seconds)
        if not self.ready:
            lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
            last = lines[-1] if lines else "no output"
            raise RoleFailedError(f"{self.name} did not start; {self.log} ends with: {last}")
        return self.ready

    def take_ready(self) -> dict[str, object]:
        """Return what the role said, once."""
        said, self.ready = self.ready, {}
        return said

    def stop(self) -> int | None:
        """Ask, wait, and kill what does not answer; return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._reader.join(STOP_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return status


class Supervisor:
    """The roles of one embedded system."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self.roles: list[Role] = []

    def start(self, name: str, arguments: list[str], env: Mapping[str, str]) -> Role:
        """Start `controlplane serve …` with settings in its environment; return at once."""
        self._log_dir.mkdir(parents=True, exist_ok=True)
        log = self._log_dir / f"{name}.log"
        with log.open("wb") as stderr:
            role = Role(name, _spawn(arguments, env, stderr), log)
        self.roles.append(role)
        return role

    def ended(self) -> Role | None:
        """Return a role that has ended by itself, if any."""
        return next((role for role in self.roles if role.process.poll() is not None), None)

    def stop(self) -> None:
        """Stop every role, last started first."""
        while self.roles:
            self.roles.pop().stop()


def _spawn(
    arguments: list[str], env: Mapping[str, str], stderr: IO[bytes]
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "controlplane", *arguments]
    return subprocess.Popen(  # noqa: S603 - our own program with our own arguments
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, **env},
        start_new_session=True,  # a terminal's Ctrl-C reaches the parent, which stops us in order
    )


def wait_for_stop(*, supervised: bool) -> None:
    """Block until SIGINT, SIGTERM or, when supervised, the parent's end."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if supervised:
        threading.Thread(target=_until_stdin_closes, args=(stop,), daemon=True).start()
    stop.wait()


def _until_stdin_closes(stop: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stop.set()


def say_ready(**facts: object) -> None:
    """Print the ready line."""
    sys.stdout.write(json.dumps({"event": "ready", **facts}) + "\n")
    sys.stdout.flush()
