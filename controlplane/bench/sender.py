"""Sends the reference load; a process of its own, so that its cost is not ours.

`python -m controlplane.bench.sender PLAN` takes a Plan as JSON and prints a Sent as JSON.
"""

import http.client
import sys
import threading
import time
import zlib
from typing import Final
from urllib.parse import urlsplit

import msgspec
import numpy as np

from controlplane.bench.load import SPANS_PER_REQUEST, RequestTemplate

OK: Final = 200
GZIP_LEVEL: Final = 1
GZIP_WINDOW_BITS: Final = 31
TEMPLATES: Final = 4


class Sent(msgspec.Struct, frozen=True):
    """What a run of the sender did."""

    spans: int
    requests: int
    refused: int
    seconds: float
    ack_p50_ms: float
    ack_p99_ms: float
    ack_max_ms: float


class Plan(msgspec.Struct, frozen=True):
    """What to send; `rate` is requests a second over all connections.

    With a rate, latency counts from when a request was due (no coordinated omission). Without
    one (0), each connection sends as soon as its last request is acknowledged.
    """

    url: str
    seconds: float
    connections: int
    encoding: str
    rate: float = 0.0


class _Run:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.templates = [RequestTemplate(seed) for seed in range(TEMPLATES)]
        self.latencies: list[float] = []
        self.refused = 0
        self._lock = threading.Lock()
        self._next = 0
        self.started = time.monotonic()

    def due(self) -> tuple[int, float]:
        """Answer the next request's number and when it is due."""
        with self._lock:
            number = self._next
            self._next += 1
        rate = self.plan.rate
        return number, self.started + number / rate if rate else time.monotonic()

    def send_all(self, worker: int) -> None:
        """Send until the time is up."""
        draw = np.random.default_rng([worker, time.time_ns()])
        parts = urlsplit(self.plan.url)
        headers = {"Content-Type": "application/x-protobuf"}
        if self.plan.encoding != "identity":
            headers["Content-Encoding"] = self.plan.encoding
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        end = self.started + self.plan.seconds
        while True:
            number, due = self.due()
            if due >= end:
                break
            body = self._body(number, draw)
            time.sleep(max(0.0, due - time.monotonic()))
            due = due if self.plan.rate else time.monotonic()
            connection.request("POST", parts.path, body, headers)
            answer = connection.getresponse()
            answer.read()
            self._note(answer.status == OK, time.monotonic() - due)
        connection.close()

    def _body(self, number: int, draw: np.random.Generator) -> bytes:
        template = self.templates[number % len(self.templates)]
        body = template.fresh(draw, now_unix_nano=time.time_ns())
        if self.plan.encoding == "identity":
            return body
        packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_WINDOW_BITS)
        return packer.compress(body) + packer.flush()

    def _note(self, accepted: bool, seconds: float) -> None:  # noqa: FBT001 - one caller, above
        with self._lock:
            if accepted:
                self.latencies.append(seconds)
            else:
                self.refused += 1


def send(plan: Plan) -> Sent:
    """Send as planned, and wait for the last acknowledgement."""
    run = _Run(plan)
    threads = [
        threading.Thread(target=run.send_all, args=(number,)) for number in range(plan.connections)
    ]
    run.started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - run.started
    milliseconds = np.array(run.latencies or [float("nan")]) * 1000
    p50, p99, most = np.percentile(milliseconds, [50, 99, 100]).tolist()
    acked = len(run.latencies)
    return Sent(acked * SPANS_PER_REQUEST, acked, run.refused, took, p50, p99, most)


if __name__ == "__main__":
    done = send(msgspec.json.decode(sys.argv[1], type=Plan))
    sys.stdout.write(msgspec.json.encode(done).decode() + "\n")
