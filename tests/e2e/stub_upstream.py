"""An upstream that speaks the APIs of OpenAI and Anthropic and keeps the exact bill.

Run as a program, with the seconds that an answer takes if they are to be fixed: it prints its port and ends when its stdin closes. Output lengths are drawn at
random up to the request's limit; every completion is logged with what was asked and what was
billed (`GET /_log`); `PUT /_latency` fixes the seconds that an answer takes. Model names choose behaviour: `…-flaky` answers 500 to every other request,
`…-busy` 429 to every one, `…-hang` never answers, `…-fixed` bills 10 tokens in and 10 out, and
`…-cut` breaks a stream off before its end, `…-drop` bills and closes the connection without an
answer; one with `-slow` in it pauses half a second between the
parts of a stream. An answer is compressed for a client that takes gzip.
"""

import contextlib
import gzip
import json
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

LATENCY_SECONDS = (0.05, 0.25) if len(sys.argv) < 2 else (float(sys.argv[1]),) * 2
DEFAULT_LIMIT = 4096


class Stub(BaseHTTPRequestHandler):
    """Chat completions, streamed or not, and the log."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # heads and bodies are written apart
    lock: ClassVar[threading.Lock] = threading.Lock()
    log: ClassVar[list[dict[str, Any]]] = []
    tries: ClassVar[dict[str, int]] = {}
    draw: ClassVar[random.Random] = random.Random(7)
    latency_seconds: ClassVar[tuple[float, float]] = LATENCY_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # type: ignore[explicit-override]  # noqa: A002 - typing.override needs 3.12; the base names it so
        """Stay silent."""

    def _answer(self, status: int, body: object, content_type: str = "application/json") -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            data = gzip.compress(data)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.path != "/_log":
            self._answer(200, {})
            return
        with self.lock:
            self._answer(200, list(self.log))

    def do_PUT(self) -> None:
        seconds = float(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        with self.lock:
            type(self).latency_seconds = (seconds, seconds)
        self._answer(200, {})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = str(request.get("model", ""))
        with self.lock:
            count = self.tries[model] = self.tries.get(model, 0) + 1
            latency = self.draw.uniform(*self.latency_seconds)
        if model.endswith("-busy"):
            self._answer(429, {"error": {"message": "slow down", "type": "rate_limit"}})
            return
        if model.endswith("-flaky") and count % 2:
            self._answer(500, {"error": {"message": "try again", "type": "server_error"}})
            return
        time.sleep(3600 if model.endswith("-hang") else latency)
        kind = next(end for end in _ANSWERS if self.path.endswith(end))
        bill = self._bill(request, kind)
        if model.endswith("-drop"):
            self.close_connection = True
            return
        whole, events = _ANSWERS[kind]
        if request.get("stream"):
            options = request.get("stream_options") or {}
            self._stream(events(bill, with_usage=bool(options.get("include_usage"))), model)
        else:
            self._answer(200, whole(bill))

    def _bill(self, request: dict[str, Any], kind: str) -> dict[str, Any]:
        limits = ("max_completion_tokens", "max_tokens", "max_output_tokens")
        limit = next((request[name] for name in limits if request.get(name)), DEFAULT_LIMIT)
        said = request.get("messages") or request.get("input") or request.get("prompt") or ""
        prompt = len(json.dumps(said).split()) + 4
        is_fixed = str(request.get("model")).endswith("-fixed")
        with self.lock:
            choices = int(request.get("n") or 1)
            output = sum(self.draw.randint(1, limit) for _ in range(choices))
            if is_fixed:
                prompt, output = 10, 10
            if kind == "/embeddings":
                output = 0
            cached = 0 if is_fixed else self.draw.choice([0, 0, prompt // 2])
            bill = {
                "id": f"chatcmpl-{len(self.log):08d}-{self.draw.getrandbits(64):016x}",
                "path": kind,
                "model": request.get("model"),
                "user": request.get("user"),
                "limit": limit,
                "input_tokens": prompt,
                "cached_tokens": cached,
                "output_tokens": output,
                "stream": bool(request.get("stream")),
                "fields": sorted(request),
                "headers": {name.lower(): value for name, value in self.headers.items()},
            }
            self.log.append(bill)
        return bill

    def _stream(self, events: list[tuple[str, object]], model: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        if model.endswith("-cut"):
            self.send_header("Content-Length", "1000000")  # so that the end is missed
            events = events[:2]
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(ConnectionError):  # the client may leave
            self._send_events(events, pause=0.5 if "-slow" in model else 0.02)

    def _send_events(self, events: list[tuple[str, object]], *, pause: float) -> None:
        for name, event in events:
            data = event if isinstance(event, str) else json.dumps(event)
            head = f"event: {name}\n" if name else ""
            self.wfile.write(f"{head}data: {data}\n\n".encode())
            self.wfile.flush()
            time.sleep(pause)


def _usage(bill: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt_tokens": bill["input_tokens"],
        "completion_tokens": bill["output_tokens"],
        "total_tokens": bill["input_tokens"] + bill["output_tokens"],
        "prompt_tokens_details": {"cached_tokens": bill["cached_tokens"], "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _completion(bill: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": "some words"}
    return {
        "id": bill["id"],
        "object": "chat.completion",
        "created": int(time.time()),
        "model": bill["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _usage(bill),
    }


def _chunk(
    bill: dict[str, Any], delta: dict[str, Any], finish: str | None = None
) -> dict[str, Any]:
    return {
        "id": bill["id"],
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": bill["model"],
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def _chat_events(bill: dict[str, Any], *, with_usage: bool) -> list[tuple[str, object]]:
    pieces = [{"role": "assistant", "content": ""}, {"content": "some "}, {"content": "words"}]
    chunks = [_chunk(bill, piece) for piece in pieces] + [_chunk(bill, {}, finish="stop")]
    if with_usage:
        chunks.append({**_chunk(bill, {}), "choices": [], "usage": _usage(bill)})
    return [*(("", chunk) for chunk in chunks), ("", "[DONE]")]


def _response(bill: dict[str, Any]) -> dict[str, Any]:
    part = {"type": "output_text", "text": "some words", "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    return {
        "id": bill["id"].replace("chatcmpl", "resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "model": bill["model"],
        "output": [{**item, "content": [part]}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": bill["input_tokens"],
            "input_tokens_details": {"cached_tokens": bill["cached_tokens"]},
            "output_tokens": bill["output_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": bill["input_tokens"] + bill["output_tokens"],
        },
    }


def _response_events(bill: dict[str, Any], *, with_usage: bool) -> list[tuple[str, object]]:
    del with_usage  # this API always says it
    whole = _response(bill)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    delta = {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": "some words",
        "logprobs": [],
    }
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        delta,
        {"type": "response.completed", "response": whole},
    ]
    return [(str(event["type"]), {**event, "sequence_number": n}) for n, event in enumerate(events)]


def _message(bill: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": bill["id"].replace("chatcmpl", "msg"),
        "type": "message",
        "role": "assistant",
        "model": bill["model"],
        "content": [{"type": "text", "text": "some words"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": bill["input_tokens"] - bill["cached_tokens"],
            "cache_read_input_tokens": bill["cached_tokens"],
            "cache_creation_input_tokens": 0,
            "output_tokens": bill["output_tokens"],
        },
    }


def _message_events(bill: dict[str, Any], *, with_usage: bool) -> list[tuple[str, object]]:
    del with_usage  # this API always says it
    whole = _message(bill)
    usage = {**whole["usage"], "output_tokens": 1}
    begun = {**whole, "content": [], "stop_reason": None, "usage": usage}
    block = {"type": "text", "text": ""}
    delta = {"type": "text_delta", "text": "some words"}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": bill["output_tokens"]},
        },
        {"type": "message_stop"},
    ]
    return [(str(event["type"]), event) for event in events]


def _embedding(bill: dict[str, Any]) -> dict[str, Any]:
    usage = {"prompt_tokens": bill["input_tokens"], "total_tokens": bill["input_tokens"]}
    data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
    return {"object": "list", "data": data, "model": bill["model"], "usage": usage}


def _batch(bill: dict[str, Any]) -> dict[str, Any]:
    said = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "status": "validating"}
    moment = {"created_at": int(time.time()), "input_file_id": "file-1"}
    return {"id": bill["id"].replace("chatcmpl", "batch"), "object": "batch", **said, **moment}


def _text(bill: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "text": "some words", "finish_reason": "stop", "logprobs": None}
    return {**_completion(bill), "object": "text_completion", "choices": [choice]}


_ANSWERS: dict[str, tuple[Any, Any]] = {
    "/chat/completions": (_completion, _chat_events),
    "/completions": (_text, _chat_events),
    "/responses": (_response, _response_events),
    "/messages": (_message, _message_events),
    "/embeddings": (_embedding, None),
    "/batches": (_batch, None),
}


class Server(ThreadingHTTPServer):
    """Threads end with the program."""

    daemon_threads = True
    request_queue_size = 256


def main() -> None:
    """Serve on a free port until stdin closes."""
    server = Server(("127.0.0.1", 0), Stub)
    sys.stdout.write(json.dumps({"port": server.server_address[1]}) + "\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
