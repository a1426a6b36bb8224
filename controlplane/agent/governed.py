"""A decorator for functions that make model calls: its keyword arguments are the request.

    create = governed(client.chat.completions.create, provider="openai", known={"team": "search"})
    answer = create(model="gpt-4o", messages=[...], max_tokens=200)

Raises `RefusedError` instead of calling. Works on functions and coroutine functions; a stream is
settled when it has been read, or when it is dropped.
"""

import functools
import inspect
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, TypeVar

from controlplane.agent.embedded import Gate, default_gate
from controlplane.agent.exchange import current_dimensions
from controlplane.agent.http_request import HttpCall, changed_body, facts_of, to_request
from controlplane.agent.item_reader import ItemReader
from controlplane.agent.meter import now
from controlplane.agent.outcome import CLIENT_ERRORS, error_type, is_free
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import Request, Ticket
from controlplane.agent.usage import usage_buckets

_Call = TypeVar("_Call", bound=Callable[..., Any])


def governed(
    function: _Call,
    *,
    provider: str,
    operation: str = "chat",
    gate: Gate | None = None,
    known: Mapping[str, str] | None = None,
) -> _Call:
    """Return the function behind admission.

    Args:
        function: takes the request as keyword arguments, returns an object with `usage`, or a
            stream whose last items have it.
        provider: `gen_ai.provider.name` of who bills.
        operation: chat, text_completion, messages, responses or embeddings.
        gate: the agent; default is this process's own, set up by the environment.
        known: dimensions of every call.
    """
    front = _Governed(gate, provider, operation, known=known or {})

    @functools.wraps(function)
    async def call_async(**request: Any) -> Any:
        await front.gate.ready_async()
        call = front.call(request)
        ticket = await front.gate.admit(front.ask(call))
        end = _Ending(front.gate, ticket)
        try:
            answer = await function(**(changed_body(call, ticket) or request))
        except BaseException as wrong:
            end.failed(wrong)
            raise
        return await end.stream_async(answer) if call.is_stream else end.answered(answer)

    @functools.wraps(function)
    def call(**request: Any) -> Any:
        front.gate.ready()
        call = front.call(request)
        ticket = front.gate.admit_blocking(front.ask(call))
        end = _Ending(front.gate, ticket)
        try:
            answer = function(**(changed_body(call, ticket) or request))
        except BaseException as wrong:
            end.failed(wrong)
            raise
        return end.stream(answer) if call.is_stream else end.answered(answer)

    return call_async if inspect.iscoroutinefunction(function) else call  # type: ignore[return-value]  # the same signature, admitted


class _Governed:
    def __init__(
        self, gate: Gate | None, provider: str, operation: str, *, known: Mapping[str, str]
    ) -> None:
        self._gate = gate
        self._provider = provider
        self._operation = operation
        self._known = known

    @property
    def gate(self) -> Gate:
        """The agent; made at the first call, not when the module is imported."""
        self._gate = self._gate or default_gate()
        return self._gate

    def call(self, request: dict[str, Any]) -> HttpCall:
        return HttpCall(
            operation=self._operation,
            provider=self._provider,
            model=str(request.get("model", "")),
            body=request,
            is_stream=request.get("stream") is True,
        )

    def ask(self, call: HttpCall) -> Request:
        known = {**self._known, **current_dimensions()}
        headers = {
            str(name).lower(): str(value)
            for name, value in (_mapping(call.body.get("extra_headers"))).items()
        }
        facts = facts_of(
            call, headers, self.gate.dimension_map, tenant=self.gate.tenant, known=known
        )
        body = {name: value for name, value in call.body.items() if name not in _CLIENT_FIELDS}
        asked = HttpCall(
            operation=call.operation, provider=call.provider, model=call.model, body=body
        )
        return to_request(asked, facts, request_id=f"req_{secrets.token_hex(12)}")


_CLIENT_FIELDS = frozenset({"extra_headers", "extra_query", "timeout"})
"""Arguments that steer the client and never reach the model."""


class _Ending:
    """Settles one call, once."""

    def __init__(self, gate: Gate, ticket: Ticket) -> None:
        self._gate = gate
        self._ticket: Ticket | None = ticket

    def answered(self, answer: Any) -> Any:
        self._end(_usage(answer), response_id=getattr(answer, "id", None))
        return answer

    def failed(self, wrong: BaseException) -> None:
        said = getattr(wrong, "status_code", None)
        status = said if isinstance(said, int) else None
        was_free = status is not None and is_free(status) and _is_answer(wrong, status)
        self._tell(
            Ending(
                ended_at=now(),
                usage={} if was_free else None,
                status="error",
                error_type=error_type(status),
                http_status=status,
            )
        )

    def stream(self, items: Any) -> Iterator[Any]:
        passing = self._passing(items)
        next(passing)  # begun: it now settles too when it is dropped before its first item
        return passing

    def _passing(self, items: Any) -> Iterator[Any]:
        usage: dict[str, int] | None = None
        is_whole, reader = False, ItemReader()
        try:
            yield
            for item in items:
                reader.note(item)
                usage = _usage(item) or usage
                yield item
            is_whole = True
        finally:
            if is_whole:
                self._end(usage)
            else:
                self._tell(reader.left(now()))

    async def stream_async(self, items: Any) -> AsyncIterator[Any]:
        passing = self._passing_async(items)
        await anext(passing)  # as above
        return passing

    async def _passing_async(self, items: Any) -> AsyncIterator[Any]:
        usage: dict[str, int] | None = None
        is_whole, reader = False, ItemReader()
        try:
            yield
            async for item in items:
                reader.note(item)
                usage = _usage(item) or usage
                yield item
            is_whole = True
        finally:
            if is_whole:
                self._end(usage)
            else:
                self._tell(reader.left(now()))

    def _end(self, usage: dict[str, int] | None, *, response_id: object = None) -> None:
        ending = Ending(
            ended_at=now(),
            usage=usage,
            response_id=response_id if isinstance(response_id, str) else None,
        )
        self._tell(ending)

    def _tell(self, ending: Ending) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            return
        if ticket.hold_id:
            self._gate.settle(ticket.hold_id, ending)
        if ticket.slot:
            self._gate.release(ticket.slot, ending)


def _is_answer(wrong: BaseException, status: int) -> bool:
    """Whether the upstream said this status; some clients give it to broken connections too.

    What came over a connection tells the version of HTTP; a response that a client made up does not.
    """
    extensions = getattr(getattr(wrong, "response", None), "extensions", None)
    return status in CLIENT_ERRORS or "http_version" in _mapping(extensions)


def _usage(answer: Any) -> dict[str, int] | None:
    """Read `usage` of an answer, or of the answer inside an event, as an object or a mapping."""
    inner = getattr(answer, "response", None) or answer
    found = inner.get("usage") if isinstance(inner, Mapping) else getattr(inner, "usage", None)
    dump = getattr(found, "model_dump", None)
    said = dump(exclude_none=True) if callable(dump) else found
    return usage_buckets(said) if isinstance(said, Mapping) else None


def _mapping(value: object) -> Mapping[object, object]:
    return value if isinstance(value, Mapping) else {}
