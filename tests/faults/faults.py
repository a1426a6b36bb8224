"""Faults that the process under test brings upon itself, named by its environment."""

import os
import resource
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import cycle

DISK_FULL = "TEST_DISK_FULL"
"""`after,for`: seconds after which no file may grow, and for how long."""
CLOCK_JUMPS = "TEST_CLOCK_JUMPS"
"""Seconds between jumps of the clock by hours, back and forth."""

_JUMPS = (timedelta(hours=3), timedelta(hours=-5), timedelta(0), timedelta(minutes=-1))


class JumpingClock:
    """The system's clock, and once in a while another one."""

    def __init__(self, every_seconds: float) -> None:
        self._every_seconds = every_seconds
        self._jumps = cycle(_JUMPS)
        self._offset = timedelta(0)
        self._jumps_at = datetime.now(UTC)

    def now(self) -> datetime:
        real = datetime.now(UTC)
        if self._every_seconds and real >= self._jumps_at:
            self._offset = next(self._jumps)
            self._jumps_at = real + timedelta(seconds=self._every_seconds)
        return real + self._offset

    def monotonic(self) -> float:
        """Return seconds that no jump changes."""
        return time.monotonic()


def clock() -> JumpingClock:
    """Return the clock that the environment asks for."""
    return JumpingClock(float(os.environ.get(CLOCK_JUMPS, "0")))


def arrange_a_full_disk() -> None:
    """Let no file grow for a while, if the environment asks for it.

    RLIMIT_FSIZE needs no privilege: a write past it fails with EFBIG, as one to a full disk does
    with ENOSPC (Python ignores SIGXFSZ). Pipes and sockets are not files.
    """
    asked = os.environ.get(DISK_FULL)
    if not asked:
        return
    after, seconds = (float(part) for part in asked.split(","))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit_to(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    for delay, size in ((after, 4_096), (after + seconds, hard)):
        timer = threading.Timer(delay, limit_to, (size,))
        timer.daemon = True
        timer.start()
