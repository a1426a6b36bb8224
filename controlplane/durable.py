"""Files that are whole or as they were, and on disk when a call returns.

A rename is as atomic as it is said to be only for a file that was synced before it, and it survives
a power cut only when its directory was synced after it.
"""

import os
import secrets
from pathlib import Path
from typing import Final

OWNER_ONLY: Final = 0o600


def write_file(path: Path, content: bytes) -> None:
    """Write a file that nobody looks for before its directory is synced.

    Raises:
        OSError: the disk is full or broken.
    """
    with path.open("wb", buffering=0) as file:
        _put(file.fileno(), content)


def replace_file(path: Path, content: bytes, *, mode: int = OWNER_ONLY) -> None:
    """Put a file with `content` in the place of what is at `path`, if anything is.

    Args:
        path: of the file; its directory is there.
        content: all of it.
        mode: who may read it, less the process's umask.

    Raises:
        OSError: the disk is full or broken; the file is as it was.
    """
    fresh = _written(path, content, mode)
    try:
        fresh.rename(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def create_file(path: Path, content: bytes) -> None:
    """Make a file of its owner's where none is: a key, which is never replaced in place.

    Raises:
        FileExistsError: there is one; it is as it was, and whole.
        OSError: the disk is full or broken; there is none.
    """
    fresh = _written(path, content, OWNER_ONLY)
    try:
        os.link(fresh, path)
    finally:
        fresh.unlink()
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Put on disk which files a directory has."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(path: Path, content: bytes, mode: int) -> Path:
    """Write under a name of its own: containers that share a directory also share process ids."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        _put(descriptor, content)
    except OSError:
        fresh.unlink()
        raise
    finally:
        os.close(descriptor)
    return fresh


def _put(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)
