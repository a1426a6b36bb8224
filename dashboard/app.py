"""The ASGI application: Streamlit behind security headers, and the sign-in of a browser."""

from pathlib import Path
from typing import Final

import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard import csp, settings
from dashboard.client import Api, ApiProblem, connect
from dashboard.data import SESSION_COOKIE

SESSION_SECONDS: Final = 12 * 3600  # the API ends it earlier when it is idle
HEADERS: Final = {
    "content-security-policy": csp.policy(),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cross-origin-opener-policy": "same-origin",
}


class SecurityHeaders:
    """Adds HEADERS to every HTTP response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and dress its response."""

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *said]}
            await send(message)

        await self._app(scope, receive, dressed if scope["type"] == "http" else send)


async def sign_in(request: Request) -> Response:
    """Exchange the link's one-time token for a session and take it out of the address.

    The session lives in a cookie that scripts can not read, so that a reload or a second tab
    needs no new link.
    """
    told = settings.current()

    def exchange() -> str:
        with connect(told.api_url, timeout_seconds=told.request_timeout_seconds) as http:
            return Api(http, None).exchange(request.query_params.get("token", "")).bearer

    try:
        bearer = await run_in_threadpool(exchange)
    except ApiProblem as problem:
        return PlainTextResponse(f"Sign-in failed: {problem.detail}\n", status_code=401)
    answer = RedirectResponse("/", status_code=303, headers={"cache-control": "no-store"})
    answer.set_cookie(
        SESSION_COOKIE,
        bearer,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer


async def health(_: Request) -> Response:
    """Answer that this process serves; the API's health is asked of the API."""
    return PlainTextResponse("ok")


def create_app(told: settings.DashboardSettings) -> st.App:
    """Build the application; one per process (Streamlit keeps its configuration globally)."""
    return st.App(
        Path(__file__).with_name("shell.py"),
        routes=[Route("/sign-in", sign_in), Route("/health", health)],
        middleware=[
            Middleware(SecurityHeaders),
            # A page of another name that resolves to loopback must not reach us (DNS rebinding);
            # Streamlit's own check covers its websocket only.
            Middleware(TrustedHostMiddleware, allowed_hosts=list(told.allowed_hosts)),
        ],
    )
