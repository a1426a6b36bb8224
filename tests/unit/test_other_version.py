"""Commands against a server of another version: one sentence that says what it lacks and what to do.

The servers are real HTTP servers on loopback that answer with less, or with something else.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from typing_extensions import override

from controlplane.bootstrap.remote import KEY_ENV, URL_ENV
from controlplane.cli.main import main

WINDOW = ("--start", "2026-11-01T00:00:00Z", "--end", "2026-11-02T00:00:00Z")
COMMANDS = (
    ("policy", "history"),
    ("policy", "diff"),
    ("policy", "nodes"),
    ("policy", "proposals"),
    ("policy", "rollback", "1.1"),
    ("policy", "approve", "p1"),
    ("policy", "rollout", "show"),
    ("policy", "rollout", "halt"),
    ("policy", "rollout", "promote"),
    ("epoch", "bump"),
    ("whatif", *WINDOW, "--switch-model", "openai/gpt-5-mini"),
    ("erase", "--user", "u-1"),
)
PROBLEM = {"detail": "Not Found", "code": "not_found", "errors": []}


@contextmanager
def server(status: int, body: bytes, health: object) -> Iterator[str]:
    """Answer everything alike, and `/health` with the version."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            is_health = self.path == "/health"
            self.send_response(200 if is_health else status)
            self.end_headers()
            self.wfile.write(json.dumps(health).encode() if is_health else body)

        def do_POST(self) -> None:
            self.do_GET()

        @override
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{serving.server_port}"
    finally:
        serving.shutdown()
        thread.join()
        serving.server_close()


def told(monkeypatch: pytest.MonkeyPatch, capsys: Any, url: str, *arguments: str) -> str:
    """Run a command that fails; answer its sentence."""
    monkeypatch.setenv(URL_ENV, url)
    monkeypatch.setenv(KEY_ENV, "cp_user_a_b")
    monkeypatch.setattr("sys.argv", ["controlplane", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (1, "", 1) == (ended.value.code, out, err.count("\n"))
    return str(err)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_missing_field_is_named(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with server(200, b"{}", {"version": "0.0.9"}) as url:
        sentence = told(monkeypatch, capsys, url, *command)
    assert f"the server at {url} (version 0.0.9) answers " in sentence
    assert "/api/v1/" in sentence
    assert "without the field `" in sentence or "missing required field `" in sentence
    assert "Upgrade the older of the two" in sentence


def test_a_missing_field_of_a_row_has_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    body = b'{"rows": [{"epoch": 1, "gen": 2, "issued_at": "2026-11-26T00:00:00Z"}]}'
    with server(200, body, {}) as url:
        sentence = told(monkeypatch, capsys, url, "policy", "history")
    assert "(version not told)" in sentence
    assert "GET /api/v1/policy/generations without the field `rows[].author`" in sentence


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_route_that_it_does_not_know(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with server(404, json.dumps(PROBLEM).encode(), {"version": "0.0.9"}) as url:
        sentence = told(monkeypatch, capsys, url, *command)
    assert "(version 0.0.9) does not know " in sentence
    assert "Upgrade the older of the two" in sentence


@pytest.mark.parametrize("status", [200, 404])
def test_something_else_answers(status: int, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with server(status, b"<html>", []) as url:
        sentence = told(monkeypatch, capsys, url, "policy", "nodes")
    assert f"{url}" in sentence
    assert "GET /api/v1/policy/nodes" in sentence


def test_a_thing_that_is_not_there_is_no_matter_of_versions(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    problem = {
        **PROBLEM,
        "detail": "proposal 'p1' does not exist",
        "errors": [{"field": "proposal"}],
    }
    with server(404, json.dumps(problem).encode(), {"version": "0.0.9"}) as url:
        sentence = told(monkeypatch, capsys, url, "policy", "approve", "p1")
    assert "controlplane: proposal 'p1' does not exist\n" == sentence


@pytest.mark.parametrize("url", ["nonsense", "127.0.0.1:8080", "ftp://127.0.0.1"])
def test_an_address_without_http_is_refused_with_one_that_is(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(URL_ENV, url)
    monkeypatch.setenv(KEY_ENV, "cp_user_a_b")
    monkeypatch.setattr("sys.argv", ["controlplane", "policy", "nodes"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2  # a setting is wrong, and nobody was asked
    assert f"{url!r} is no URL. Write it as http://" in capsys.readouterr().err
