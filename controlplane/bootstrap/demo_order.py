"""The order that `up --demo` gives to the demonstration: fresh keys, and whether history is due."""

from controlplane.auth.principal import PrincipalKind
from controlplane.bootstrap.demo import DemoOrder
from controlplane.bootstrap.metadata import make_key, open_keys, open_metadata
from controlplane.core.ids import DEFAULT_TENANT
from controlplane.settings import Settings
from controlplane.signals.sender import TenantMap
from controlplane.simulate.demo import DemoKeys
from controlplane.simulate.demo_world import TENANTS
from controlplane.store.metadata.keys import NewKey


def make_order(settings: Settings, *, otlp: str, api: str, history: bool) -> DemoOrder:
    """Make this run's demo keys; the history is sent once per data directory."""
    engine = open_metadata(settings)
    keys = open_keys(settings, engine)

    def key(kind: PrincipalKind, role: str, tenant: str = DEFAULT_TENANT) -> str:
        mapped = TenantMap(DemoKeys().tenant_attribute) if role in {"proxy", "engine"} else None
        operator = kind is PrincipalKind.SERVICE
        wanted = NewKey(
            kind=kind,
            role=role,
            name=f"demo {role}",
            tenant=tenant,
            tenant_map=mapped,
            all_tenants=operator,
        )
        return make_key(keys, wanted).text

    order = DemoOrder(
        otlp=otlp,
        api=api,
        admin_key=key(PrincipalKind.SERVICE, "admin"),
        keys=DemoKeys(
            proxy=key(PrincipalKind.INGEST, "proxy"),
            engine=key(PrincipalKind.INGEST, "engine"),
            clients={name: key(PrincipalKind.INGEST, "client", name) for name in TENANTS},
        ),
        history=history,
    )
    engine.dispose()
    return order
