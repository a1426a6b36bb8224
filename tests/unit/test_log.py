"""A log that can not be written stops nobody."""

import io

from typing_extensions import override

from controlplane.log import Tolerant


class FullDisk(io.StringIO):
    """Takes nothing, and says so."""

    @override
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    @override
    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_lines_that_do_not_fit_are_counted_and_lost() -> None:
    stream = Tolerant(FullDisk())
    assert 4 == stream.write("line")
    stream.flush()
    assert 2 == stream.lost_writes


def test_lines_that_fit_are_written() -> None:
    told = io.StringIO()
    stream = Tolerant(told)
    stream.write("line")
    stream.flush()
    assert ("line", 0) == (told.getvalue(), stream.lost_writes)
