"""Reads an answer's bytes on their way to the client, and says at the end what was used."""

import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import httpx

from controlplane.agent.http_answer import UsageReader, ending_of
from controlplane.agent.settle import Ending

_ANY_ZLIB: Final = 32 + zlib.MAX_WBITS  # gzip or zlib, told by its first bytes


class Meter:
    """Reads an answer as it passes; settles once, at its end or when it is left."""

    def __init__(
        self, response: httpx.Response, reader: UsageReader, *, settle: Callable[[Ending], None]
    ) -> None:
        self._status = response.status_code
        self._reader = reader
        self._settle: Callable[[Ending], None] | None = settle
        self._inflate = None
        if response.headers.get("content-encoding") == "gzip":
            self._inflate = zlib.decompressobj(_ANY_ZLIB)
            del response.headers["content-encoding"]
            response.headers.pop("content-length", None)

    def feed(self, raw: bytes) -> bytes:
        """Read some bytes; return what the client gets, decoded."""
        return self._reader.feed(self._inflate.decompress(raw) if self._inflate else raw)

    def end(self) -> bytes:
        """Read the end; return what is left for the client."""
        rest = self._inflate.flush() if self._inflate else b""
        passed = self._reader.feed(rest) + self._reader.end()
        self.close(is_whole=True)
        return passed

    def close(self, *, is_whole: bool = False) -> None:
        """Settle, once."""
        settle, self._settle = self._settle, None
        if settle:
            settle(ending_of(self._status, self._reader, ended_at=now(), is_whole=is_whole))


def now() -> datetime:
    """Return the wall time of this front; its agent's clock is not at hand."""
    return datetime.now(UTC)  # noqa: TID251 - a front is an edge
