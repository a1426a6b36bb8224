"""Who telemetry is from, as an ingest key says; the receivers, ingest and attribution share it."""

import msgspec

from controlplane.core.ids import DEFAULT_DOMAIN, DEFAULT_TENANT
from controlplane.signals.vocabulary import KeyRole


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


KEYLESS_SENDER = Sender()
"""A loopback sender without a key, where the embedded mode allows one."""
