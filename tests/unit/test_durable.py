"""Files that are whole or as they were."""

import os
import threading
from pathlib import Path

import pytest

from controlplane.durable import create_file, replace_file, write_file


def test_a_file_is_replaced_by_its_owner_s_alone(tmp_path: Path) -> None:
    """Nothing else is left in the directory, and the mode is what was asked for."""
    path = tmp_path / "note.json"
    for content in (b"first", b""):
        replace_file(path, content)
        assert content == path.read_bytes()
    assert 0o600 == path.stat().st_mode & 0o777
    replace_file(path, b"for all", mode=0o644)
    assert 0o644 == path.stat().st_mode & 0o777
    assert [path] == list(tmp_path.iterdir())


def test_what_can_not_be_replaced_stays(tmp_path: Path) -> None:
    """A directory is in the way: the error is told, and nothing is left behind."""
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "taken", b"x")
    assert [tmp_path / "taken"] == list(tmp_path.iterdir())


def test_a_key_is_made_once_whoever_is_first(tmp_path: Path) -> None:
    """Of many at once one makes it, and everybody reads the same whole file."""
    path, lost, start = tmp_path / "key", [], threading.Barrier(8)

    def make(number: int) -> None:
        start.wait(timeout=10)
        try:
            create_file(path, bytes([number]) * 32)
        except FileExistsError:
            lost.append(number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (won,) = set(range(8)) - set(lost)
    assert bytes([won]) * 32 == path.read_bytes()
    assert 0o600 == path.stat().st_mode & 0o777
    assert [path] == list(tmp_path.iterdir())


def test_what_was_written_is_all_of_it(tmp_path: Path) -> None:
    """More than one write call takes at a time where the file is a pipe."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    with pytest.raises(OSError, match="Invalid argument"):  # a pipe has nothing to sync
        write_file(path, b"x" * 1_000_000)
    reader.join()
    assert b"x" * 1_000_000 == read[0]
