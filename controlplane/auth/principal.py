"""Who is asking, what they may do, and whose rows they may see: decided here and nowhere else."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from controlplane.auth.roles import Scope
from controlplane.core.errors import ForbiddenError

ANY_POLICY_SCOPE: Final = "*"


class PrincipalKind(StrEnum):
    """What holds the credential; the first four are key kinds, `cp_<kind>_…`."""

    INGEST = "ingest"
    PROXY = "proxy"
    USER = "user"
    SERVICE = "service"
    SESSION = "session"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A resolved credential; holds no secret.

    `tenants` are the ones it may see; `all_tenants` is the operator of the whole installation, and
    then `tenants` is empty.
    """

    id: str
    kind: PrincipalKind
    name: str
    scopes: frozenset[Scope]
    tenants: tuple[str, ...] = ()
    all_tenants: bool = False
    policy_scopes: tuple[str, ...] = ()
    """Groups of proxies whose policy it may pull and acknowledge; `*` is any."""
    expires_at: datetime | None = None

    def require(self, scope: Scope) -> None:
        """Pass a principal that holds `scope`.

        Raises:
            ForbiddenError: it does not.
        """
        if scope not in self.scopes:
            raise ForbiddenError(f"the scope {scope.value}")

    def require_policy_scope(self, scope: str) -> None:
        """Pass a principal that may pull the policy of this group of proxies.

        Raises:
            ForbiddenError: it may not.
        """
        if not {scope, ANY_POLICY_SCOPE} & set(self.policy_scopes):
            raise ForbiddenError(f"access to the policy scope {scope!r}")

    def may_see(self, tenant: str) -> bool:
        """Whether rows of `tenant` are this principal's to see."""
        return self.all_tenants or tenant in self.tenants


def visible_tenants(
    principal: Principal, *, known: Iterable[str], wanted: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the tenants that a query of `principal` is restricted to, sorted.

    `known` is every tenant of the installation (what an operator sees); `wanted` narrows the
    answer. An unknown tenant and somebody else's are refused alike, so names can not be probed.

    Raises:
        ForbiddenError: a wanted tenant is not the principal's.
    """
    allowed = set(known) if principal.all_tenants else set(principal.tenants)
    narrowed = set(wanted)
    for tenant in sorted(narrowed - allowed):
        raise ForbiddenError(f"access to the tenant {tenant!r}")
    return tuple(sorted(narrowed or allowed))
