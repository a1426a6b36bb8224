"""The one system clock, the one source of ids, and the secrets on disk."""

import os
import resource
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

from controlplane.bootstrap.one_owner import ready_directory

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 80
_ID_CHARACTERS = 26


class SystemClock:
    """Time of this machine."""

    def now(self) -> datetime:
        """Aware UTC wall time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since boot, suspended time included where the platform counts it."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class UlidIds:
    """Ids as ULIDs: 48 bits of milliseconds, 80 random bits, lowercase Crockford base32."""

    def new(self, prefix: str) -> str:
        """Return `<prefix>_<26 characters>`, sortable by creation time."""
        number = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        digits = (
            _BASE32[number >> shift & 31] for shift in range(5 * (_ID_CHARACTERS - 1), -1, -5)
        )
        return f"{prefix}_{''.join(digits)}"


def secret_file(path: Path, *, size: int = 32) -> bytes:
    """Read the secret at `path`, made at random with mode 0600 when it is absent.

    Two processes may race for the first use: the exclusive link decides, both read the winner's.

    Raises:
        ConfigError: its directory can not be written.
    """
    if not path.exists():
        ready_directory(path.parent, key="keys_dir")
        mine = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(size))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(mine, path)
        except FileExistsError:
            pass  # somebody else's secret is the secret
        finally:
            mine.unlink()
    return path.read_bytes()


def raise_descriptor_limit() -> int:
    """Let this process open as many descriptors as it may: a stream is one; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
