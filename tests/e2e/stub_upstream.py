"""An upstream that speaks the OpenAI chat API and keeps the exact bill.

Run as a program: it prints its port and ends when its stdin closes. Output lengths are drawn at
random up to the request's limit; every completion is logged with what was asked and what was
billed (`GET /_log`). Model names choose behaviour: `…-flaky` answers 500 to every other request.
"""

import json
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

LATENCY_SECONDS = (0.05, 0.25)
DEFAULT_LIMIT = 4096


class Stub(BaseHTTPRequestHandler):
    """Chat completions, streamed or not, and the log."""

    protocol_version = "HTTP/1.1"
    lock: ClassVar[threading.Lock] = threading.Lock()
    log: ClassVar[list[dict[str, Any]]] = []
    tries: ClassVar[dict[str, int]] = {}
    draw: ClassVar[random.Random] = random.Random(7)

    def log_message(self, format: str, *args: object) -> None:  # type: ignore[explicit-override]  # noqa: A002 - typing.override needs 3.12; the base names it so
        """Stay silent."""

    def _answer(self, status: int, body: object, content_type: str = "application/json") -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        with self.lock:
            self._answer(200, list(self.log))

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = str(request["model"])
        with self.lock:
            count = self.tries[model] = self.tries.get(model, 0) + 1
            latency = self.draw.uniform(*LATENCY_SECONDS)
        if model.endswith("-flaky") and count % 2:
            self._answer(500, {"error": {"message": "try again", "type": "server_error"}})
            return
        time.sleep(latency)
        bill = self._bill(request)
        if request.get("stream"):
            self._stream(
                bill, with_usage=(request.get("stream_options") or {}).get("include_usage")
            )
        else:
            self._answer(200, _completion(bill))

    def _bill(self, request: dict[str, Any]) -> dict[str, Any]:
        limit = request.get("max_completion_tokens") or request.get("max_tokens") or DEFAULT_LIMIT
        words = sum(len(str(message.get("content", "")).split()) for message in request["messages"])
        with self.lock:
            choices = int(request.get("n") or 1)
            output = sum(self.draw.randint(1, limit) for _ in range(choices))
            prompt = words + 4 * len(request["messages"])
            cached = self.draw.choice([0, 0, prompt // 2])
            bill = {
                "id": f"chatcmpl-{len(self.log):08d}-{self.draw.getrandbits(64):016x}",
                "model": request["model"],
                "user": request.get("user"),
                "limit": limit,
                "input_tokens": prompt,
                "cached_tokens": cached,
                "output_tokens": output,
                "stream": bool(request.get("stream")),
            }
            self.log.append(bill)
        return bill

    def _stream(self, bill: dict[str, Any], *, with_usage: bool | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        pieces = [{"role": "assistant", "content": ""}, {"content": "some "}, {"content": "words"}]
        chunks = [_chunk(bill, piece) for piece in pieces] + [_chunk(bill, {}, finish="stop")]
        if with_usage:
            chunks.append({**_chunk(bill, {}), "choices": [], "usage": _usage(bill)})
        for chunk in chunks:
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            self.wfile.flush()
            time.sleep(0.02)
        self.wfile.write(b"data: [DONE]\n\n")


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
