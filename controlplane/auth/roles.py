"""Scopes, and the role x scope matrix as data; routes name the scope they need."""

from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """One permission; a route needs exactly one."""

    COSTS_READ = "costs:read"
    CALLS_READ = "calls:read"
    CONTENT_READ = "content:read"
    BUDGETS_READ = "budgets:read"
    BUDGETS_WRITE = "budgets:write"
    POLICY_PULL = "policy:pull"
    POLICY_READ = "policy:read"
    POLICY_WRITE = "policy:write"
    SYNC = "sync:write"
    INGEST = "ingest:write"
    KEYS_ADMIN = "keys:admin"
    SUBJECTS_ERASE = "subjects:erase"
    ALERTS_READ = "alerts:read"
    ALERTS_ACK = "alerts:ack"
    SCORES_WRITE = "scores:write"
    BUSINESS_WRITE = "business:write"
    QUALITY_READ = "quality:read"
    PRICES_READ = "prices:read"
    ATTRIBUTION_READ = "attribution:read"
    ATTRIBUTION_WRITE = "attribution:write"
    PRICES_WRITE = "prices:write"
    EXPORTS = "exports:create"
    METRICS_READ = "metrics:read"
    HEALTH_READ = "health:read"
    ME = "me:read"


class Role(StrEnum):
    """What a principal is for; a key holds roles' scopes or a subset of them."""

    ADMIN = "admin"
    FINANCE = "finance"
    ENGINEERING_LEAD = "engineering_lead"
    ON_CALL = "on_call"
    AUDITOR = "auditor"
    VIEWER = "viewer"
    PROXY = "proxy"
    COLLECTOR = "collector"


_LOOK: Final = frozenset(
    {
        Scope.COSTS_READ,
        Scope.BUDGETS_READ,
        Scope.ALERTS_READ,
        Scope.QUALITY_READ,
        Scope.PRICES_READ,
        Scope.ATTRIBUTION_READ,
        Scope.HEALTH_READ,
        Scope.ME,
    }
)

ROLE_SCOPES: Final[dict[Role, frozenset[Scope]]] = {
    # Everything but the machine-to-machine scopes: an admin's key must not pass for a proxy's.
    Role.ADMIN: frozenset(Scope) - {Scope.SYNC, Scope.POLICY_PULL, Scope.INGEST},
    Role.FINANCE: _LOOK
    | {
        Scope.ATTRIBUTION_WRITE,
        Scope.BUDGETS_WRITE,
        Scope.BUSINESS_WRITE,
        Scope.PRICES_WRITE,
        Scope.POLICY_READ,
        Scope.EXPORTS,
    },
    Role.ENGINEERING_LEAD: _LOOK | {Scope.CALLS_READ, Scope.POLICY_READ, Scope.SCORES_WRITE},
    Role.ON_CALL: _LOOK
    | {
        Scope.CALLS_READ,
        Scope.POLICY_READ,
        Scope.ALERTS_ACK,
        Scope.METRICS_READ,
        Scope.SCORES_WRITE,
    },
    # Sees and exports, changes nothing (separation of duties).
    Role.AUDITOR: _LOOK | {Scope.CALLS_READ, Scope.POLICY_READ, Scope.EXPORTS},
    Role.VIEWER: _LOOK,
    Role.PROXY: frozenset(
        {Scope.SYNC, Scope.POLICY_PULL, Scope.INGEST, Scope.SCORES_WRITE, Scope.ME}
    ),
    # An application that reports its calls may say what its users think of them.
    Role.COLLECTOR: frozenset({Scope.INGEST, Scope.SCORES_WRITE, Scope.ME}),
}


def scopes_of(roles: tuple[Role, ...]) -> frozenset[Scope]:
    """Return the union of the roles' scopes."""
    return frozenset[Scope]().union(*(ROLE_SCOPES[role] for role in roles))
