"""A transport for `httpx` and `httpx2` clients, so for those of OpenAI, Anthropic and many others.

    openai.OpenAI(http_client=httpx.Client(transport=ControlplaneTransport()))

A call is admitted before it is sent and settled from the usage in its answer; each retry of the
client above is a call of its own, because each may be billed (algorithms L14).
"""

import functools
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx

from controlplane.agent.embedded import Gate, default_gate
from controlplane.agent.exchange import Exchange, library_of
from controlplane.agent.http_request import HttpCall, read_call
from controlplane.agent.meter import Meter
from controlplane.agent.targets import Target
from controlplane.agent.ticket import RefusedError


class _Body:
    """An answer's bytes as they pass the meter; `httpx` and `httpx2` each want their own base."""

    def __init__(self, inner: Any, meter: Meter) -> None:
        self._inner = inner
        self._meter = meter

    def __iter__(self) -> Iterator[bytes]:
        for raw in self._inner:
            yield from self._meter.feed(raw)
        yield self._meter.end()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for raw in self._inner:
            for passed in self._meter.feed(raw):
                yield passed
        yield self._meter.end()

    def close(self) -> None:
        self._meter.close()
        self._inner.close()

    async def aclose(self) -> None:
        self._meter.close()
        await self._inner.aclose()


@functools.cache
def _body_type(base: type) -> type:
    return type("MeteredStream", (_Body, base), {})


class ControlplaneTransport(httpx.BaseTransport):
    """Admit, send, settle, for `httpx.Client`.

    Args:
        gate: the agent; default is this process's own, set up by the environment.
        inner: what sends; default the library's own `HTTPTransport()`.
        known: dimensions of every call of this client, over what a request says.
        provider: `gen_ai.provider.name`, where the host's name does not tell it.
        targets: deployments by the names that routes and failovers of the policy give them.
    """

    def __init__(
        self,
        gate: Gate | None = None,
        *,
        inner: httpx.BaseTransport | None = None,
        known: Mapping[str, str] | None = None,
        provider: str | None = None,
        targets: Mapping[str, Target] | None = None,
    ) -> None:
        self._gate = gate or default_gate()
        self._targets = targets or {}
        self._inner = inner
        self._lock = threading.Lock()
        self._known = known or {}
        self._provider = provider

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; a refusal is an answer, never an exception."""
        call = _read(request, request.read(), self._provider)
        if call is None:
            return self._send(request)
        self._gate.ready()
        exchange = Exchange(self._gate, request, call, known=self._known, targets=self._targets)
        try:
            exchange.admitted(self._gate.admit_blocking(exchange.ask()))
            while (response := self._attempt(exchange)) is None:
                exchange.admitted_again(self._gate.admit_again_blocking(exchange.ask_again()))
        except RefusedError as refused:
            return exchange.refused(refused)
        except BaseException:
            exchange.left()
            raise
        meter = exchange.answered(response)
        if meter:
            base = library_of(request).SyncByteStream
            response.stream = _body_type(base)(response.stream, meter)
        return response

    def _attempt(self, exchange: Exchange) -> httpx.Response | None:
        """Send once; None when it failed and another attempt follows."""
        try:
            response = self._send(exchange.attempt())
        except BaseException as wrong:
            if exchange.failed(wrong):
                return None
            raise
        if exchange.leaves(response):
            response.close()
            return None
        return response

    def _send(self, request: httpx.Request) -> httpx.Response:
        with self._lock:  # a client is shared by threads
            if self._inner is None:
                self._inner = library_of(request).HTTPTransport()
        return self._inner.handle_request(request)

    def close(self) -> None:
        """Close what sends; the agent serves the whole process and stays."""
        if self._inner is not None:
            self._inner.close()


class AsyncControlplaneTransport(httpx.AsyncBaseTransport):
    """The same for `httpx.AsyncClient`."""

    def __init__(
        self,
        gate: Gate | None = None,
        *,
        inner: httpx.AsyncBaseTransport | None = None,
        known: Mapping[str, str] | None = None,
        provider: str | None = None,
        targets: Mapping[str, Target] | None = None,
    ) -> None:
        self._gate = gate or default_gate()
        self._targets = targets or {}
        self._inner = inner
        self._known = known or {}
        self._provider = provider

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; a refusal is an answer, never an exception."""
        call = _read(request, await request.aread(), self._provider)
        if call is None:
            return await self._send(request)
        await self._gate.ready_async()
        exchange = Exchange(self._gate, request, call, known=self._known, targets=self._targets)
        try:
            exchange.admitted(await self._gate.admit(exchange.ask()))
            while (response := await self._attempt(exchange)) is None:
                exchange.admitted_again(await self._gate.admit_again(exchange.ask_again()))
        except RefusedError as refused:
            return exchange.refused(refused)
        except BaseException:
            exchange.left()
            raise
        meter = exchange.answered(response)
        if meter:
            base = library_of(request).AsyncByteStream
            response.stream = _body_type(base)(response.stream, meter)
        return response

    async def _attempt(self, exchange: Exchange) -> httpx.Response | None:
        """Send once; None when it failed and another attempt follows."""
        try:
            response = await self._send(exchange.attempt())
        except BaseException as wrong:
            if exchange.failed(wrong):
                return None
            raise
        if exchange.leaves(response):
            await response.aclose()
            return None
        return response

    async def _send(self, request: httpx.Request) -> httpx.Response:
        if self._inner is None:
            self._inner = library_of(request).AsyncHTTPTransport()
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close what sends; the agent serves the whole process and stays."""
        if self._inner is not None:
            await self._inner.aclose()


def _read(request: httpx.Request, content: bytes, provider: str | None) -> HttpCall | None:
    url = request.url
    return read_call(request.method, url.host, url.path, content=content, provider=provider)
