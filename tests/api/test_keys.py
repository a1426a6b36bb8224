"""API keys over HTTP: real ones in a real database."""

from typing import Any

import pytest

from controlplane.auth.principal import PrincipalKind
from controlplane.auth.roles import Scope
from controlplane.store.metadata.keys import NewKey

ORDER = {"kind": "service", "role": "viewer", "name": "a dashboard", "tenant": "acme"}


@pytest.fixture
def keeper(keys: Any) -> str:
    """Who manages the keys of acme."""
    bearer: str = keys.add("acme", scopes=frozenset({Scope.KEYS_ADMIN}))
    return bearer


def test_a_key_is_shown_once_works_and_is_revoked(api: Any, keeper: str, clock: Any) -> None:
    with api.client(keeper) as client:
        made = client.post("/api/v1/keys", json=ORDER)
        assert made.status_code == 201
        key = made.json()
        (row,) = client.get("/api/v1/keys").json()["rows"]
        assert key["key"].startswith(f"cp_service_{key['id']}_")
        assert key["key"].rpartition("_")[2] not in str(row)
        assert ("service", "viewer", "acme") == (row["kind"], row["role"], row["tenant"])
        with api.client(key["key"]) as holder:
            assert holder.get("/api/v1/me").json()["tenants"] == ["acme"]
            assert client.delete(f"/api/v1/keys/{key['id']}").status_code == 204
            clock.advance(2)
            assert holder.get("/api/v1/me").status_code == 401
        (row,) = client.get("/api/v1/keys").json()["rows"]
        assert row["revoked_at"] is not None


@pytest.mark.parametrize(
    "more",
    [
        {"tenant": "globex"},
        {"all_tenants": True},
        {"kind": "proxy", "role": "proxy", "tenant_map": {"attribute": "user"}},
        {
            "kind": "proxy",
            "role": "proxy",
            "tenant_map": {"attribute": "user", "tenants": {"g": "globex"}},
        },
    ],
)
def test_nobody_gives_a_key_more_tenants_than_their_own(
    api: Any, keeper: str, more: dict[str, Any]
) -> None:
    with api.client(keeper) as client:
        assert client.post("/api/v1/keys", json=ORDER | more).status_code == 403
        assert client.get("/api/v1/keys").json()["rows"] == []


def test_an_operator_may_map_tenants(api: Any, admin: str) -> None:
    tenant_map = {"attribute": "user", "tenants": {"a": "acme", "g": "globex"}}
    order = ORDER | {"kind": "proxy", "role": "proxy", "tenant_map": tenant_map}
    with api.client(admin) as client:
        made = client.post("/api/v1/keys", json=order).json()
    with api.client(made["key"]) as client:
        assert client.get("/api/v1/me").json()["tenants"] == ["acme", "globex"]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"kind": "session"}, "kind"),
        ({"role": "emperor"}, "role"),
        ({"name": ""}, "name"),
        ({"expires_at": "2026-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2027-01-01T00:00:00"}, "expires_at"),
        ({"scopes": ["keys:admin"]}, "scopes"),
        ({"tenant_map": {"attribute": "user", "tenants": {"a": "acme"}}}, "tenant_map"),
    ],
)
def test_a_wrong_order_names_its_field(
    api: Any, keeper: str, more: dict[str, Any], field: str
) -> None:
    with api.client(keeper) as client:
        answer = client.post("/api/v1/keys", json=ORDER | more)
    assert answer.status_code == 400
    assert field in [error["field"] for error in answer.json()["errors"]], answer.text


def test_keys_of_others_can_not_be_seen_or_revoked(api: Any, keeper: str, keys: Any) -> None:
    theirs = keys.key(NewKey(kind=PrincipalKind.USER, role="viewer", name="t", tenant="globex"))
    key_id = theirs.split("_")[2]
    with api.client(keeper) as client:
        assert client.get("/api/v1/keys").json()["rows"] == []
        assert client.delete(f"/api/v1/keys/{key_id}").status_code == 404
    with api.client(theirs) as client:
        assert client.get("/api/v1/me").status_code == 200
