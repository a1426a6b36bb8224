"""Who may do what: credentials, scopes, tenants, rates. Generated from the route table."""

from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from sqlalchemy import Engine

from controlplane import telemetry
from controlplane.alerts.alert import Alert, AlertState, fingerprint
from controlplane.api.app import create_app
from controlplane.api.authenticate import FAILURES_PER_MINUTE, KEY_CACHE_SECONDS
from controlplane.api.routes.opencost import PATHS
from controlplane.api.services import Services
from controlplane.auth.api_key import parse_key
from controlplane.auth.principal import Principal, PrincipalKind
from controlplane.auth.roles import ROLE_SCOPES, Role, Scope
from controlplane.budgets.budget import Budget
from controlplane.core.calendar import Period
from controlplane.pipelines.sync import sync
from controlplane.policy.bundle import Signer, encode_document
from controlplane.policy.document import Deny, PolicyDocument
from controlplane.policy.history import Cause, Change, Proposal, SignedGeneration
from controlplane.policy.rollout import Rollout, RolloutState
from controlplane.policy.rules import PolicyRules
from controlplane.policy.velocity import Quota, Turn
from controlplane.policy.wire import Generation, Nack, RefusedCalls, SyncRequest
from controlplane.store.metadata.keys import NewKey
from controlplane.store.metadata.quotas import QuotaRepository

PUBLIC = {
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/api/v1/version"),
    ("POST", "/api/v1/session"),
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
}
"""Every route that needs no credential; a new one must be added here by hand."""

NEEDED = {
    "/api/v1/prices": {"provider": "openai", "model": "gpt-4o"},
    "/api/v1/currencies/rates": {"currency": "EUR"},
    "/api/v1/currencies/costs": {"currency": "EUR"},
    **{path: {"window": "7d", "includeIdle": "true"} for path in PATHS},
}
"""Parameters without which a route answers nothing."""


def handlers(app: Litestar) -> list[tuple[str, str, HTTPRouteHandler]]:
    """Every (method, path, handler) of ours."""
    return [
        (method, route.path_format or "/", handler)
        for route in app.routes
        for handler in getattr(route, "route_handlers", [])
        if isinstance(handler, HTTPRouteHandler)
        for method in sorted(handler.http_methods)
        if method != "OPTIONS" and not route.path.startswith("/schema")
    ]


def test_every_route_declares_a_scope_or_is_on_the_public_list(services: Services) -> None:
    found = {(method, path): one.opt for method, path, one in handlers(create_app(services))}
    assert PUBLIC == {route for route, said in found.items() if said.get("public") is True}
    closed = {route for route, said in found.items() if isinstance(said.get("scope"), Scope)}
    assert found.keys() - PUBLIC == closed


def test_every_route_refuses_no_key_wrong_key_and_a_key_without_scope(
    api: Any, services: Services, keys: Any, clock: Any
) -> None:
    """With every scope but the needed one the answer is 403, and it names that one."""
    for method, path, handler in handlers(create_app(services)):
        scope = handler.opt.get("scope")
        if scope is None:
            continue
        clock.advance(60)  # so many refusals from one address are slowed down otherwise
        url = path.replace("{", "").replace("}", "")
        lacking = keys.add("acme", scopes=frozenset(Scope) - {scope})
        with api.client() as client:
            assert client.request(method, url).status_code == 401, (method, path)
        with api.client("cp_user_nobody_nothing") as client:
            assert client.request(method, url).status_code == 401, (method, path)
        with api.client(lacking) as client:
            answer = client.request(method, url)
        assert answer.status_code == 403, (method, path)
        assert scope.value in answer.json()["detail"]


def _policies_of_globex(services: Services, signer: Signer, metadata: Engine) -> Services:
    """Fill every table that policy routes read with what only globex may see."""
    now, policies = services.clock.now(), services.publishing.policies
    change = Change(author="globex", author_id="globex", message="for globex", cause=Cause.RULES)
    rules = PolicyRules(rules=(Deny(id="globex", match={"tenant": ("globex",)}),))
    for gen in (1, 2):
        body = encode_document(
            PolicyDocument(scope="default", gen=gen, issued_at=now, rules=rules.rules)
        )
        policies.add(
            SignedGeneration(
                scope="default",
                generation=Generation(1, gen),
                body=body,
                signature=signer.sign(body),
                sha256=sha256(body).hexdigest(),
                issued_at=now,
                change=change,
                rules=rules,
            )
        )
    policies.save_rollout(
        Rollout(
            scope="default",
            stable=Generation(1, 1),
            candidate=Generation(1, 2),
            nodes=("globex-node",),
            state=RolloutState.REVERTED,
            reason="globex-node refused it",
            started_at=now,
            stage_since=now,
        )
    )
    policies.propose(
        Proposal(
            id="p1",
            rules=rules,
            author="globex",
            author_id="globex",
            message="for globex",
            created_at=now,
            base=Generation(1, 2),
        )
    )
    quota = Quota(
        id="velocity.globex.1",
        scope="default",
        limit_id="globex",
        per="api_key",
        tenant="globex",
        value="globex-key",
        name="globex-key",
        spent_nusd=2,
        limit_nusd=1,
        window_seconds=60,
        since=now,
        until=now + timedelta(hours=1),
    )
    quotas = QuotaRepository(metadata)
    quotas.change("default", lambda _: Turn(kept=(quota,), begun=(quota,)))
    refused = RefusedCalls(
        hour=now.replace(minute=0, second=0, microsecond=0),
        code="policy_denied",
        rule="globex",
        tenant="globex",
        calls=3,
        last_at=now,
    )
    request = SyncRequest(
        node="globex-node",
        boot_id="globex-boot",
        nack=Nack(Generation(1, 2), "globex"),
        refused=(refused,),
    )
    for tenants, node in ((("globex",), "globex-node"), (("acme", "globex"), "globex-too")):
        proxy = Principal(
            id=node, kind=PrincipalKind.PROXY, name=node, scopes=frozenset(), tenants=tenants
        )
        said = msgspec.structs.replace(request, node=node, boot_id=node)
        sync(said, proxy, now, tools=services.sync)
    return msgspec.structs.replace(
        services, publishing=msgspec.structs.replace(services.publishing, quotas=quotas)
    )


def test_no_route_with_tenant_data_mixes_tenants(
    serve: Callable[..., Any],
    services: Services,
    keys: Any,
    budgets: Any,
    alerts: Any,
    signer: Signer,
    metadata: Engine,
) -> None:
    """Key of acme asks every GET route: nothing of globex in any answer (SE-02)."""
    keys.key(viewer("globex"))
    budgets.create(
        Budget(
            id="budget_b",
            name="globex",
            owner="globex",
            tenant="globex",
            limit_nusd=1,
            period=Period.MONTH,
            counts_from=services.clock.now(),
        )
    )
    labels = {"tenant": "globex"}
    alerts.kept.append(
        Alert(
            fingerprint=fingerprint(labels),
            labels=labels,
            annotations={},
            state=AlertState.FIRING,
            since=services.clock.now(),
        )
    )
    api = serve(publishing=_policies_of_globex(services, signer, metadata).publishing)
    key = keys.add("acme", scopes=frozenset(Scope))
    asked = 0
    own = f"{sum(b'acme'):016x}{1:016x}"
    foreign = f"{sum(b'globex'):016x}{1:016x}"
    with api.client(key) as client:
        for method, path, handler in handlers(create_app(services)):
            if method != "GET" or handler.opt.get("public") or handler.opt.get("long_poll"):
                continue
            for trace_id in (own, foreign):
                url = path.replace("{trace_id}", trace_id).replace("{call_id}", f"call_{trace_id}")
                url = url.replace("{budget_id}", "budget_b")
                answer = client.get(url, params=NEEDED.get(path, {}))
                allowed = {403} if handler.opt.get("operator") else {200, 404}
                assert answer.status_code in allowed, (path, answer.text)
                assert b"globex" not in answer.content, path
                asked += 1
    assert asked >= 10
    with api.client(key) as client:
        assert client.get(f"/api/v1/traces/{own}").status_code == 200
        assert client.get(f"/api/v1/traces/{foreign}").status_code == 404
        assert [None, None] == [
            row["author"] for row in client.get("/api/v1/policy/generations").json()["rows"]
        ]
    with api.client(keys.add("globex", scopes=frozenset(Scope))) as client:  # they were there
        for path, count in (("nodes", 1), ("quotas", 1), ("generations", 2)):
            assert count == len(client.get(f"/api/v1/policy/{path}").json()["rows"]), path
        assert ["globex-node"] == client.get("/api/v1/policy/rollout").json()["nodes"]
        assert client.get("/api/v1/refusals").json()["meta"]["calls"] == 6
    with api.client(keys.add(scopes=frozenset(Scope), all_tenants=True)) as client:
        assert 2 == len(client.get("/api/v1/policy/nodes").json()["rows"])
        newest, _ = client.get("/api/v1/policy/generations").json()["rows"]
        assert ("globex", 1) == (newest["author"], newest["rules"])
        assert client.get("/api/v1/policy/rollout").json()["reason"] == "globex-node refused it"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/costs",
        "/api/v1/calls",
        "/api/v1/data-quality",
        "/api/v1/data-quality/duplicates",
    ],
)
def test_naming_another_tenant_is_refused_like_one_that_does_not_exist(
    api: Any, acme: str, path: str
) -> None:
    with api.client(acme) as client:
        theirs = client.get(path, params={"tenant": "globex"})
        nobody = client.get(path, params={"tenant": "nobodys"})
    assert [403, 403] == [theirs.status_code, nobody.status_code]
    assert theirs.json()["detail"].replace("globex", "") == nobody.json()["detail"].replace(
        "nobodys", ""
    )


def test_an_operator_sees_every_tenant_and_can_narrow(api: Any, admin: str) -> None:
    with api.client(admin) as client:
        everyone = client.get("/api/v1/costs").json()["meta"]
        one = client.get("/api/v1/costs", params={"tenant": "globex"}).json()["meta"]
    assert everyone["tenants"] == ["acme", "globex"]
    assert one["tenants"] == ["globex"]
    assert everyone["totals"]["calls"] == 11
    assert one["totals"]["calls"] == 5


def test_a_key_without_tenants_sees_nothing(api: Any, keys: Any) -> None:
    key = keys.add(scopes=frozenset({Scope.COSTS_READ}))
    with api.client(key) as client:
        body = client.get("/api/v1/costs").json()
    assert body["meta"]["tenants"] == []
    assert body["meta"]["totals"]["calls"] == 0


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "no credential"),
        ("Basic dXNlcjpwYXNz", "not a bearer"),
        ("Bearer", "not a bearer"),
        ("Bearer cps_made-up", "unknown session"),
        ("Bearer cp_user_9_wrong", "malformed key"),
        (f"Bearer cp_user_k9_{'0' * 64}", "unknown key"),
    ],
)
def test_bad_credentials_are_told_what_to_send(api: Any, header: str | None, reason: str) -> None:
    with api.client() as client:
        headers = {} if header is None else {"authorization": header}
        answer = client.get("/api/v1/me", headers=headers)
    assert answer.status_code == 401
    assert reason in answer.json()["detail"]
    assert answer.headers["www-authenticate"].startswith("Bearer")


def viewer(tenant: str, **said: Any) -> NewKey:
    return NewKey(kind=PrincipalKind.USER, role="viewer", name="v", tenant=tenant, **said)


def test_an_expired_key_is_refused_and_counted(api: Any, keys: Any, clock: Any) -> None:
    """Also one that was good a moment ago and is still in the key cache."""
    key = keys.key(viewer("acme", expires_at=clock.now() + timedelta(seconds=1)))
    before = telemetry.API_REFUSED.labels(code="unauthenticated")._value.get()
    with api.client(key) as client:
        assert client.get("/api/v1/me").json()["tenants"] == ["acme"]
        clock.advance(1)
        answer = client.get("/api/v1/me")
    assert answer.status_code == 401
    assert answer.json()["detail"].startswith("expired key. ")
    assert before + 1 == telemetry.API_REFUSED.labels(code="unauthenticated")._value.get()


def test_a_revoked_key_is_refused_within_the_cache_time(api: Any, keys: Any, clock: Any) -> None:
    key = keys.key(viewer("acme"))
    with api.client(key) as client:
        assert client.get("/api/v1/me").status_code == 200
        keys.repository.revoke(parse_key(key).key_id, now=clock.now())
        clock.advance(KEY_CACHE_SECONDS)
        assert client.get("/api/v1/me").status_code == 401
    assert KEY_CACHE_SECONDS <= 5


def test_requests_above_the_rate_wait_and_others_do_not(
    serve: Callable[..., Any], keys: Any, clock: Any
) -> None:
    api = serve(requests_per_minute=3)
    hasty = keys.add("acme", scopes=ROLE_SCOPES[Role.VIEWER])
    calm = keys.add("acme", scopes=ROLE_SCOPES[Role.VIEWER])
    with api.client(hasty) as client, api.client(calm) as other:
        assert [200, 200, 200, 429] == [client.get("/api/v1/me").status_code for _ in range(4)]
        refused = client.get("/api/v1/me")
        assert refused.headers["retry-after"] == "20"
        assert refused.json()["code"] == "rate_limited"
        assert other.get("/api/v1/me").status_code == 200
        clock.advance(20)
        assert client.get("/api/v1/me").status_code == 200


def test_guessing_keys_is_slowed_down(api: Any, acme: str) -> None:
    with api.client() as client:
        codes = [
            client.get(
                "/api/v1/me", headers={"authorization": f"Bearer cp_user_k{i}_{i:064x}"}
            ).status_code
            for i in range(FAILURES_PER_MINUTE + 1)
        ]
    assert codes == [401] * FAILURES_PER_MINUTE + [429]
    with api.client(acme) as client:  # a good key from the same address is not locked out
        assert client.get("/api/v1/me").status_code == 200


def test_a_sign_in_link_works_once_and_its_session_ends(
    api: Any, services: Services, clock: Any
) -> None:
    person = Principal(
        id="local",
        kind=PrincipalKind.SESSION,
        name="local operator",
        scopes=ROLE_SCOPES[Role.ADMIN],
        all_tenants=True,
    )
    token = services.sessions.issue_sign_in(person, now=clock.now())
    with api.client() as client:
        answer = client.post("/api/v1/session", json={"token": token})
        assert answer.status_code == 201
        bearer = answer.json()["bearer"]
        assert client.post("/api/v1/session", json={"token": token}).status_code == 401
    with api.client(bearer) as client:
        me = client.get("/api/v1/me").json()
        assert me["tenants"] == ["acme", "globex"]
        clock.advance(3_599)
        assert client.get("/api/v1/me").status_code == 200
        clock.advance(3_600)  # idle
        assert client.get("/api/v1/me").status_code == 401


def test_signing_out_ends_the_session_at_once(api: Any, services: Services, clock: Any) -> None:
    person = Principal(
        id="local", kind=PrincipalKind.SESSION, name="p", scopes=ROLE_SCOPES[Role.VIEWER]
    )
    token = services.sessions.issue_sign_in(person, now=clock.now())
    bearer = services.sessions.exchange(token, now=clock.now()).bearer
    with api.client(bearer) as client:
        assert client.delete("/api/v1/session").status_code == 204
        assert client.get("/api/v1/me").status_code == 401


def test_a_parameter_that_nobody_knows_is_refused_on_every_route(
    api: Any, services: Services, keys: Any
) -> None:
    """Ignored, it would answer another question: a misspelt filter is no filter."""
    key = keys.add("acme", scopes=frozenset(Scope), all_tenants=True)
    asked = 0
    with api.client(key) as client:
        for method, path, handler in handlers(create_app(services)):
            if method != "GET" or handler.opt.get("public") or handler.opt.get("long_poll"):
                continue
            answer = client.get(path.replace("{", "").replace("}", ""), params={"teem": "search"})
            if answer.status_code == 404 and "{" in path:
                continue  # what it would be asked of is not there, which is said first
            assert 400 == answer.status_code, (path, answer.text)
            (problem,) = answer.json()["errors"]
            assert ("teem", "no such parameter") == (problem["field"], problem["problem"]), path
            assert problem["fix"] not in {"", "Use one of "}, path
            asked += 1
    assert asked >= 30


def test_a_field_that_nobody_knows_is_answered_with_those_that_are(api: Any) -> None:
    with api.client() as client:
        answer = client.post("/api/v1/session", json={"tokn": "x"})
    (problem,) = answer.json()["errors"]
    assert ("tokn", "Known: token") == (problem["field"], problem["fix"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "body"),
        (b"", "body"),
        (b'{"token": 1}', "token"),
        (b'{"token": ""}', "token"),
        (b"{}", "token"),
        (b'{"token": "x", "admin": true}', "admin"),
        (b"\xff\xfe", "body"),
    ],
)
def test_malformed_body_names_the_field(api: Any, body: bytes, field: str) -> None:
    with api.client() as client:
        answer = client.post(
            "/api/v1/session", content=body, headers={"content-type": "application/json"}
        )
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in [error["field"] for error in answer.json()["errors"]], answer.text


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "TRACE", "CONNECT"])
def test_other_methods_open_no_side_door(api: Any, method: str) -> None:
    with api.client() as client:
        answer = client.request(method, "/api/v1/costs")
    assert answer.status_code in {400, 401, 404, 405}


def test_no_origin_is_allowed_to_read_across(api: Any, acme: str) -> None:
    with api.client(acme) as client:
        answer = client.get("/api/v1/me", headers={"origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
