"""ASGI middleware for a server that answers model calls itself: a gateway, an engine's front.

    app = ControlplaneMiddleware(app, provider="self-hosted")

Requests of the known operations are admitted before the application sees them; the answer's bytes
are read on their way out. Everything else passes untouched.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

import msgspec

from controlplane.agent.embedded import Gate, default_gate
from controlplane.agent.http_answer import (
    POLICY_HEADER,
    UsageReader,
    ending_of,
    refusal_body,
    refusal_headers,
)
from controlplane.agent.http_request import (
    OPERATIONS,
    HttpCall,
    changed_body,
    facts_of,
    read_call,
    to_request,
    wants_usage,
)
from controlplane.agent.meter import now
from controlplane.agent.outcome import CLIENT_CLOSED
from controlplane.agent.ticket import RefusedError, Ticket

MAX_BODY_BYTES: Final = 32 * 2**20
REQUEST_ID_HEADER: Final = "x-request-id"
TOO_LARGE: Final = 413

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class ControlplaneMiddleware:
    """Admit, call the application, settle.

    Args:
        app: the application that answers.
        gate: the agent; default is this process's own, set up by the environment.
        provider: `gen_ai.provider.name` of what answers; decides which prices a hold is made of.
        known: dimensions of every request, over what a request says.
    """

    def __init__(
        self,
        app: App,
        gate: Gate | None = None,
        *,
        provider: str = "self-hosted",
        known: Mapping[str, str] | None = None,
    ) -> None:
        self._app = app
        self._gate = gate or default_gate()
        self._provider = provider
        self._known = known or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        path = str(scope.get("path", ""))
        if scope["type"] != "http" or not path.rstrip("/").endswith(tuple(OPERATIONS)):
            await self._app(scope, receive, send)
            return
        content = await _whole_body(receive)
        if content is None:
            return
        if len(content) > MAX_BODY_BYTES:
            await _answer(send, TOO_LARGE, {"content-type": "text/plain"}, b"body too large")
            return
        call = read_call(scope["method"], "", path, content=content, provider=self._provider)
        if call is None:
            await self._app(scope, _replay(content, receive), send)
            return
        await self._serve(scope, _Passage(call, content, receive, send))

    async def _serve(self, scope: Scope, passage: "_Passage") -> None:
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope.get("headers", ())
        }
        await self._gate.ready_async()
        gate, call = self._gate, passage.call
        facts = facts_of(call, headers, gate.dimension_map, tenant=gate.tenant, known=self._known)
        request_id = headers.get(REQUEST_ID_HEADER) or f"req_{secrets.token_hex(12)}"
        try:
            ticket = await gate.admit(to_request(call, facts, request_id=request_id))
        except RefusedError as refused:
            body = refusal_body(refused, request_id=request_id)
            await _answer(passage.send_out, refused.refusal.status, refusal_headers(refused), body)
            return
        try:
            passage.admitted(ticket, gate)
            changed = {**scope, "headers": passage.headers(scope, ticket)}
            await self._app(changed, passage.receive, passage.send)
        except Exception:
            passage.raised()
            raise
        finally:
            passage.end(is_whole=False)


class _Passage:
    """One request through the application: its body in, its answer out."""

    def __init__(self, call: HttpCall, content: bytes, receive: Receive, send: Send) -> None:  # noqa: PLR0917 - ASGI's own three, and what was read
        self.call = call
        self.receive = _replay(content, receive)
        self.send_out = send
        self._content = content
        self._receive = receive
        self._ticket = Ticket()
        self._gate: Gate | None = None
        self._status = CLIENT_CLOSED
        """Until an answer begins: an application that was canceled may have done all of the work."""
        self._reader = UsageReader(is_events=False)

    def admitted(self, ticket: Ticket, gate: Gate) -> None:
        """Take the agent's answer; the application may be called."""
        self._ticket, self._gate = ticket, gate
        body = changed_body(self.call, ticket)
        if body is not None:
            self._content = msgspec.json.encode(body)
            self.receive = _replay(self._content, self._receive)

    def headers(self, scope: Scope, ticket: Ticket) -> list[tuple[bytes, bytes]]:
        """Return the request's headers as the application gets them."""
        ours = {"content-length": str(len(self._content)), **ticket.headers}
        replaced = {name.lower().encode("latin-1") for name in ours}
        replaced.add(b"accept-encoding")  # an answer that the application packs can not be read
        kept = [pair for pair in scope.get("headers", ()) if pair[0].lower() not in replaced]
        added = ((name.lower(), value) for name, value in ours.items())
        return kept + [(name.encode("latin-1"), value.encode("latin-1")) for name, value in added]

    async def send(self, message: Message) -> None:
        """Pass the answer on, and read it."""
        if message["type"] == "http.response.start":
            message = self._started(message)
        elif message["type"] == "http.response.body":
            body = self._reader.feed(bytes(message.get("body", b"")))
            is_last = not message.get("more_body", False)
            message = {**message, "body": body + (self._reader.end() if is_last else b"")}
            if is_last:
                self.end(is_whole=True)
        await self.send_out(message)

    def _started(self, message: Message) -> Message:
        self._status = message["status"]
        headers = list(message.get("headers", ()))
        found = {name.lower(): value for name, value in headers}
        is_events = found.get(b"content-type", b"").startswith(b"text/event-stream")
        hides = is_events and bool(self._ticket.hold_id) and not wants_usage(self.call)
        hides = hides and self.call.operation in {"chat", "text_completion"}
        self._reader = UsageReader(is_events=is_events, hide_usage=hides)
        if hides:
            headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
        policy = self._gate.policy if self._gate else ""
        return {**message, "headers": [*headers, (POLICY_HEADER.encode(), policy.encode())]}

    def raised(self) -> None:
        """The application failed: a server answers that with an error, which nobody pays for."""
        if self._status == CLIENT_CLOSED:
            self._status = 500

    def end(self, *, is_whole: bool) -> None:
        """Settle, once."""
        ticket, self._ticket = self._ticket, Ticket()
        if self._gate is None or not (ticket.hold_id or ticket.slot):
            return
        ending = ending_of(self._status, self._reader, ended_at=now(), is_whole=is_whole)
        if ticket.hold_id:
            self._gate.settle(ticket.hold_id, ending)
        if ticket.slot:
            self._gate.release(ticket.slot, ending)


async def _whole_body(receive: Receive) -> bytes | None:
    """Return the request's body, its beginning where it is too long; None: the client has left."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(bytes(message.get("body", b"")))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES or not message.get("more_body", False):
            return b"".join(parts)


def _replay(content: bytes, receive: Receive) -> Receive:
    """Return a `receive` that tells the body again, then whatever the server says."""
    is_told = False

    async def again() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": content, "more_body": False}

    return again


async def _answer(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:  # noqa: PLR0917 - an answer has these parts
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
