"""Who telemetry is from, as an ingest key says; the receivers, ingest and attribution share it."""

from typing import Final

import msgspec

from controlplane.core.ids import DEFAULT_DOMAIN, DEFAULT_TENANT
from controlplane.signals.vocabulary import KeyRole

MAPPED_ROLES: Final = frozenset({KeyRole.PROXY, KeyRole.ENGINE})
"""Roles whose key may carry a tenant map; a client can not choose its tenant."""


class TenantMap(msgspec.Struct, frozen=True):
    """An admin's rule that lets a proxy or engine key report for several tenants.

    The span's (else the resource's) value of `attribute` is looked up in `tenants`; with no
    `tenants` the value itself is the tenant. Without a match the sender's own tenant stands.
    """

    attribute: str
    tenants: dict[str, str] | None = None


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request is from, as its ingest key says; nothing in the body can change it.

    `tenant_map` is honoured for roles proxy and engine only: a client never chooses its tenant.
    """

    domain: str = DEFAULT_DOMAIN
    """Settlement domain: the scope inside which calls are counted once."""
    tenant: str = DEFAULT_TENANT
    key_id: str = ""
    """Empty for a keyless loopback sender."""
    key_role: KeyRole = KeyRole.UNKNOWN
    tenant_map: TenantMap | None = None
    dimensions: dict[str, str] = {}
    """What an admin says of all that comes under the key: `{"team": "search"}`."""

    @property
    def maps_tenants(self) -> bool:
        """Whether what is said under the key may name another tenant."""
        return self.tenant_map is not None and self.key_role in MAPPED_ROLES

    def tenant_of(self, *said: dict[str, str]) -> str:
        """Return the tenant that the first of `said` with the mapped attribute names, or ours."""
        mapped = self.tenant_map
        if mapped is None or not self.maps_tenants:
            return self.tenant
        told = next((one[mapped.attribute] for one in said if one.get(mapped.attribute)), None)
        if told is None:
            return self.tenant
        return told if mapped.tenants is None else mapped.tenants.get(told, self.tenant)


KEYLESS_SENDER = Sender()
"""A loopback sender without a key, where the embedded mode allows one."""
