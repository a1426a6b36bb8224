"""One call on its way through an HTTP front: what to ask, what to send, how it ended."""

import contextlib
import contextvars
import secrets
import sys
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import httpx
import msgspec

from controlplane.agent.bounds import bound_request
from controlplane.agent.clock import seconds_since_boot
from controlplane.agent.embedded import Gate
from controlplane.agent.health import Outcome, is_failure
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
    rate_names,
    to_request,
    wants_usage,
)
from controlplane.agent.meter import Meter, now
from controlplane.agent.settle import Ending
from controlplane.agent.targets import Target, plan
from controlplane.agent.ticket import RefusedError, Request, Ticket
from controlplane.policy.document import Breaker

REQUEST_ID_HEADER: Final = "x-request-id"

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
    """One call on its way, attempt by attempt: what both transports do, but for the waiting."""

    def __init__(
        self,
        gate: Gate,
        request: httpx.Request,
        call: HttpCall,
        *,
        known: Mapping[str, str],
        targets: Mapping[str, Target],
    ) -> None:
        self._gate = gate
        self._request = request
        self._call = call
        self._known = known
        self._targets = targets
        self._ticket = Ticket()
        self._hold_id: str | None = None
        self._left: list[str] = []
        self._target: str | None = None
        self._began = 0.0
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
        asked = to_request(self._call, facts, request_id=self.request_id)
        return msgspec.structs.replace(asked, deployments=self._named)

    def _named(self, model: str, names: Collection[str]) -> tuple[tuple[str, ...], ...]:
        return tuple(
            self._names(target, model) for name, target in self._targets.items() if name in names
        )

    def ask_again(self) -> Request:
        """Return what the agent is asked for the next attempt: at its own target's price."""
        asked, target = self.ask(), self._targets[self._left[0]]
        model = target.model or self._ticket.model or self._call.model
        sent = changed_body(self._call, self._ticket) or self._call.body
        return msgspec.structs.replace(
            asked,
            bound=bound_request(self._call.operation, sent, sent_fields=sent),
            facts={**asked.facts, "model": model},
            candidates=lambda named: (self._names(target, named),),
        )

    def _names(self, target: Target, model: str) -> tuple[str, ...]:
        return rate_names(target.provider or self._call.provider, target.model or model)

    def admitted(self, ticket: Ticket) -> None:
        """Take the agent's answer; the first attempt may go."""
        self._ticket, self._hold_id = ticket, ticket.hold_id
        at = seconds_since_boot()
        self._left = plan(
            ticket,
            self._targets,
            deployments=self._gate.deployments,
            request=self.request_id,
            at=at,
        )

    def admitted_again(self, ticket: Ticket) -> None:
        """Take the agent's answer for one more attempt."""
        self._hold_id = ticket.hold_id

    def attempt(self) -> httpx.Request:
        """Return the request as it is to be sent now."""
        ticket, request = self._ticket, self._request
        self._target = self._left.pop(0) if self._left else None
        self._began = seconds_since_boot()
        headers = request.headers.copy()
        url, body = request.url, changed_body(self._call, ticket)
        headers.update(ticket.headers)
        extensions = dict(request.extensions)
        if self._target is not None:
            self._gate.deployments.sent(self._target, self._began)
            target = self._targets[self._target]
            url = type(url)(target.url_of(str(url)))
            headers.update({"host": url.netloc.decode(), **target.headers})
            if target.model:
                body = {**(body or self._call.body), "model": target.model}
            extensions = self._hurried(extensions)
        if self._hold_id and "gzip" in headers.get("accept-encoding", ""):
            headers["accept-encoding"] = "gzip"  # what `Meter` can read as it passes
        elif self._hold_id:
            headers["accept-encoding"] = "identity"
        headers.pop("content-length", None)
        headers.pop("transfer-encoding", None)
        return type(request)(
            request.method,
            url,
            headers=headers,
            content=request.content if body is None else msgspec.json.encode(body),
            extensions=extensions,
        )

    def _hurried(self, extensions: dict[str, Any]) -> dict[str, Any]:
        """Let an attempt wait no longer for its answer than the rule says, if another may follow."""
        rule = self._ticket.failover
        if rule is None or rule.timeout_ms is None or not self._left:
            return extensions
        timeout = dict(extensions.get("timeout") or {})
        most = rule.timeout_ms / 1_000
        for part in ("read", "connect"):
            timeout[part] = min(most, timeout.get(part) or most)
        return {**extensions, "timeout": timeout}

    def refused(self, refused: RefusedError) -> httpx.Response:
        """Return the answer that the client above reads as the provider's own 429."""
        self._release(Ending(ended_at=now(), usage={}, status="error", error_type="rate_limited"))
        response: httpx.Response = library_of(self._request).Response(
            refused.refusal.status,
            headers=refusal_headers(refused),
            content=refusal_body(refused, request_id=self.request_id),
            request=self._request,
        )
        return response

    def failed(self, wrong: BaseException) -> bool:
        """Settle an attempt that was not answered; whether another one follows."""
        library = library_of(self._request)
        never_sent = isinstance(
            wrong, library.ConnectError | library.ConnectTimeout | library.PoolTimeout
        )
        is_lost = isinstance(wrong, library.NetworkError | library.RemoteProtocolError)
        kind = "timeout" if isinstance(wrong, library.TimeoutException) else "other"
        if not isinstance(wrong, Exception):
            kind = "cancelled"
            if self._target is not None:
                self._gate.deployments.left(self._target)
        ending = broken(now(), was_sent=not never_sent, kind=kind)
        self._settle(ending)
        follows = isinstance(wrong, Exception) and self._goes_on(
            None, "connect" if never_sent or is_lost else kind
        )
        if not follows:
            self._release(ending)
        return follows

    def left(self) -> None:
        """The sender has gone, or what it sent can not be: nothing of it stays counted."""
        ending = broken(now(), was_sent=False, kind="cancelled")
        self._settle(ending)
        self._release(ending)

    def leaves(self, response: httpx.Response) -> bool:
        """Whether this answer is one to go on from; its attempt is then settled."""
        if not self._goes_on(response.status_code, None):
            return False
        reader = UsageReader(is_events=False)
        self._settle(ending_of(response.status_code, reader, ended_at=now(), is_whole=True))
        return True

    def _goes_on(self, status: int | None, kind: str | None) -> bool:
        rule = self._ticket.failover
        if self._target is None:
            return False
        at = seconds_since_boot()
        on = rule.on if rule else ("429", "5xx", "timeout", "connect")
        is_bad = is_failure(on, status=status, kind=kind)
        breaker = rule.breaker if rule else Breaker()
        outcome = Outcome(at, is_failure=is_bad, latency_seconds=at - self._began)
        self._gate.deployments.ended(self._target, breaker, outcome)
        return is_bad and bool(self._left)

    def _settle(self, ending: Ending) -> None:
        if self._hold_id:
            self._gate.settle(self._hold_id, ending)
        self._hold_id = None

    def _release(self, ending: Ending) -> None:
        if self._ticket.slot:
            self._gate.release(self._ticket.slot, ending)

    def _end(self, ending: Ending) -> None:
        self._settle(ending)
        self._release(ending)

    def answered(self, response: httpx.Response) -> Meter | None:
        """Return what reads the answer's bytes; None when nothing waits for its usage."""
        response.headers[POLICY_HEADER] = self._gate.policy
        if not (self._hold_id or self._ticket.slot):
            return None
        is_events = response.headers.get("content-type", "").startswith("text/event-stream")
        if response.is_closed:  # a cache's answer, a test's: nobody will read it again
            self._end(_read_at_once(response, UsageReader(is_events=is_events)))
            return None
        added = bool(self._ticket.hold_id) and not wants_usage(self._call)
        hides = is_events and added and self._call.operation in {"chat", "text_completion"}
        if hides:
            response.headers.pop("content-length", None)
        reader = UsageReader(is_events=is_events, hide_usage=hides)
        return Meter(response, reader, settle=self._end)


def _read_at_once(response: httpx.Response, reader: UsageReader) -> Ending:
    reader.feed(response.content)
    reader.end()
    return ending_of(response.status_code, reader, ended_at=now(), is_whole=True)
