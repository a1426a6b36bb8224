"""The server, and what every answer carries whatever the route."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from controlplane import telemetry
from controlplane.api.app import create_app
from controlplane.api.server import ApiServer
from controlplane.api.services import HealthCheck, Services
from controlplane.core.errors import UnavailableError


def test_two_servers_on_port_zero_have_ports_of_their_own(serve: Callable[..., Any]) -> None:
    first, second = serve(), serve()
    assert first.url != second.url
    for api in (first, second):
        with api.client() as client:
            assert client.get("/health/live").json() == {"status": "alive"}


def test_a_port_that_somebody_listens_on_is_refused(services: Services) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match="in use"),
    ):
        ApiServer(create_app(services), port=taken.getsockname()[1])


def test_two_servers_do_not_share_a_port_unseen(services: Services) -> None:
    """Both could listen (SO_REUSEPORT), and each would get half of the requests."""
    with ApiServer(create_app(services)) as first:
        second = ApiServer(create_app(services), port=first.port)
        with pytest.raises(UnavailableError, match="in use"):
            second.start()


def test_stopped_server_refuses_connections_and_leaves_no_thread(services: Services) -> None:
    server = ApiServer(create_app(services))
    with server:
        pass
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0
    assert "api-server" not in [thread.name for thread in threading.enumerate()]


def test_a_connection_that_says_nothing_is_closed(services: Services) -> None:
    with (
        ApiServer(create_app(services), header_seconds=0.3) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as silent,
    ):
        assert not silent.recv(1)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing-here", 404, "not_found"),
        ("DELETE", "/health/live", 405, "method_not_allowed"),
        ("GET", "/schema/openapi.json", 404, "not_found"),
        ("GET", "/api/v1/costs", 401, "unauthenticated"),
        ("GET", "/health/live", 200, None),
    ],
)
def test_security_headers_and_request_id_are_on_every_answer(
    api: Any, method: str, path: str, status: int, code: str | None
) -> None:
    with api.client() as client:
        answer = client.request(method, path, headers={"x-request-id": "caller-chose-1"})
    assert status == answer.status_code
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-request-id"] == "caller-chose-1"
    if code is not None:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (code, status, "caller-chose-1") == (
            problem["code"],
            problem["status"],
            problem["request_id"],
        )
        assert f"urn:controlplane:problem:{code}" == problem["type"]
        assert path == problem["instance"]


def test_an_unsafe_request_id_is_replaced(api: Any) -> None:
    with api.client() as client:
        answer = client.get("/health/live", headers={"x-request-id": "<script>alert(1)</script>"})
    assert answer.headers["x-request-id"].startswith("req_")


def test_method_not_allowed_names_the_allowed_ones(api: Any) -> None:
    with api.client() as client:
        answer = client.delete("/health/live")
    assert "GET" in answer.headers["allow"]


def test_a_foreign_host_is_refused(api: Any, admin: str) -> None:
    """A web page that rebinds its name to loopback carries its own name (SE-41)."""
    with api.client(admin) as client:
        answer = client.get("/api/v1/me", headers={"host": "evil.example:8080"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "host"


def test_a_body_above_the_limit_is_refused_unread(api: Any) -> None:
    with api.client() as client:
        answer = client.post("/api/v1/session", content=b" " * (5 * 2**20))
    assert answer.status_code == 413
    assert answer.json()["code"] == "limit_exceeded"


def test_an_unexpected_failure_shows_no_stack(
    api: Any, admin: str, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_tenants: object) -> None:
        raise RuntimeError("SELECT secret FROM somewhere")

    monkeypatch.setattr(reader, "data_through", crash)
    before = telemetry.API_REFUSED.labels(code="internal_error")._value.get()
    with api.client(admin) as client:
        answer = client.get("/api/v1/costs")
    assert answer.status_code == 500
    assert "SELECT" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json()["request_id"]
    assert before + 1 == telemetry.API_REFUSED.labels(code="internal_error")._value.get()


def test_health_tells_vital_from_degraded(serve: Callable[..., Any]) -> None:
    def broken() -> str:
        raise OSError("disk /secret/path is gone")

    fine = HealthCheck("store", lambda: "open")
    for checks, status, ready in (
        ((fine,), "healthy", 200),
        ((fine, HealthCheck("alerts", broken, vital=False)), "degraded", 200),
        ((fine, HealthCheck("metadata", broken)), "unhealthy", 503),
    ):
        with serve(checks=checks).client() as client:
            report = client.get("/health").json()
            assert status == report["status"]
            assert ready == client.get("/health/ready").status_code
            assert "/secret/path" not in str(report)
            assert all(check["latency_ms"] >= 0 for check in report["checks"])
