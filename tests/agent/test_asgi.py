"""The middleware and the decorator, around applications and functions that answer model calls."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from controlplane.agent.asgi import ControlplaneMiddleware
from controlplane.agent.embedded import EmbeddedAgent
from controlplane.agent.governed import governed
from controlplane.agent.main import build_agent
from controlplane.agent.ticket import RefusedError

CARD = {"self-hosted/m": {"input_nusd": 10**9, "output_nusd": 10**10}}
USAGE = {"prompt_tokens": 5, "completion_tokens": 7}
COST = 5 * 1_000 + 7 * 10_000
SAY = [{"role": "user", "content": "hello"}]


@pytest.fixture
def gate(control_plane: Any, make_settings: Callable[..., Any]) -> Iterator[EmbeddedAgent]:
    rules = [
        {"action": "cap", "id": "c", "max_tokens": 9},
        {"action": "deny", "id": "d", "match": {"team": ["x"]}},
    ]
    control_plane.publish(
        rate_card=CARD, rules=rules, dimension_map={"tenant": "user", "team": "header.x-team"}
    )
    embedded = EmbeddedAgent(build_agent(make_settings(control_plane)))
    yield embedded
    embedded.close()


async def _chat(request: Request) -> Response:
    body = await request.json()
    if body.get("fail"):
        return JSONResponse({"error": {"message": "no"}}, 500)
    if not body.get("stream"):
        return JSONResponse({"id": "r1", "asked": body["max_tokens"], "usage": USAGE})

    async def chunks() -> AsyncIterator[str]:
        said: list[dict[str, Any]] = [{"choices": [{"delta": {}}]}]
        for chunk in [*said, {"choices": [], "usage": USAGE}]:
            yield f"data: {json.dumps({'id': 'r2', **chunk})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(chunks(), media_type="text/event-stream")


async def _hello(request: Request) -> Response:
    return JSONResponse({"path": request.url.path})


def _ask(
    gate: EmbeddedAgent, *orders: dict[str, Any], path: str = "/v1/chat/completions"
) -> list[httpx.Response]:
    routes = [Route("/v1/chat/completions", _chat, methods=["POST"]), Route("/hello", _hello)]
    app = ControlplaneMiddleware(Starlette(routes=routes), gate)

    async def main() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            if not orders:
                return [await client.get(path)]
            return [
                await client.post(path, json=order, headers=order.pop("headers", {}))
                for order in orders
            ]

    return asyncio.run(main())


def _settled(gate: EmbeddedAgent, control_plane: Any) -> list[int]:
    gate.close()  # says everything it owes
    settled: dict[str, int] = control_plane.state()["settled"]
    return list(settled.values())


def test_answers_streams_and_errors_are_settled(gate: EmbeddedAgent, control_plane: Any) -> None:
    order = {"model": "m", "messages": SAY, "user": "a", "max_tokens": 50}
    whole, stream, failed = _ask(
        gate, order, {**order, "stream": True}, {**order, "seed": 1, "model": "m", "fail": False}
    )
    assert 9 == whole.json()["asked"]  # the application sees what was admitted
    assert gate.policy == whole.headers["x-controlplane-policy"]
    assert "usage" not in stream.text
    assert stream.text.endswith("data: [DONE]\n\n")
    assert 429 == failed.status_code  # `fail` is a field that nobody knows: no bound
    assert [COST, COST] == _settled(gate, control_plane)


def test_a_refused_request_does_not_reach_the_application(gate: EmbeddedAgent) -> None:
    order = {"model": "m", "messages": SAY, "user": "b", "headers": {"x-team": "x"}}
    (refused,) = _ask(gate, order)
    assert (429, "d") == (refused.status_code, refused.json()["error"]["rule"])


def test_a_refusal_names_the_budget_at_every_front(gate: EmbeddedAgent, control_plane: Any) -> None:
    control_plane.publish(rate_card=CARD, budgets=[control_plane.budget(limit_nusd=5)])
    deadline = time.monotonic() + 60
    while gate.policy != "1.2":
        assert time.monotonic() < deadline
        gate.ready()
        time.sleep(0.02)
    order = {"model": "m", "messages": SAY, "user": "a", "max_tokens": 9}
    (answer,) = _ask(gate, {**order, "headers": {"x-request-id": "mine"}})
    assert (429, "mine") == (answer.status_code, answer.json()["error"]["request_id"])

    def create(**request: Any) -> Any:
        raise AssertionError(request)

    decorated = governed(create, provider="self-hosted", gate=gate)
    with pytest.raises(RefusedError) as refused:
        decorated(**order)
    assert str(refused.value.body["request_id"]).startswith("req_")
    told: Any = refused.value.body
    for body in (answer.json()["error"], told):
        budget = body["budget"]
        assert "budget_exhausted" == body["code"]
        assert ("b1", "team a", "ana", "0.000000005", "0") == tuple(
            budget[key] for key in ("id", "name", "owner", "limit_usd", "spent_usd")
        )
        assert "2036-01-01T00:00:00+00:00" == budget["resets_at"]


async def _raw(gate: EmbeddedAgent, app: Any, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """Send what a server would say of a request; return what the middleware answers."""
    left, answered = list(messages), []

    async def receive() -> Any:
        return left.pop(0)

    async def send(message: Any) -> None:
        answered.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    await ControlplaneMiddleware(app, gate)(scope, receive, send)
    return answered


def _body(**more: Any) -> dict[str, Any]:
    order = {"model": "m", "messages": SAY, "user": "a", "max_tokens": 50}
    return {"type": "http.request", "body": json.dumps(order).encode(), **more}


def test_a_request_that_breaks_off_reaches_nobody(gate: EmbeddedAgent) -> None:
    async def app(*_: Any) -> None:
        pytest.fail("the application saw half of a request")

    gone = {"type": "http.disconnect"}
    assert [] == asyncio.run(_raw(gate, app, _body(more_body=True), gone))
    assert (0, 0) == (gate.agent.holder.tally.admitted, gate.agent.holder.tally.refused)


@pytest.mark.parametrize(
    ("wrong", "kind"), [(RuntimeError, "settled"), (asyncio.CancelledError, "unproven")]
)
def test_an_application_that_fails_is_free_and_one_that_is_canceled_is_not(
    gate: EmbeddedAgent, control_plane: Any, wrong: type[BaseException], kind: str
) -> None:
    """Its client left before the answer began: by then the model may have written all of it."""

    async def app(*_: Any) -> None:
        raise wrong

    with pytest.raises(wrong):
        asyncio.run(_raw(gate, app, _body()))
    gate.close()  # says everything it owes
    state = control_plane.state()
    assert 1 == len(state[kind])
    assert [0] == list(state[kind].values()) or kind == "unproven"
    assert not gate.agent.holder.queue.unsettled


def test_other_paths_pass(gate: EmbeddedAgent) -> None:
    (answer,) = _ask(gate, path="/hello")
    assert {"path": "/hello"} == answer.json()


def test_the_decorator_admits_changes_and_settles(gate: EmbeddedAgent, control_plane: Any) -> None:
    asked: list[int] = []

    def create(**request: Any) -> Any:
        asked.append(request["max_tokens"])
        return SimpleNamespace(id="r", usage=USAGE)

    async def create_stream(**request: Any) -> Any:
        asked.append(request["max_tokens"])

        async def items() -> AsyncIterator[Any]:
            yield {"choices": [{}]}
            yield {"choices": [], "usage": USAGE}

        return items()

    def fails(**request: Any) -> Any:
        raise ConnectionError(request["model"])

    options: dict[str, Any] = {"provider": "self-hosted", "gate": gate, "known": {"tenant": "a"}}
    order: dict[str, Any] = {"model": "m", "messages": SAY, "max_tokens": 50}
    assert "r" == governed(create, **options)(**order).id

    async def main() -> None:
        stream = await governed(create_stream, **options)(**order, stream=True)
        assert 2 == len([item async for item in stream])

    asyncio.run(main())
    with pytest.raises(ConnectionError):
        governed(fails, **options)(**order)
    with pytest.raises(RefusedError):
        governed(create, **{**options, "known": {"team": "x"}})(**order)
    assert [9, 9] == asked
    assert [COST, COST] == _settled(gate, control_plane)
    assert 1 == len(control_plane.state()["unproven"])


def test_a_decorated_stream_that_nobody_reads_is_settled_when_it_is_dropped(
    gate: EmbeddedAgent, control_plane: Any
) -> None:
    options: dict[str, Any] = {"provider": "self-hosted", "gate": gate, "known": {"tenant": "a"}}
    order: dict[str, Any] = {"model": "m", "messages": SAY, "max_tokens": 50, "stream": True}

    def create(**_: Any) -> Any:
        return iter([{"choices": [], "usage": USAGE}])

    async def create_async(**_: Any) -> AsyncIterator[Any]:
        async def items() -> AsyncIterator[Any]:
            yield {"choices": [], "usage": USAGE}

        return items()

    async def main() -> None:
        stream: Any = await governed(create_async, **options)(**order)
        await stream.aclose()

    governed(create, **options)(**order)  # dropped here
    governed(create, **options)(**order).close()
    asyncio.run(main())
    assert {} == gate.agent.holder.queue.open_nusd()
    gate.close()  # says everything it owes
    assert 3 == len(control_plane.state()["unproven"])  # each may have been billed


@pytest.mark.parametrize(
    ("status", "extensions", "is_free"),
    [
        (400, {}, True),
        (429, {}, True),
        (408, {}, False),
        (499, {"http_version": b"HTTP/1.1"}, False),
        (500, {"http_version": b"HTTP/1.1"}, True),
        (504, {"http_version": b"HTTP/1.1"}, False),
        (500, {}, False),  # what LiteLLM makes of a connection that broke
        (200, {"http_version": b"HTTP/1.1"}, False),
    ],
)
def test_what_a_decorated_function_raises_is_free_by_the_rule_of_every_front(
    gate: EmbeddedAgent,
    control_plane: Any,
    *,
    status: int,
    extensions: dict[str, Any],
    is_free: bool,
) -> None:
    class StatusError(Exception):
        status_code = status
        response = httpx.Response(status, extensions=extensions)

    def create(**_: Any) -> Any:
        raise StatusError

    order: dict[str, Any] = {"model": "m", "messages": SAY, "max_tokens": 50}
    with pytest.raises(StatusError):
        governed(create, provider="self-hosted", gate=gate, known={"tenant": "a"})(**order)
    gate.close()  # says everything it owes
    state = control_plane.state()
    settled, unproven = list(state["settled"].values()), list(state["unproven"].values())
    assert ([0], 0) == (settled, len(unproven)) if is_free else ([], 1) == (settled, len(unproven))
