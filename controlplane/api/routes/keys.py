"""API keys: made and shown once, listed without secret, revoked."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath, JSONBody

from controlplane.api import params as p
from controlplane.api.guards import ApiRequest, Injected, needs
from controlplane.api.services import KeyInfo, KeyOrder, Services
from controlplane.attribution.rules import read_fixed
from controlplane.auth.principal import Principal, PrincipalKind
from controlplane.auth.roles import Scope
from controlplane.core.errors import ForbiddenError, InvalidInputError, NotFoundError

MAX_NAME: Final = 100
KINDS: Final = (
    PrincipalKind.INGEST,
    PrincipalKind.PROXY,
    PrincipalKind.USER,
    PrincipalKind.SERVICE,
)


class KeyList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/keys`."""

    rows: tuple[KeyInfo, ...]


class NewKey(msgspec.Struct, frozen=True):
    """A key as its owner must keep it now: it is not shown again."""

    id: str
    key: str


class KeyController(Controller):
    """`/api/v1/keys`."""

    path = "/api/v1/keys"
    tags: Sequence[str] | None = ("keys",)

    @get("/", **needs(Scope.KEYS_ADMIN), sync_to_thread=True)
    def keys(self, request: ApiRequest, services: Injected) -> KeyList:
        """List the keys of the caller's tenants, revoked ones included."""
        p.read(request.query_params.multi_items(), params=())
        return KeyList(tuple(key for key in _known(services) if _is_mine(request.user, key)))

    @post("/", **needs(Scope.KEYS_ADMIN, 409), sync_to_thread=True)
    def create(self, request: ApiRequest, data: JSONBody[KeyOrder], services: Injected) -> NewKey:
        """Make a key; nobody can give a key more tenants than their own has."""
        now = services.clock.now()
        _check(data, request.user, now=now)
        made = services.create_key(data, now)
        return NewKey(made.key_id, made.text)

    @delete("/{key_id:str}", **needs(Scope.KEYS_ADMIN, 404), sync_to_thread=True)
    def revoke(self, request: ApiRequest, key_id: FromPath[str], services: Injected) -> None:
        """End a key; it is refused within two seconds."""
        key = _visible(request.user, services, key_id)
        services.keys.revoke(key.id, now=services.clock.now())


def _check(order: KeyOrder, who: Principal, *, now: datetime) -> None:
    if order.kind not in KINDS:
        raise InvalidInputError("kind", "not a kind of key", f"Use {', '.join(KINDS)}")
    if not 0 < len(order.name) <= MAX_NAME:
        raise InvalidInputError("name", "empty or too long", f"Give 1 to {MAX_NAME} characters")
    if order.expires_at is not None and order.expires_at.tzinfo is None:
        raise InvalidInputError("expires_at", "has no offset", "Write RFC 3339 with an offset")
    if order.expires_at is not None and order.expires_at <= now:
        raise InvalidInputError("expires_at", "is past", "Give a time to come")
    read_fixed(order.dimensions)
    if who.all_tenants:
        return
    # Identity maps (no `tenants`) speak for any tenant, so they are for operators as well.
    if order.all_tenants or (order.tenant_map is not None and order.tenant_map.tenants is None):
        raise ForbiddenError("access to all tenants")
    mapped = (order.tenant_map.tenants or {}).values() if order.tenant_map else ()
    for tenant in (order.tenant, *mapped):
        if not who.may_see(tenant):
            raise ForbiddenError(f"access to the tenant {tenant!r}")


def _is_mine(who: Principal, key: KeyInfo) -> bool:
    return who.all_tenants or (who.may_see(key.tenant) and not key.all_tenants)


def _visible(who: Principal, services: Services, key_id: str) -> KeyInfo:
    for key in _known(services):
        if key.id == key_id and _is_mine(who, key):
            return key
    raise NotFoundError("key", key_id)


def _known(services: Services) -> list[KeyInfo]:
    return [msgspec.convert(key, KeyInfo, from_attributes=True) for key in services.keys.list()]
