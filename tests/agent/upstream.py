"""An upstream in the process: it answers every operation, and keeps what was sent and held."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
from typing_extensions import override

from controlplane.agent.embedded import EmbeddedAgent
from controlplane.agent.exchange import library_of

READ, WROTE = 11, 17
"""Tokens of every answer of the upstream."""
CHAT = {"prompt_tokens": READ, "completion_tokens": WROTE, "total_tokens": READ + WROTE}
OTHER = {"input_tokens": READ, "output_tokens": WROTE}


class Upstream(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers in process; keeps what was sent, and what was held at that moment."""

    def __init__(self) -> None:
        self.gate: EmbeddedAgent | None = None
        self.sent: list[dict[str, Any]] = []
        self.held: list[int] = []
        self.hosts: list[str] = []
        self.statuses: list[int] = []
        """Of the next answers; then 200."""
        self.failures: list[type[Exception]] = []
        self.says_usage = True
        self.hangs: asyncio.Event | None = None

    def _seen(self, request: Any) -> None:
        self.sent.append(json.loads(request.content))
        self.hosts.append(request.url.host)
        assert self.gate
        self.held.append(self.gate.agent.holder.queue.open_nusd().get("b1", 0))
        if self.failures:
            wrong = self.failures.pop(0)
            raise getattr(library_of(request), wrong.__name__)("lost")

    @override
    def handle_request(self, request: Any) -> Any:
        self._seen(request)
        return self._answer(request)

    @override
    async def handle_async_request(self, request: Any) -> Any:
        self._seen(request)
        if self.hangs:
            self.hangs.set()
            await asyncio.Event().wait()
        return self._answer(request)

    def _answer(self, request: Any) -> Any:
        response = library_of(request).Response
        status = self.statuses.pop(0) if self.statuses else 200
        body = self.sent[-1]
        if status != 200:
            return response(
                status, json={"error": {"message": "no"}}, headers={"location": str(request.url)}
            )
        kind = request.url.path.rpartition("/")[2]
        if not body.get("stream"):
            return response(200, json=_whole(kind, body))
        events = _events(kind, asked=self.says_usage and bool(body.get("stream_options")))
        return response(
            200, headers={"content-type": "text/event-stream"}, stream=_stream(request, events)
        )


def _stream(request: Any, events: list[str]) -> Any:
    library = library_of(request)

    class Events(library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc,name-defined]
        def __iter__(self) -> Iterator[bytes]:
            yield from (event.encode() for event in events)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for event in events:
                yield event.encode()

    return Events()


def _whole(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    base = {"id": "r1", "model": body.get("model"), "created": 1, "usage": CHAT}
    if kind == "messages":
        said: dict[str, Any] = {
            "type": "message",
            "role": "assistant",
            "content": [],
            "stop_reason": "end_turn",
        }
        return {**base, **said, "usage": OTHER}
    if kind == "responses":
        said = {"object": "response", "created_at": 1, "output": [], "tools": []}
        return {**base, **said, "parallel_tool_calls": True, "tool_choice": "auto", "usage": OTHER}
    if kind == "embeddings":
        vectors = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        usage = {"prompt_tokens": READ, "total_tokens": READ}
        return {"object": "list", "data": vectors, "model": "m", "usage": usage}
    return {**base, "object": "chat.completion", "choices": []}


def _events(kind: str, *, asked: bool) -> list[str]:
    if kind == "messages":
        begun = {
            **_whole(kind, {"model": "m"}),
            "usage": {"input_tokens": READ, "output_tokens": 1},
        }
        delta = {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": WROTE}}
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": begun},
            {"type": "message_delta", **delta},
            {"type": "message_stop"},
        ]
        return [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events]
    if kind == "responses":
        whole = _whole(kind, {"model": "m"})
        events = [
            {"type": "response.created", "response": {**whole, "usage": None}},
            {"type": "response.completed", "response": whole},
        ]
        return [
            f"event: {one['type']}\ndata: {json.dumps({**one, 'sequence_number': 1})}\n\n"
            for one in events
        ]
    base = {"id": "r1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None, "text": "x"}
    chunks: list[dict[str, Any]] = [{**base, "choices": [choice]}] * 3
    if asked:
        chunks.append({**base, "choices": [], "usage": CHAT})
    # `: late` after the marker: clients hang up before it
    return [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + [
        "data: [DONE]\n\n",
        ": late\n\n",
    ]
