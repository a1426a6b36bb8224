"""Everything a request may reach, handed in once; the API opens nothing by itself."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import msgspec

from controlplane.api.sessions import Sessions
from controlplane.auth.principal import Principal
from controlplane.core.clock import Clock
from controlplane.core.ids import IdFactory
from controlplane.signals.ports import SpanReader


class KeyDirectory(Protocol):
    """Where API keys are known."""

    def resolve(self, bearer: str, *, now: datetime) -> Principal:
        """Return whose key this is, in constant time for every wrong secret.

        Raises:
            AuthenticationError: malformed, unknown, expired or revoked.
        """
        ...


class HealthCheck(msgspec.Struct, frozen=True):
    """One dependency: `probe` returns a short detail, or raises when it does not work."""

    name: str
    probe: Callable[[], str]
    vital: bool = True
    """Without it the service is not ready; a check that is not vital only degrades."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of one running API."""

    reader: SpanReader
    keys: KeyDirectory
    sessions: Sessions
    clock: Clock
    ids: IdFactory
    version: str
    zone: str = "UTC"
    checks: tuple[HealthCheck, ...] = ()
    requests_per_minute: int = 6_000
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
