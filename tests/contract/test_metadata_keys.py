"""API keys on both databases: shown once, stored as a hash, refused when they should be."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from controlplane.auth.principal import PrincipalKind
from controlplane.auth.roles import Role, Scope, scopes_of
from controlplane.core.errors import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
)
from controlplane.signals.sender import KEYLESS_SENDER, Sender, TenantMap
from controlplane.signals.vocabulary import KeyRole
from controlplane.store.metadata.engine import reading
from controlplane.store.metadata.keys import KeyRepository, NewKey
from controlplane.store.metadata.senders import REMEMBERED_FOR, SenderResolver

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
PEPPER = b"p" * 32


@pytest.fixture
def keys(metadata_engine: Engine) -> KeyRepository:
    return KeyRepository(metadata_engine, pepper=PEPPER)


def make(keys: KeyRepository, wanted: NewKey, key_id: str = "k1") -> str:
    return keys.create(wanted, key_id=key_id, secret_bytes=bytes(range(32)), now=NOW).text


VIEWER = NewKey(kind=PrincipalKind.USER, role="viewer", tenant="acme")
INGEST = NewKey(kind=PrincipalKind.INGEST, role="client", tenant="acme", domain="d")


def test_key_resolves_to_its_principal(keys: KeyRepository) -> None:
    """Kind, tenant and the scopes of its role."""
    principal = keys.resolve(make(keys, VIEWER), now=NOW)
    assert ("k1", PrincipalKind.USER) == (principal.id, principal.kind)
    assert scopes_of((Role.VIEWER,)) == principal.scopes
    assert ("acme",) == principal.tenants
    assert not principal.all_tenants


def test_secret_is_not_in_the_database(keys: KeyRepository, metadata_engine: Engine) -> None:
    """Only a keyed hash of it; another pepper resolves nothing."""
    bearer = make(keys, VIEWER)
    secret = bearer.rpartition("_")[2]
    with reading(metadata_engine) as connection:
        stored = repr(connection.execute(text("SELECT * FROM api_key")).all())
    assert "k1" in stored
    assert secret not in stored
    assert repr(bytes.fromhex(secret))[2:-1] not in stored
    with pytest.raises(AuthenticationError):
        KeyRepository(metadata_engine, pepper=b"q" * 32).resolve(bearer, now=NOW)


@pytest.mark.parametrize(
    "broken",
    [
        lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
        lambda text: text.replace("_k1_", "_k2_"),
        lambda text: text.replace("cp_user_", "cp_service_"),
        lambda text: text.upper(),
        lambda text: text + "\n",
        lambda _text: "",
        lambda _text: "cp_user_k1_",
    ],
    ids=["secret", "id", "kind", "case", "newline", "empty", "no secret"],
)
def test_wrong_key_is_refused(keys: KeyRepository, broken: object) -> None:
    """Whatever is wrong with it, and the message does not repeat it."""
    bearer = make(keys, VIEWER)
    assert callable(broken)
    wrong = broken(bearer)
    with pytest.raises(AuthenticationError) as refused:
        keys.resolve(wrong, now=NOW)
    assert bearer.rpartition("_")[2] not in str(refused.value)


def test_expired_and_revoked_keys_are_refused(keys: KeyRepository) -> None:
    """From that moment on, and revoking twice is once."""
    end = NOW + timedelta(days=1)
    limited = make(
        keys, NewKey(kind=PrincipalKind.USER, role="viewer", expires_at=end), key_id="short"
    )
    keys.resolve(limited, now=end - timedelta(microseconds=1))
    with pytest.raises(AuthenticationError, match="expired"):
        keys.resolve(limited, now=end)
    revoked = make(keys, VIEWER)
    keys.revoke("k1", now=NOW)
    keys.revoke("k1", now=end)
    with pytest.raises(AuthenticationError, match="revoked"):
        keys.resolve(revoked, now=NOW)
    assert {"short": None, "k1": NOW} == {key.id: key.revoked_at for key in keys.list()}
    with pytest.raises(NotFoundError):
        keys.revoke("nobody", now=NOW)


def test_an_id_is_used_once(keys: KeyRepository) -> None:
    """A second key of that id would take over the first."""
    make(keys, VIEWER)
    with pytest.raises(ConflictError):
        make(keys, VIEWER)


def test_last_use_is_noted_at_most_once_a_minute(keys: KeyRepository) -> None:
    """A write for every request would cost more than the request."""
    bearer = make(keys, VIEWER)
    assert keys.list()[0].last_used_at is None
    keys.resolve(bearer, now=NOW)
    keys.resolve(bearer, now=NOW + timedelta(seconds=59))
    assert NOW == keys.list()[0].last_used_at
    later = NOW + timedelta(seconds=60)
    keys.resolve(bearer, now=later)
    assert later == keys.list()[0].last_used_at


def test_mapped_tenants_are_the_keys_own(keys: KeyRepository) -> None:
    """A proxy acts for every tenant it can map to; without a list, for all."""
    table = NewKey(
        kind=PrincipalKind.PROXY,
        role="proxy",
        tenant="own",
        tenant_map=TenantMap("user.id", {"u1": "acme", "u2": "globex"}),
    )
    principal = keys.resolve(make(keys, table), now=NOW)
    assert ("acme", "globex", "own") == principal.tenants
    assert {Scope.SYNC, Scope.POLICY_PULL} < principal.scopes
    identity = NewKey(kind=PrincipalKind.PROXY, role="proxy", tenant_map=TenantMap("user.id"))
    assert keys.resolve(make(keys, identity, "k2"), now=NOW).all_tenants


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        (PrincipalKind.INGEST, "agent"),
        (PrincipalKind.INGEST, "unknown"),
        (PrincipalKind.INGEST, "admin"),
        (PrincipalKind.PROXY, "client"),
        (PrincipalKind.USER, "proxy"),
        (PrincipalKind.SERVICE, "collector"),
        (PrincipalKind.SESSION, "viewer"),
    ],
)
def test_kind_and_role_must_go_together(
    keys: KeyRepository, kind: PrincipalKind, role: str
) -> None:
    """No key can claim to be an agent, and none is both a person's and a machine's."""
    with pytest.raises(InvalidInputError):
        make(keys, NewKey(kind=kind, role=role))


def test_client_never_chooses_its_tenant(keys: KeyRepository) -> None:
    """Only proxy and engine keys may map (algorithms C4)."""
    mapping = TenantMap("user.id")
    with pytest.raises(InvalidInputError):
        make(keys, NewKey(kind=PrincipalKind.INGEST, role="client", tenant_map=mapping))
    make(keys, NewKey(kind=PrincipalKind.INGEST, role="engine", tenant_map=mapping))


def test_sender_of_telemetry(keys: KeyRepository) -> None:
    """What the receivers write beside every payload."""
    expected = Sender(domain="d", tenant="acme", key_id="k1", key_role=KeyRole.CLIENT)
    assert expected == keys.sender(make(keys, INGEST), now=NOW)
    proxy = make(keys, NewKey(kind=PrincipalKind.PROXY, role="proxy"), "k2")
    assert KeyRole.PROXY == keys.sender(proxy, now=NOW).key_role
    with pytest.raises(ForbiddenError):
        keys.sender(make(keys, VIEWER, "k3"), now=NOW)


def test_resolver_forgets_a_revoked_key_in_time(keys: KeyRepository) -> None:
    """Remembered for a moment, because it is asked for every request."""
    resolver = SenderResolver(keys, keyless=False)
    header = f"Bearer {make(keys, INGEST)}"
    assert "acme" == resolver.resolve(header, now=NOW).tenant
    keys.revoke("k1", now=NOW)
    just_before = NOW + REMEMBERED_FOR - timedelta(microseconds=1)
    assert "acme" == resolver.resolve(header, now=just_before).tenant
    with pytest.raises(AuthenticationError):
        resolver.resolve(header, now=NOW + REMEMBERED_FOR)


def test_keyless_sender_only_where_allowed(keys: KeyRepository) -> None:
    """Loopback lets a newcomer in without a key; a wrong key is refused even there."""
    assert KEYLESS_SENDER == SenderResolver(keys, keyless=True).resolve(None, now=NOW)
    for resolver, header in (
        (SenderResolver(keys, keyless=False), None),
        (SenderResolver(keys, keyless=True), "Basic abc"),
        (SenderResolver(keys, keyless=True), "Bearer nonsense"),
    ):
        with pytest.raises(AuthenticationError):
            resolver.resolve(header, now=NOW)
