"""What every answer carries and every request passes, whatever its route."""

import time
from typing import Any, Final

from litestar import Request
from litestar.datastructures import MutableScopeHeaders
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from controlplane import telemetry
from controlplane.api.problem import request_id_of
from controlplane.api.services import Services
from controlplane.core.errors import InvalidInputError

SECURITY_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
ANY_HOST: Final = "*"


async def add_headers(message: Message, scope: Scope) -> None:
    """Hook before every message: security headers and the request id, on errors too."""
    if message["type"] != "http.response.start":
        return
    headers = MutableScopeHeaders.from_message(message)
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("x-request-id", request_id_of(Request(scope)))
    scope["state"]["status"] = message["status"]


def observe(app: ASGIApp) -> ASGIApp:
    """Wrap a route: measure it under its template, so that ids make no series."""

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        await app(scope, receive, send)
        if not scope["route_handler"].opt.get("long_poll"):
            telemetry.API_REQUEST_SECONDS.labels(
                route=scope["path_template"],
                method=str(scope.get("method", "")),
                status=str(scope["state"].get("status", 0)),
            ).observe(time.perf_counter() - started)

    return observed


def check_host(app: ASGIApp) -> ASGIApp:
    """Wrap a route: refuse a foreign Host, so that no web page can rebind its name to us (SE-41)."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request[Any, Any, Any](scope)
        services: Services = scope["litestar_app"].state.services
        allowed = services.allowed_hosts
        name = _without_port(request.headers.get("host", ""))
        if ANY_HOST not in allowed and name not in allowed:
            raise InvalidInputError(
                "host", f"{name[:64]!r} is not served here", f"Use {allowed[0] if allowed else ''}"
            )
        await app(scope, receive, send)

    return checked


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()
