"""The network of a simulated run: it delays, loses, repeats and reorders what it carries."""

import asyncio
import random
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import httpx
from typing_extensions import override

from controlplane.simulate.budget_schedule import Net
from controlplane.simulate.budget_server import Server

LATE_SECONDS: Final = 12.0


class Wire(httpx.AsyncClient):
    """An HTTP client that hands requests to its transport as they are.

    Cookies, redirects, compression and addresses are nothing that a simulated server knows; to
    look for them takes a quarter of a run.
    """

    @override
    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
        return httpx.Request(
            method,
            _url(str(url)),
            params=options["params"],
            headers=options["headers"],
            content=options["content"],
            extensions={"timeout": httpx.Timeout(options["timeout"]).as_dict()},
        )

    @override
    async def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
        response = await self._transport.handle_async_request(request)
        response.request = request
        return response


@cache
def _url(path: str) -> httpx.URL:
    return httpx.URL(f"http://server{path}")


class Network(httpx.AsyncBaseTransport):
    """The way from one agent to the server and back."""

    def __init__(
        self, server: Server, net: Net, chance: random.Random, *, clock: Callable[[], float]
    ) -> None:
        self._server = server
        self._net = net
        self._chance = chance
        self._time = clock
        self.cut_until = 0.0

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[httpx.Response] = loop.create_future()
        copies = 2 if self._chance.random() < self._net.duplicate_ratio else 1
        for _ in range(copies):
            if self._chance.random() >= self._net.loss_ratio:
                loop.call_later(self._delay(), self._arrive, request, answer)
        seconds = request.extensions["timeout"]["read"]
        try:
            return await asyncio.wait_for(answer, seconds)
        except TimeoutError:
            raise httpx.ReadTimeout("no answer", request=request) from None

    def _delay(self) -> float:
        if self._chance.random() < self._net.late_ratio:
            return self._chance.uniform(0.0, LATE_SECONDS)
        return self._net.median_seconds * self._chance.lognormvariate(0.0, 0.5)

    def _arrive(self, request: httpx.Request, answer: "asyncio.Future[httpx.Response]") -> None:
        now = self._time()
        if now < self.cut_until:
            return
        if now < self._server.down_until:
            if not answer.done():
                answer.set_exception(httpx.ConnectError("refused", request=request))
            return
        if request.url.path.endswith("/sync"):
            self._return(self._server.sync(request.content), answer)
            return
        if request.url.path.endswith("/stream"):
            self._return(httpx.Response(404, request=request), answer)  # agents poll
            return
        known = request.headers.get("If-None-Match")
        wait = float(request.url.params.get("wait", "0"))
        poll = asyncio.ensure_future(self._server.policy(known, wait))
        poll.add_done_callback(
            lambda done: None if done.cancelled() else self._return(done.result(), answer)
        )

    def _return(self, response: httpx.Response, answer: "asyncio.Future[httpx.Response]") -> None:
        if self._time() < max(self.cut_until, self._server.down_until):
            return
        if self._chance.random() < self._net.loss_ratio:
            return
        loop = asyncio.get_running_loop()
        loop.call_later(
            self._delay(), lambda: None if answer.done() else answer.set_result(response)
        )
