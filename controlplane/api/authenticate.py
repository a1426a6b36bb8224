"""Bearer credential to Principal, for every route that is not public; and the rate limit behind it."""

import asyncio
from collections import OrderedDict
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.types import ASGIApp, Receive, Scope, Send

from controlplane.api.guards import is_public
from controlplane.api.rate_limit import RateLimiter
from controlplane.api.services import Services
from controlplane.api.sessions import SESSION_PREFIX, SignedIn
from controlplane.auth.principal import Principal
from controlplane.auth.roles import Scope as AccessScope
from controlplane.core.errors import AuthenticationError

MACHINE_SCOPES: Final = frozenset({AccessScope.POLICY_PULL, AccessScope.SYNC})
MACHINE_FACTOR: Final = 50
KEY_CACHE_SECONDS: Final = 2.0
"""How long a resolved key is believed: a revoked key is refused within this time (SE-10: 5 s)."""
KEY_CACHE_ENTRIES: Final = 4_096
FAILURES_PER_MINUTE: Final = 120
"""Refused credentials per address; more are told to wait, so guessing is slow and cheap for us."""


class Gate:
    """Resolves credentials for one application; used from its event loop only."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()
        self._requests = RateLimiter("api.requests_per_minute", services.requests_per_minute)
        self._machines = RateLimiter(
            "api.requests_per_minute", MACHINE_FACTOR * services.requests_per_minute
        )
        self._failures = RateLimiter("failed sign-ins per minute", FAILURES_PER_MINUTE)

    async def admit(
        self, authorization: str | None, *, address: str, is_machine: bool = False
    ) -> Principal:
        """Return the caller and count its request.

        A fleet of agents shares a key, so its polls and syncs are counted more generously.

        Raises:
            AuthenticationError: no credential, or one that is not good now.
            RateLimitedError: the principal, or an address that keeps failing, is too fast.
        """
        monotonic = self._services.clock.monotonic()
        try:
            principal = await self._resolve(_bearer(authorization), monotonic=monotonic)
        except AuthenticationError:
            self._failures.take(address, monotonic=monotonic)
            raise
        limiter = self._machines if is_machine else self._requests
        limiter.take(principal.id, monotonic=monotonic)
        return principal

    def exchange(self, token: str, *, address: str) -> SignedIn:
        """Spend a one-time sign-in token.

        Raises:
            AuthenticationError: unknown, spent or expired.
            RateLimitedError: the address keeps failing.
        """
        try:
            return self._services.sessions.exchange(token, now=self._services.clock.now())
        except AuthenticationError:
            self._failures.take(address, monotonic=self._services.clock.monotonic())
            raise

    async def _resolve(self, bearer: str, *, monotonic: float) -> Principal:
        now = self._services.clock.now()
        if bearer.startswith(SESSION_PREFIX):
            return self._services.sessions.resolve(bearer, now=now)
        digest = sha256(bearer.encode()).digest()
        principal, until = self._known.get(digest, (None, 0.0))
        if principal is not None and monotonic < until and not _expired(principal, now):
            return principal
        self._known.pop(digest, None)
        principal = await asyncio.to_thread(self._services.keys.resolve, bearer, now=now)
        self._known[digest] = (principal, monotonic + KEY_CACHE_SECONDS)
        if len(self._known) > KEY_CACHE_ENTRIES:
            self._known.popitem(last=False)
        return principal


def _expired(principal: Principal, now: datetime) -> bool:
    return principal.expires_at is not None and now >= principal.expires_at


def _bearer(authorization: str | None) -> str:
    if not authorization:
        raise AuthenticationError("no_credential", "Send `Authorization: Bearer cp_…`")
    scheme, _, credential = authorization.partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise AuthenticationError("not_a_bearer_credential", "Send `Authorization: Bearer cp_…`")
    return credential.strip()


def authentication(app: ASGIApp) -> ASGIApp:
    """Wrap a route: set the connection's `user`; public routes pass without."""

    async def authenticated(scope: Scope, receive: Receive, send: Send) -> None:
        connection = ASGIConnection[Any, Any, Any, Any](scope)
        scope["user"] = scope["auth"] = None
        if not is_public(connection.route_handler):
            gate: Gate = connection.app.state.gate
            address = connection.client.host if connection.client else "unknown"
            authorization = connection.headers.get("authorization")
            scope["user"] = await gate.admit(
                authorization,
                address=address,
                is_machine=connection.route_handler.opt.get("scope") in MACHINE_SCOPES,
            )
        await app(scope, receive, send)

    return authenticated
