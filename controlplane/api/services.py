"""Everything a request may reach, handed in once; the API opens nothing by itself."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import msgspec

from controlplane.alerts.alert import Alert
from controlplane.api.exports import ExportJobs
from controlplane.api.policy_watch import SignedPolicy
from controlplane.api.sessions import Sessions
from controlplane.auth.principal import Principal
from controlplane.budgets.ports import Budgets
from controlplane.core.clock import Clock
from controlplane.core.ids import IdFactory
from controlplane.policy.wire import SyncReply, SyncRequest
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


class AlertList(Protocol):
    """Where alerts are kept."""

    def alerts(self) -> list[Alert]:
        """Return every alert that is not forgotten."""
        ...


class PolicySource(Protocol):
    """Where signed generations are kept."""

    def newest(self, scope: str) -> SignedPolicy | None:
        """Return the newest generation of a scope; None when it never had one.

        Raises:
            UnavailableError: it can not be read now.
        """
        ...


class Publisher(Protocol):
    """The flow from rules and budgets to signed generations."""

    def republish(self, *, by: str, now: datetime) -> None:
        """Compile every scope again, because budgets changed; durable on return.

        A scope whose document stays the same keeps its generation.

        Raises:
            PolicyError: it does not compile; what was published stays.
        """
        ...


Sync = Callable[[SyncRequest, Principal, datetime], SyncReply]
"""The sync flow, bound to its store and price book; one transaction, idempotent by hold id."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of one running API."""

    reader: SpanReader
    keys: KeyDirectory
    policies: PolicySource
    sync: Sync
    publisher: Publisher
    budgets: Budgets
    exports: ExportJobs
    alerts: AlertList
    sessions: Sessions
    clock: Clock
    ids: IdFactory
    version: str
    zone: str = "UTC"
    checks: tuple[HealthCheck, ...] = ()
    requests_per_minute: int = 6_000
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
