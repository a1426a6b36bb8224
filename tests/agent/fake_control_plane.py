"""A small server that speaks policy/wire.py, for tests of the agent alone: one budget, one ledger.

Run as a program: it prints its port, reads nothing, and ends when its stdin closes. `PUT /_rules`
publishes a document, `GET /_state` tells the ledger, `PUT /_faults` makes the next answers fail.
"""

import json
import os
import secrets
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from controlplane.policy.bundle import Signer
from controlplane.policy.wire import (
    Generation,
    Grant,
    Settle,
    Standing,
    SyncReply,
    SyncRequest,
)

TTL_SECONDS = float(os.environ.get("FAKE_TTL_SECONDS", "20"))


class Ledger:
    """limit = settled + unproven + leased + free, for one budget; plain integers."""

    def __init__(self) -> None:
        self.limit = 0
        self.budget_id = "b1"
        self.rates = (0, 0)  # nano-USD per million input, output tokens
        self.leases: dict[str, int] = {}
        self.settled: dict[str, int] = {}
        self.unproven: dict[str, int] = {}
        self.grants = 0
        self.returned: set[str] = set()
        self.owners: dict[str, str] = {}
        self.seqs: dict[str, int] = {}

    @property
    def free(self) -> int:
        taken = sum(self.leases.values()) + sum(self.settled.values())
        return self.limit - taken - sum(self.unproven.values())

    def settle(self, item: Settle) -> None:
        if item.hold_id in self.settled or item.hold_id in self.unproven:
            return
        taken = {key: item.held.get(key, item.held_nusd) for key in item.leases}
        for budget_id, lease_id in item.leases.items():
            self.leases[lease_id] -= taken[budget_id]
            assert self.leases[lease_id] >= 0, "held more than was leased"
        if item.usage is None:
            self.unproven[item.hold_id] = max(taken.values())
            return
        inputs = sum(n for name, n in item.usage.items() if not name.startswith("output"))
        outputs = sum(n for name, n in item.usage.items() if name.startswith("output"))
        cost = (inputs * self.rates[0] + outputs * self.rates[1] + 500_000) // 1_000_000
        assert cost <= max(taken.values()), "a call cost more than its hold"
        self.settled[item.hold_id] = cost

    def free_unknown(self, request: SyncRequest) -> None:
        """What its holder does not name it never received."""
        last = self.seqs.get(request.boot_id, 0)
        if request.leases is None or request.seq <= last:
            return
        self.seqs[request.boot_id] = request.seq
        for lease_id, owner in self.owners.items():
            is_known = lease_id in request.leases or lease_id in self.returned
            if owner == request.boot_id and not is_known:
                self.leases[lease_id] = 0

    def grant(self, want: int, need: int, least: int) -> Grant:
        amount = min(self.free, max(need, min(want, self.free // 4)))
        if amount < least:
            amount = 0
        self.grants += 1
        lease_id = f"lease{self.grants}" if amount > 0 else ""
        if amount > 0:
            self.leases[lease_id] = amount
        now = datetime.now(UTC)
        return Grant(
            self.budget_id,
            lease_id,
            max(amount, 0),
            TTL_SECONDS if amount > 0 else 0.5,
            now + timedelta(seconds=TTL_SECONDS),
        )

    def standing(self) -> Standing:
        now = datetime.now(UTC)
        return Standing(
            budget_id=self.budget_id,
            window_start=now - timedelta(days=1),
            window_end=now + timedelta(days=1),
            limit_nusd=self.limit,
            debt_nusd=0,
            settled_enforced_nusd=sum(self.settled.values()),
            settled_unproven_nusd=sum(self.unproven.values()),
            observed_unenforced_nusd=0,
            leased_nusd=sum(self.leases.values()),
            free_nusd=self.free,
        )


class State:
    """Everything the handler threads share."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.signer = Signer(secrets.token_bytes(32))
        self.body = b""
        self.generation = Generation(0, 0)
        self.ledger = Ledger()
        self.requests: list[dict[str, Any]] = []
        self.fail_syncs = 0

    def publish(self, document: dict[str, Any]) -> None:
        with self.lock:
            self.generation = Generation(document.get("epoch", 1), self.generation.gen + 1)
            document = {**document, "gen": self.generation.gen, "epoch": self.generation.epoch}
            document.setdefault("issued_at", datetime.now(UTC).isoformat())
            self.body = json.dumps(document).encode()
            for budget in document.get("budgets", ()):
                self.ledger.limit, self.ledger.budget_id = budget["limit_nusd"], budget["id"]
            for rate in document.get("rate_card", {}).values():
                self.ledger.rates = (rate["input_nusd"], rate["output_nusd"])
            self.lock.notify_all()

    def sync(self, request: SyncRequest) -> SyncReply:
        ledger = self.ledger
        for item in request.settle:
            ledger.settle(item)
        for back in request.returns:
            if back.lease_id in ledger.leases and back.lease_id not in ledger.returned:
                ledger.returned.add(back.lease_id)  # once, however often it is resent
                ledger.leases[back.lease_id] -= back.unspent_nusd
                assert ledger.leases[back.lease_id] >= 0, "returned what was not left"
        ledger.free_unknown(request)
        grants = tuple(
            ledger.grant(want.want_nusd, want.need_nusd, want.least_nusd) for want in request.want
        )
        ledger.owners.update((one.lease_id, request.boot_id) for one in grants if one.lease_id)
        assert ledger.free >= 0
        is_short = 2 * ledger.free < sum(ledger.leases.values())  # as the server does (ADR 049)
        return SyncReply(
            generation=self.generation,
            settled=tuple(item.hold_id for item in request.settle),
            grants=grants,
            standings=(ledger.standing(),),
            server_time=datetime.now(UTC),
            recall=(ledger.budget_id,) if is_short else (),
        )


class Handler(BaseHTTPRequestHandler):
    """Routes."""

    protocol_version = "HTTP/1.1"
    state: ClassVar[State] = State()

    def log_message(self, format: str, *args: object) -> None:  # type: ignore[explicit-override]  # noqa: A002 - typing.override needs 3.12; the base names it so
        """Stay silent."""

    disable_nagle_algorithm = True  # heads and bodies are written apart

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        state = self.state
        if url.path == "/_state":
            with state.lock:
                ledger = state.ledger
                facts = {
                    "standing": msgspec.to_builtins(ledger.standing()),
                    "unproven": ledger.unproven,
                    "settled": ledger.settled,
                    "requests": state.requests,
                }
            self._answer(200, json.dumps(facts, default=str).encode())
            return
        if url.path == "/api/v1/stream":
            self._answer(404)  # an older server: agents go on polling
            return
        wait = float(parse_qs(url.query).get("wait", ["0"])[0])
        deadline = time.monotonic() + wait
        with state.lock:
            while self.headers.get("If-None-Match") == state.generation.etag() or not state.body:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                state.lock.wait(left)
            body, etag = state.body, state.generation.etag()
        if not body:
            self._answer(404)
        elif self.headers.get("If-None-Match") == etag:
            self._answer(304, ETag=etag)
        else:
            signature = state.signer.sign(body)
            self._answer(200, body, ETag=etag, Policy_Signature=signature)

    def do_PUT(self) -> None:
        document = json.loads(self._body())
        if self.path == "/_faults":
            self.state.fail_syncs = document["fail_syncs"]
        else:
            self.state.publish(document)
        self._answer(204)

    def do_POST(self) -> None:
        request = msgspec.json.decode(self._body(), type=SyncRequest)
        with self.state.lock:
            self.state.requests.append(msgspec.to_builtins(request))
            reply = self.state.sync(request)
            failing = self.state.fail_syncs > 0
            self.state.fail_syncs -= failing
        if failing:  # after the commit: the answer is lost, the settle is not
            self._answer(503)
        else:
            self._answer(200, msgspec.json.encode(reply))


class Server(ThreadingHTTPServer):
    """Threads end with the program."""

    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    """Serve on a free port until stdin closes."""
    server = Server(("127.0.0.1", 0), Handler)
    ready = {"port": server.server_address[1], "keys": Handler.state.signer.pinned}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
