"""Unpacks an answer as it passes: a kilobyte may unpack to a megabyte."""

import zlib
from collections.abc import Iterator
from typing import Any, Final

from controlplane.agent.http_request import ANY_ZLIB

MAX_PIECE_BYTES: Final = 2**20
"""Unpacked at once, whatever came."""
MAX_READ_BYTES: Final = 64 * 2**20
"""Unpacked to read the usage; of a longer answer it is unknown. The longest streams have 45 MB."""
_MAGIC: Final = b"\x1f\x8b"


class Inflate:
    """Unpacks gzip, every member of it, or zlib."""

    def __init__(self) -> None:
        self._member: Any = zlib.decompressobj(ANY_ZLIB)  # its type has no public name
        self._after = b""  # how it goes on after a member
        self._unpacked = 0

    @property
    def is_long(self) -> bool:
        """Whether more came than is read."""
        return self._unpacked > MAX_READ_BYTES

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        """Yield what some bytes unpack to, at most MAX_PIECE_BYTES at a time.

        What follows the last member and is none is left out, as clients do.

        Raises:
            zlib.error: the bytes are not what they are said to be.
        """
        while True:
            if self._member.eof:
                packed = self._after + packed
                self._after = packed[: len(_MAGIC)]
                if self._after != _MAGIC:
                    return
                self._member, self._after = zlib.decompressobj(ANY_ZLIB), b""
            piece: bytes = self._member.decompress(packed, MAX_PIECE_BYTES)
            self._unpacked += len(piece)
            if piece:
                yield piece
            packed = self._member.unused_data or self._member.unconsumed_tail
            if len(piece) < MAX_PIECE_BYTES and not packed:
                return
