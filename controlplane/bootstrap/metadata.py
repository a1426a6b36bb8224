"""The metadata database of a role: opened, migrated, and the keys in it."""

import secrets
from datetime import timedelta

import msgspec
from sqlalchemy import Engine

from controlplane.attribution.rules import read_fixed
from controlplane.auth.api_key import KeyText
from controlplane.auth.principal import PrincipalKind
from controlplane.bootstrap.one_owner import ready_directory
from controlplane.bootstrap.places import KEY_PEPPER, SIGNING_KEY
from controlplane.bootstrap.system import SystemClock, UlidIds, secret_file
from controlplane.core.errors import InvalidInputError
from controlplane.policy.bundle import Signer
from controlplane.settings import Settings
from controlplane.signals.sender import TenantMap
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.keys import KeyRepository, NewKey
from controlplane.store.metadata.migrate import migrate

SECRET_BYTES = 32


class MadeKey(msgspec.Struct, frozen=True):
    """A key that was just made; its text is shown this once."""

    id: str
    kind: str
    role: str
    tenant: str
    text: str
    policy_keys: dict[str, str]
    """What an agent pins: the public keys that policies are signed with, kid → base64."""


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is asked for on the command line."""

    kind: str
    role: str
    tenant: str
    all_tenants: bool
    tenant_attribute: str | None
    policy_scopes: tuple[str, ...]
    expires_days: int
    dimensions: dict[str, str] = {}


def open_metadata(settings: Settings) -> Engine:
    """Open the metadata database at this version's schema.

    Raises:
        ConfigError: the data directory can not be written.
        UnavailableError: it can not be reached, or is of a newer version.
    """
    ready_directory(settings.data_dir)
    engine = open_engine(settings.metadata_url)
    migrate(engine)
    return engine


def open_keys(settings: Settings, engine: Engine) -> KeyRepository:
    """Open the key table with the pepper that is kept apart from it."""
    return KeyRepository(engine, pepper=secret_file(settings.secrets_dir / KEY_PEPPER))


def migrate_database(settings: Settings) -> str:
    """Bring the database to the newest schema and say so."""
    engine = open_metadata(settings)
    engine.dispose()
    return "The metadata database is at this version's schema."


def make_key(keys: KeyRepository, wanted: NewKey) -> KeyText:
    """Draw an id and a secret, and keep the key."""
    key_id = UlidIds().new("k").removeprefix("k_")
    secret = secrets.token_bytes(SECRET_BYTES)
    return keys.create(wanted, key_id=key_id, secret_bytes=secret, now=SystemClock().now())


def create_key(settings: Settings, asked: KeyRequest) -> MadeKey:
    """Make a key from the command line.

    Raises:
        InvalidInputError: kind and role do not go together.
    """
    if asked.kind not in set(PrincipalKind) - {PrincipalKind.SESSION}:
        raise InvalidInputError("kind", f"{asked.kind!r}", "Use ingest, proxy, user or service")
    engine = open_metadata(settings)
    wanted = NewKey(
        kind=PrincipalKind(asked.kind),
        role=asked.role,
        tenant=asked.tenant,
        all_tenants=asked.all_tenants,
        policy_scopes=asked.policy_scopes,
        dimensions=read_fixed(asked.dimensions),
        tenant_map=TenantMap(asked.tenant_attribute) if asked.tenant_attribute else None,
        expires_at=SystemClock().now() + timedelta(days=asked.expires_days),
    )
    made = make_key(open_keys(settings, engine), wanted)
    engine.dispose()
    return MadeKey(
        id=made.key_id,
        kind=asked.kind,
        role=asked.role,
        tenant=asked.tenant,
        text=made.text,
        policy_keys=open_signer(settings).pinned,
    )


def open_signer(settings: Settings) -> Signer:
    """Open the key that policies and exports are signed with."""
    return Signer(secret_file(settings.secrets_dir / SIGNING_KEY))
