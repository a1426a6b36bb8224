"""Refused calls over HTTP: told by an agent, read by their tenant."""

from typing import Any

from controlplane.auth.roles import ROLE_SCOPES, Role


def test_refused_calls_are_read_by_their_tenant_alone(api: Any, keys: Any, clock: Any) -> None:
    hour = clock.now().replace(minute=0, second=0, microsecond=0).isoformat()
    row = {"hour": hour, "last_at": clock.now().isoformat(), "code": "policy_denied", "calls": 4}
    said = {"node": "n", "boot_id": "h", "refused": [{**row, "rule": "no-x", "tenant": "acme"}]}
    with api.client(keys.add("acme", scopes=ROLE_SCOPES[Role.PROXY])) as proxy:
        for _ in range(2):
            assert proxy.post("/api/v1/sync", json=said).is_success
    with api.client(keys.add("acme", scopes=ROLE_SCOPES[Role.FINANCE])) as finance:
        found = finance.get("/api/v1/refusals", params={"range": "24h"}).json()
    assert 4 == found["meta"]["calls"]
    (one,) = found["rows"]
    assert ("acme", None, "no-x", "policy_denied", 4) == (
        *(one["tenant"], one["budget_id"], one["rule"], one["code"], one["calls"]),
    )
    with api.client(keys.add("globex", scopes=ROLE_SCOPES[Role.FINANCE])) as other:
        assert [] == other.get("/api/v1/refusals", params={"range": "24h"}).json()["rows"]
