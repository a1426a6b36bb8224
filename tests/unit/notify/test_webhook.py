"""Signed webhooks against a real HTTP server, judged by the specification's own arithmetic."""

import base64
import hashlib
import hmac
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import msgspec
import pytest
from typing_extensions import override

from controlplane.alerts.alert import Alert, AlertState
from controlplane.alerts.ports import Notification, Verdict
from controlplane.notify.webhook import MAX_BODY_BYTES, WebhookReceiver

KEY = b"k" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Sink:
    """What the server saw, and what it answers."""

    def __init__(self) -> None:
        self.status = 204
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.url = ""


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client() as client:
        yield client


@pytest.fixture
def sink() -> Iterator[Sink]:
    state = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            state.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(state.status)
            if state.status == 302:
                self.send_header("location", state.url)
            self.end_headers()

        @override
        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def _message(count: int = 1) -> Notification:
    alerts = tuple(
        Alert(
            fingerprint=str(i),
            labels={"alertname": "CostAnomaly", "team": f"t{i}"},
            annotations={"summary": "Team search: $412 in 1 h, 18x plan"},
            state=AlertState.FIRING,
            since=NOW,
            starts_at=NOW,
        )
        for i in range(count)
    )
    return Notification(id="msg_1", receiver="webhook", at=NOW, alerts=alerts)


def test_signature_is_what_the_specification_says(sink: Sink, client: httpx.Client) -> None:
    """HMAC-SHA256 over id.timestamp.body with the decoded secret, computed here by hand."""
    assert (
        Verdict.DELIVERED
        is WebhookReceiver(sink.url, SECRET, client=client).deliver(_message(), now=NOW).verdict
    )
    ((headers, body),) = sink.seen
    signed = f"msg_1.{int(NOW.timestamp())}.".encode() + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert f"v1,{expected}" == headers["webhook-signature"]
    assert "msg_1" == headers["webhook-id"]
    data = msgspec.json.decode(body)
    assert ["alert.changed", "firing"] == [data["type"], data["data"]["alerts"][0]["status"]]


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, "delivered"), (302, "retry"), (410, "dead"), (429, "retry"), (500, "retry")],
)
def test_only_2xx_is_success(sink: Sink, client: httpx.Client, status: int, expected: str) -> None:
    """A redirect is a failure; 410 ends the subscription."""
    sink.status = status
    assert (
        expected
        == WebhookReceiver(sink.url, SECRET, client=client).deliver(_message(), now=NOW).verdict
    )


def test_no_answer_is_a_retry(client: httpx.Client) -> None:
    """A receiver that is down is not an exception."""
    receiver = WebhookReceiver("http://127.0.0.1:9/hook", SECRET, client=client)
    assert Verdict.RETRY is receiver.deliver(_message(), now=NOW).verdict


def test_body_stays_below_the_limit_and_says_what_it_left_out(
    sink: Sink, client: httpx.Client
) -> None:
    """20 kB at most, the cut is counted."""
    WebhookReceiver(sink.url, SECRET, client=client).deliver(_message(500), now=NOW)
    body = sink.seen[0][1]
    data = msgspec.json.decode(body)["data"]
    assert len(body) <= MAX_BODY_BYTES
    assert 500 == len(data["alerts"]) + data["truncated"]
