"""The one system clock, the one source of ids, and the secrets on disk."""

import contextlib
import resource
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

from controlplane.bootstrap.one_owner import ready_directory
from controlplane.core.ids import ULID_RANDOM_BITS, ulid
from controlplane.durable import create_file


class SystemClock:
    """Time of this machine."""

    def now(self) -> datetime:
        """Aware UTC wall time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since boot, suspended time included where the platform counts it."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class UlidIds:
    """Ids as ULIDs of this machine's time."""

    def new(self, prefix: str) -> str:
        """Return `<prefix>_<26 characters>`, sortable by creation time."""
        return ulid(prefix, time.time_ns() // 1_000_000, secrets.randbits(ULID_RANDOM_BITS))


def secret_file(path: Path, *, size: int = 32) -> bytes:
    """Read the secret at `path`, made at random with mode 0600 when it is absent.

    Two processes may race for the first use: the exclusive link decides, both read the winner's.

    Raises:
        ConfigError: its directory can not be written.
    """
    if not path.exists():
        ready_directory(path.parent, key="keys_dir")
        with contextlib.suppress(FileExistsError):  # somebody else's secret is the secret
            create_file(path, secrets.token_bytes(size))
    return path.read_bytes()


def raise_descriptor_limit() -> int:
    """Let this process open as many descriptors as it may: a stream is one; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
