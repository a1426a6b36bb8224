"""API keys: made once, stored as a keyed hash, resolved to a principal or an ingest sender."""

import contextlib
import threading
from datetime import datetime, timedelta
from typing import Final, cast

import msgspec
from sqlalchemy import Engine, Row, insert, select, update

from controlplane.auth.api_key import (
    KeyText,
    ParsedKey,
    hash_secret,
    new_key,
    parse_key,
    verify_secret,
)
from controlplane.auth.principal import Principal, PrincipalKind
from controlplane.auth.roles import Role, Scope, scopes_of
from controlplane.core.errors import (
    AuthenticationError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from controlplane.core.ids import DEFAULT_DOMAIN, DEFAULT_TENANT
from controlplane.signals.sender import Sender, TenantMap
from controlplane.signals.vocabulary import KeyRole
from controlplane.store.metadata.engine import reading, writing
from controlplane.store.metadata.tables import api_key

USED_EVERY: Final = timedelta(minutes=1)
"""`last_used_at` is written at most this often: a write for every request would cost more than it."""
_INGEST_ROLES: Final = (KeyRole.CLIENT, KeyRole.PROXY, KeyRole.ENGINE)
_MAPPING_ROLES: Final = frozenset({KeyRole.PROXY.value, KeyRole.ENGINE.value})


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is for.

    `role` is client, proxy or engine for an ingest key, `proxy` for a proxy key, and the name of
    an access role for the others. Proxy and engine keys may carry a `tenant_map`.
    """

    kind: PrincipalKind
    role: str
    name: str = ""
    tenant: str = DEFAULT_TENANT
    all_tenants: bool = False
    domain: str = DEFAULT_DOMAIN
    tenant_map: TenantMap | None = None
    policy_scopes: tuple[str, ...] = ("default",)
    expires_at: datetime | None = None
    dimensions: dict[str, str] = {}
    """What is said of all that is ingested under it, as `{"team": "search"}`."""


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it may be listed: everything but its secret."""

    id: str
    kind: PrincipalKind
    role: str
    name: str
    tenant: str
    all_tenants: bool
    domain: str
    scopes: tuple[Scope, ...]
    policy_scopes: tuple[str, ...]
    tenant_map: TenantMap | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    dimensions: dict[str, str] = {}

    def principal(self) -> Principal:
        """Cross to who is asking.

        A key that maps attributes to tenants acts for all it can map to.
        """
        mapped = self.tenant_map.tenants if self.tenant_map else {}
        return Principal(
            id=self.id,
            kind=self.kind,
            name=self.name or self.id,
            scopes=frozenset(self.scopes),
            tenants=()
            if self.all_tenants or mapped is None
            else tuple(sorted({self.tenant, *mapped.values()})),
            all_tenants=self.all_tenants or mapped is None,
            policy_scopes=self.policy_scopes,
            expires_at=self.expires_at,
        )


class KeyRepository:
    """Every API key of the installation; safe for threads."""

    def __init__(self, engine: Engine, *, pepper: bytes) -> None:
        """Take the pepper that every secret is hashed with; it is kept apart from the database."""
        self._engine = engine
        self._pepper = pepper
        self._absent = hash_secret("", pepper)
        self._used: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def create(self, wanted: NewKey, *, key_id: str, secret_bytes: bytes, now: datetime) -> KeyText:
        """Keep a new key and return its text, this once.

        Raises:
            InvalidInputError: kind and role do not go together.
            ConflictError: the id is taken.
        """
        scopes = _scopes(wanted)
        made = new_key(wanted.kind, key_id, secret_bytes)
        row = {
            "id": made.key_id,
            "kind": wanted.kind.value,
            "role": wanted.role,
            "name": wanted.name,
            "tenant": wanted.tenant,
            "all_tenants": wanted.all_tenants,
            "domain": wanted.domain,
            "scopes": msgspec.json.encode(sorted(scope.value for scope in scopes)).decode(),
            "policy_scopes": msgspec.json.encode(wanted.policy_scopes).decode(),
            "secret_hash": hash_secret(made.secret, self._pepper),
            "tenant_map": msgspec.json.encode(wanted.tenant_map).decode()
            if wanted.tenant_map
            else None,
            "created_at": now,
            "expires_at": wanted.expires_at,
            "dimensions": msgspec.json.encode(wanted.dimensions, order="sorted").decode(),
        }
        with writing(self._engine) as connection:
            connection.execute(insert(api_key), row)
        return made

    def resolve(self, bearer: str, *, now: datetime) -> Principal:
        """Return whose key this is; an unknown id takes as long as a wrong secret.

        Raises:
            AuthenticationError: malformed, unknown, expired or revoked.
            UnavailableError: the database can not be read now.
        """
        return self._known(bearer, now).principal()

    def sender(self, bearer: str, *, now: datetime) -> Sender:
        """Return whom telemetry under this key is from.

        Raises:
            AuthenticationError: malformed, unknown, expired or revoked.
            ForbiddenError: a key that may not ingest.
            UnavailableError: the database can not be read now.
        """
        record = self._known(bearer, now)
        if Scope.INGEST not in record.scopes:
            raise ForbiddenError(f"the scope {Scope.INGEST.value}")
        return Sender(
            domain=record.domain,
            tenant=record.tenant,
            key_id=record.id,
            key_role=KeyRole(record.role),
            tenant_map=record.tenant_map,
            dimensions=record.dimensions,
        )

    def list(self) -> list[KeyRecord]:
        """Return every key, revoked ones included, oldest first."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(api_key).order_by(api_key.c.created_at, api_key.c.id))
            return [from_row(row) for row in rows]

    def revoke(self, key_id: str, *, now: datetime) -> None:
        """End a key; twice is once.

        Raises:
            NotFoundError: there is none of that id.
        """
        with writing(self._engine) as connection:
            known = connection.execute(select(api_key.c.id).where(api_key.c.id == key_id)).first()
            if known is None:
                raise NotFoundError("key", key_id)
            connection.execute(
                update(api_key)
                .where(api_key.c.id == key_id, api_key.c.revoked_at.is_(None))
                .values(revoked_at=now)
            )

    def _known(self, bearer: str, now: datetime) -> KeyRecord:
        claimed = parse_key(bearer)
        record = self._verified(claimed)
        if record.revoked_at is not None and now >= record.revoked_at:
            raise AuthenticationError("revoked_key", "Ask an administrator for a new key")
        if record.expires_at is not None and now >= record.expires_at:
            raise AuthenticationError("expired_key", "Ask an administrator for a new key")
        self._note_use(record.id, now)
        return record

    def _verified(self, claimed: ParsedKey) -> KeyRecord:
        with reading(self._engine) as connection:
            row = connection.execute(select(api_key).where(api_key.c.id == claimed.key_id)).first()
        stored = row.secret_hash if row is not None else self._absent
        right = verify_secret(claimed.secret, stored, self._pepper)
        if row is None or not right or row.kind != claimed.kind.value:
            raise AuthenticationError("unknown_key", "Check the key, or ask for a new one")
        return from_row(row)

    def _note_use(self, key_id: str, now: datetime) -> None:
        with self._lock:
            last = self._used.get(key_id)
            if last is not None and now - last < USED_EVERY:
                return
            self._used[key_id] = now
        # Knowing when a key was used is worth a write, not a refused request.
        with contextlib.suppress(UnavailableError), writing(self._engine) as connection:
            connection.execute(
                update(api_key).where(api_key.c.id == key_id).values(last_used_at=now)
            )


def from_row(row: Row[tuple[object, ...]]) -> KeyRecord:
    """Cross from the store; the hash stays behind."""
    # SQLAlchemy's column names are a subclass of str, which msgspec does not take for keys.
    fields = {str(name): value for name, value in row._mapping.items()}  # noqa: SLF001 - public
    del fields["secret_hash"]
    for name in ("scopes", "policy_scopes", "dimensions"):
        fields[name] = msgspec.json.decode(cast("str", fields[name]))
    if fields["tenant_map"] is not None:
        fields["tenant_map"] = msgspec.json.decode(cast("str", fields["tenant_map"]))
    return msgspec.convert(fields, KeyRecord)


def _scopes(wanted: NewKey) -> frozenset[Scope]:
    if not wanted.policy_scopes or not all(wanted.policy_scopes):
        raise InvalidInputError("policy_scopes", "names none, or an empty one", "Name a scope")
    if wanted.tenant_map is not None and wanted.role not in _MAPPING_ROLES:
        raise InvalidInputError(
            "tenant_map", "is for proxy and engine keys", "A client never chooses its tenant"
        )
    if wanted.dimensions and wanted.kind not in {PrincipalKind.INGEST, PrincipalKind.PROXY}:
        raise InvalidInputError("dimensions", "are for keys that ingest", "Use ingest or proxy")
    allowed: dict[str, frozenset[Scope]] = {}
    match wanted.kind:
        case PrincipalKind.INGEST:
            allowed = {role.value: scopes_of((Role.COLLECTOR,)) for role in _INGEST_ROLES}
        case PrincipalKind.PROXY:
            allowed = {KeyRole.PROXY.value: scopes_of((Role.PROXY,))}
        case PrincipalKind.USER | PrincipalKind.SERVICE:
            machine = {Role.PROXY, Role.COLLECTOR}
            allowed = {role.value: scopes_of((role,)) for role in Role if role not in machine}
        case PrincipalKind.SESSION:
            raise InvalidInputError("kind", "a session is no key", "Use user or service")
    if wanted.role not in allowed:
        raise InvalidInputError(
            "role",
            f"{wanted.role!r} is not for {wanted.kind.value} keys",
            f"Use {', '.join(allowed)}",
        )
    return allowed[wanted.role]
