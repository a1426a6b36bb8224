"""The rendered files in the real nginx and HAProxy: deny, exact rates, weights."""

import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from typing_extensions import override

from controlplane.agent.render import RENDERERS, haproxy_files, nginx_files, write_files
from controlplane.policy.document import Deny, PolicyDocument, Route, Rule, Throttle

NASTY = "o\"no'$x;}|\\ é"
DOCUMENT = PolicyDocument(
    gen=7,
    issued_at=datetime(2026, 1, 1, tzinfo=UTC),
    dimension_map={"team": "header.x-team", "environment": "header.x-env", "tenant": "user"},
    rules=(
        Deny(id="bad", match={"team": ("bad*", NASTY)}, reason='not "you"'),
        Deny(id="both", match={"team": ("mixed",), "environment": ("prod",)}, status=403),
        Deny(id="body", match={"tenant": ("x",)}),  # from the body: not for a file
        Throttle(id="slow", rpm=5, match={"team": ("slow",)}),
        Route(id="split", weights={"left": 3, "right": 1}, match={"team": ("split",)}),
    ),
)


class _Named(http.server.BaseHTTPRequestHandler):
    name = ""

    @override
    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        body = self.name.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, int]]:
    """Three servers that answer with their name."""
    servers = {}
    for name in ("default", "left", "right"):
        handler = type(name, (_Named,), {"name": name})
        servers[name] = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=servers[name].serve_forever, daemon=True).start()
    yield {name: server.server_address[1] for name, server in servers.items()}
    for server in servers.values():
        server.shutdown()
        server.server_close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _nginx(folder: Path, upstreams: dict[str, int], port: int) -> list[str]:
    write_files(nginx_files(DOCUMENT, upstream="default"), folder)
    blocks = "\n".join(
        f"upstream {name} {{ server 127.0.0.1:{there}; }}" for name, there in upstreams.items()
    )
    (folder / "nginx.conf").write_text(f"""
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; user root;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  include {folder}/controlplane-http.conf;
  {blocks}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      include {folder}/controlplane-location.conf;
      proxy_pass http://$controlplane_upstream;
    }}
  }}
}}
""")
    return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]


def _haproxy(folder: Path, upstreams: dict[str, int], port: int) -> list[str]:
    write_files(haproxy_files(DOCUMENT, upstream="default"), folder)
    blocks = "\n".join(
        f"backend {name} from own\n  server one 127.0.0.1:{there}"
        for name, there in upstreams.items()
    )
    (folder / "site.cfg").write_text(f"""
frontend site from controlplane
  bind 127.0.0.1:{port}
  use_backend %[var(txn.cp_to)]
defaults own
  mode http
  timeout connect 5s
  timeout server 30s
{blocks}
""")
    return ["haproxy", "-f", str(folder / "controlplane.cfg"), "-f", str(folder / "site.cfg")]


COMMANDS = {"nginx": _nginx, "haproxy": _haproxy}


@pytest.fixture(params=["nginx", "haproxy"])
def front(
    request: pytest.FixtureRequest, upstreams: dict[str, int], tmp_path: Path
) -> Iterator[httpx.Client]:
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} on this machine; tests/provide.sh installs it as root")
    port = _free_port()
    command = COMMANDS[request.param](tmp_path, upstreams, port)
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    process.terminate()
    process.wait(60)


def _get(front: httpx.Client, team: str = "", **headers: str) -> httpx.Response:
    sent: list[tuple[bytes, bytes]] = [(b"x-team", team.encode())] if team else []
    sent += [(name.encode(), value.encode()) for name, value in headers.items()]
    return front.get("/", headers=sent)


def test_deny_rates_and_weights_hold_in_the_real_proxy(front: httpx.Client) -> None:
    assert ("default", "1.7") == (
        _get(front).text,
        _get(front).headers["x-controlplane-policy"],
    )
    refused = _get(front, "bad-team")
    assert (429, "bad", 'not "you"') == (
        refused.status_code,
        refused.json()["error"]["rule"],
        refused.json()["error"]["message"],
    )
    assert 429 == _get(front, NASTY).status_code
    assert 200 == _get(front, "abad").status_code
    assert 200 == _get(front, "mixed").status_code
    assert 403 == _get(front, "mixed", **{"x-env": "prod"}).status_code
    assert {200: 5, 429: 15} == Counter(_get(front, "slow").status_code for _ in range(20))
    chosen = Counter(_get(front, "split").text for _ in range(200))
    assert {"left", "right"} == chosen.keys()
    assert 110 <= chosen["left"] <= 190


def test_files_are_replaced_whole_and_only_when_they_change(tmp_path: Path) -> None:
    files = {"a.conf": "one\n", "b.conf": "two\n"}
    assert 2 == len(write_files(files, tmp_path))
    before = (tmp_path / "a.conf").stat().st_ino
    assert [tmp_path / "b.conf"] == write_files({**files, "b.conf": "three\n"}, tmp_path)
    assert before == (tmp_path / "a.conf").stat().st_ino
    assert ["a.conf", "b.conf"] == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("kind", sorted(RENDERERS))
def test_no_value_of_a_policy_reaches_a_file_as_it_is(kind: str) -> None:
    rules: tuple[Rule, ...] = (Deny(id="x", match={"team": ('a"; evil on; #',)}),)
    document: Any = PolicyDocument(
        issued_at=datetime(2026, 1, 1, tzinfo=UTC),
        dimension_map={"team": "header.x-team"},
        rules=rules,
    )
    written = json.dumps(RENDERERS[kind](document, upstream="default"))
    assert "evil on" not in written
    assert "x20on" in written
