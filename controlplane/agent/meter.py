"""Reads an answer's bytes on their way to the client, and says at the end what was used."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import httpx

from controlplane.agent.http_answer import UsageReader, ending_of
from controlplane.agent.inflate import Inflate
from controlplane.agent.settle import Ending


class Meter:
    """Reads an answer as it passes; settles once, at its end or when it is left."""

    def __init__(
        self, response: httpx.Response, reader: UsageReader, *, settle: Callable[[Ending], None]
    ) -> None:
        self._status = response.status_code
        self._reader = reader
        self._settle: Callable[[Ending], None] | None = settle
        self._inflate: Inflate | None = None
        if response.headers.get("content-encoding") == "gzip":
            self._inflate = Inflate()
            del response.headers["content-encoding"]
            response.headers.pop("content-length", None)

    def feed(self, raw: bytes) -> Iterator[bytes]:
        """Read some bytes; yield what the client gets, decoded."""
        if self._inflate is None:
            yield self._reader.feed(raw)
            return
        for piece in self._inflate.pieces(raw):
            if self._inflate.is_long:
                yield self._reader.lose()
            yield self._reader.feed(piece)

    def end(self) -> bytes:
        """Read the end; return what is left for the client."""
        passed = self._reader.end()
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
