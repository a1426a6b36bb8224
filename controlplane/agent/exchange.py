"""One call on its way through an HTTP front: what to ask, what to send, how it ended."""

import contextlib
import contextvars
import secrets
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

import httpx
import msgspec

from controlplane.agent.embedded import Gate
from controlplane.agent.http_answer import (
    POLICY_HEADER,
    UsageReader,
    broken,
    ending_of,
    refusal_body,
    refusal_headers,
)
from controlplane.agent.http_request import (
    HttpCall,
    changed_body,
    facts_of,
    to_request,
    wants_usage,
)
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request, Ticket

REQUEST_ID_HEADER: Final = "x-request-id"
_ANY_ZLIB: Final = 32 + zlib.MAX_WBITS  # gzip or zlib, told by its first bytes

_facts: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar(
    "controlplane_facts", default=MappingProxyType({})
)


@contextlib.contextmanager
def dimensions(**facts: str) -> Iterator[None]:
    """Say whose the calls in a block are, for example `team="search", feature="rank"`."""
    token = _facts.set({**_facts.get(), **facts})
    try:
        yield
    finally:
        _facts.reset(token)


def current_dimensions() -> Mapping[str, str]:
    """Return what the surrounding blocks say."""
    return _facts.get()


def library_of(request: httpx.Request) -> Any:
    """Return `httpx` or `httpx2`, whichever the client above is made of; they are twins."""
    return sys.modules[type(request).__module__.partition(".")[0]]


class Exchange:
    """One call on its way: what both transports do, but for the waiting."""

    def __init__(
        self, gate: Gate, request: httpx.Request, call: HttpCall, *, known: Mapping[str, str]
    ) -> None:
        self._gate = gate
        self._request = request
        self._call = call
        self._known = known
        self._ticket = Ticket()
        self.request_id = request.headers.get(REQUEST_ID_HEADER) or f"req_{secrets.token_hex(12)}"

    def ask(self) -> Request:
        """Return what the agent is asked; its policy must be there."""
        gate = self._gate
        facts = facts_of(
            self._call,
            self._request.headers,
            gate.dimension_map,
            tenant=gate.tenant,
            known={**self._known, **current_dimensions()},
        )
        return to_request(self._call, facts, request_id=self.request_id)

    def admitted(self, ticket: Ticket) -> httpx.Request:
        """Return the request as it is to be sent."""
        self._ticket = ticket
        body = changed_body(self._call, ticket)
        headers = self._request.headers.copy()
        if ticket.hold_id and "gzip" in headers.get("accept-encoding", ""):
            headers["accept-encoding"] = "gzip"  # what `Meter` can read as it passes
        content = self._request.content if body is None else msgspec.json.encode(body)
        headers.pop("content-length", None)
        headers.pop("transfer-encoding", None)
        return type(self._request)(
            self._request.method,
            self._request.url,
            headers=headers,
            content=content,
            extensions=self._request.extensions,
        )

    def refused(self, refused: RefusedError) -> httpx.Response:
        """Return the answer that the client above reads as the provider's own 429."""
        response: httpx.Response = library_of(self._request).Response(
            refused.refusal.status,
            headers=refusal_headers(refused),
            content=refusal_body(refused, request_id=self.request_id),
            request=self._request,
        )
        return response

    def failed(self, wrong: BaseException) -> None:
        """Settle a call that was not answered."""
        library = library_of(self._request)
        kind = "timeout" if isinstance(wrong, library.TimeoutException) else "other"
        if not isinstance(wrong, Exception):
            kind = "cancelled"
        never_sent = (library.ConnectError, library.ConnectTimeout, library.PoolTimeout)
        self._settle(broken(_now(), was_sent=not isinstance(wrong, never_sent), kind=kind))

    def _settle(self, ending: Ending) -> None:
        if self._ticket.hold_id:
            self._gate.settle(self._ticket.hold_id, ending)

    def answered(self, response: httpx.Response) -> "Meter | None":
        """Return what reads the answer's bytes; None when nothing waits for its usage."""
        response.headers[POLICY_HEADER] = self._gate.policy
        if not self._ticket.hold_id:
            return None
        is_events = response.headers.get("content-type", "").startswith("text/event-stream")
        hides = is_events and self._call.operation == "chat" and not wants_usage(self._call)
        if hides:
            response.headers.pop("content-length", None)
        reader = UsageReader(is_events=is_events, hide_usage=hides)
        return Meter(response, reader, settle=self._settle)


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
            settle(ending_of(self._status, self._reader, ended_at=_now(), is_whole=is_whole))


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - a front is an edge; its agent's clock is not at hand
