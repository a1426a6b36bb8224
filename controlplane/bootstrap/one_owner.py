"""What one process at a time may use, held by a lock that ends with the process."""

import fcntl
import os
from pathlib import Path

from controlplane.core.errors import ConfigError, UnavailableError


def own(path: Path, *, by: str) -> int:
    """Hold the lock at `path` for as long as this process lives; return its descriptor.

    Two collectors on one spool lose what they acknowledged: each forgets the salts of the other.

    Raises:
        UnavailableError: another process has it; `by` names what that is.
        ConfigError: the directory can not be written.
    """
    ready_directory(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UnavailableError(
            f"{by} runs on {path.parent} already. Stop it, or choose another data_dir"
        ) from None
    return descriptor


def ready_directory(path: Path, *, key: str = "data_dir") -> None:
    """Make a directory for its owner alone, and see that it can be written.

    Raises:
        ConfigError: it can not; `key` is the setting that names it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as wrong:
        raise ConfigError(
            key, f"{path} can not be made ({wrong.strerror})", "Name a directory that can be"
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(key, f"{path} can not be written", "Name a directory that can be")
