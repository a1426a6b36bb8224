"""The policy long poll and sync."""

import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from controlplane.api.app import create_app
from controlplane.api.policy_watch import REREAD_SECONDS
from controlplane.api.server import ApiServer
from controlplane.api.services import Services
from controlplane.auth.principal import PrincipalKind
from controlplane.auth.roles import ROLE_SCOPES, Role, Scope
from controlplane.core.errors import UnavailableError
from controlplane.policy.bundle import Signer, Verifier, decode_document
from controlplane.policy.wire import (
    MAX_SYNC_ITEMS,
    Generation,
    LeaseWant,
    Settle,
    SyncReply,
    SyncRequest,
)
from controlplane.store.metadata.keys import NewKey

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
def proxy(keys: Any) -> str:
    key: str = keys.add("acme", scopes=ROLE_SCOPES[Role.PROXY])
    return key


def test_document_comes_as_its_exact_bytes_with_etag_and_signature(
    api: Any, proxy: str, policies: Any, signer: Signer
) -> None:
    policies.publish(7, signer=signer)
    with api.client(proxy) as client:
        answer = client.get("/api/v1/policy")
        assert answer.status_code == 200
        assert decode_document(answer.content).gen == 7
        assert answer.headers["etag"] == '"1.7"'
        Verifier(signer.pinned).verify(answer.content, answer.headers["policy-signature"])
        for tag in ('"1.7"', 'W/"1.7"', '"1.6", "1.7"'):
            again = client.get("/api/v1/policy", headers={"if-none-match": tag})
            assert (304, b"") == (again.status_code, again.content)
        assert client.get("/api/v1/policy", headers={"if-none-match": '"1.6"'}).status_code == 200


@pytest.mark.usefixtures("only_told")
def test_waiting_polls_are_answered_by_a_publish_and_share_one_reader(
    services: Services, proxy: str, policies: Any, signer: Signer
) -> None:
    policies.publish(1, signer=signer)
    waiters = 40
    app = create_app(services)
    with ApiServer(app) as server, ThreadPoolExecutor(waiters) as pool:
        arrived = threading.Barrier(waiters + 1)

        def poll() -> tuple[int, str]:
            with httpx.Client(base_url=server.url, timeout=30, verify=NO_TLS) as client:
                headers = {"authorization": f"Bearer {proxy}", "if-none-match": '"1.1"'}
                arrived.wait()
                answer = client.get("/api/v1/policy", params={"wait": "25"}, headers=headers)
                return answer.status_code, answer.headers["etag"]

        polls = [pool.submit(poll) for _ in range(waiters)]
        arrived.wait()
        time.sleep(1.5 * REREAD_SECONDS)  # real waiting is the thing under test
        reads = policies.reads
        assert reads <= 4  # not one per waiter
        policies.publish(2, signer=signer)
        app.state.policy_watch.published()
        answers = [future.result(timeout=60) for future in polls]
    assert {(200, '"1.2"')} == set(answers)


def test_a_generation_published_elsewhere_is_found_by_reading_again(
    api: Any, proxy: str, policies: Any, signer: Signer
) -> None:
    policies.publish(1, signer=signer)
    timer = threading.Timer(0.2, policies.publish, [2], {"signer": signer})
    timer.start()
    started = time.monotonic()
    with api.client(proxy) as client:
        answer = client.get(
            "/api/v1/policy", params={"wait": "25"}, headers={"if-none-match": '"1.1"'}
        )
    timer.join()
    assert answer.headers["etag"] == '"1.2"'
    assert time.monotonic() - started < 20


def test_other_requests_are_served_while_polls_wait(
    api: Any, proxy: str, policies: Any, signer: Signer
) -> None:
    policies.publish(1, signer=signer)
    with ThreadPoolExecutor(60) as pool:

        def poll(_: int) -> int:
            with api.client(proxy) as client:
                return int(
                    client.get(
                        "/api/v1/policy", params={"wait": "25"}, headers={"if-none-match": '"1.1"'}
                    ).status_code
                )

        polls = [pool.submit(poll, i) for i in range(60)]
        with api.client(proxy) as client:
            assert client.get("/api/v1/me").status_code == 200
        assert not any(future.done() for future in polls)
        policies.publish(2, signer=signer)  # seen when it is read again: not once a waiter
        assert {200} == {future.result(timeout=60) for future in polls}
    assert policies.reads < 30


def test_a_store_that_fails_does_not_break_a_waiting_poll(
    api: Any, proxy: str, policies: Any, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies.publish(1, signer=signer)

    def broken(_scope: str) -> None:
        raise UnavailableError("the metadata database is away")

    with api.client(proxy) as client:
        assert client.get("/api/v1/policy").status_code == 200
        monkeypatch.setattr(policies, "newest", broken)
        answer = client.get(
            "/api/v1/policy", params={"wait": "1.5"}, headers={"if-none-match": '"1.1"'}
        )
    assert answer.status_code == 304


def test_stopping_the_server_answers_waiting_polls(
    services: Services, proxy: str, policies: Any, signer: Signer
) -> None:
    policies.publish(1, signer=signer)
    server = ApiServer(create_app(services))
    server.start()
    codes: list[int] = []

    def poll() -> None:
        headers = {"authorization": f"Bearer {proxy}", "if-none-match": '"1.1"'}
        with httpx.Client(
            base_url=server.url, headers=headers, timeout=30, verify=NO_TLS
        ) as client:
            codes.append(client.get("/api/v1/policy", params={"wait": "25"}).status_code)

    thread = threading.Thread(target=poll)
    before = policies.reads
    thread.start()
    while policies.reads == before:  # a poll that waits has the policy read; until it does
        time.sleep(0.01)
    started = time.monotonic()
    server.stop()
    thread.join()
    assert codes == [304]
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("wait", ["26", "-1", "nan", "soon", "inf"])
def test_wait_is_bounded(api: Any, proxy: str, wait: str) -> None:
    with api.client(proxy) as client:
        answer = client.get("/api/v1/policy", params={"wait": wait})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "wait"


def test_a_scope_without_policy_is_not_found(api: Any, proxy: str) -> None:
    with api.client(proxy) as client:
        assert client.get("/api/v1/policy", params={"scope": "nowhere"}).status_code == 404


@pytest.fixture
def budget(api: Any, admin: str) -> str:
    """A hard budget of ten cents, published."""
    wanted = {
        "name": "b",
        "owner": "o",
        "tenant": "default",
        "limit_usd": "0.10",
        "period": "month",
    }
    with api.client(admin) as client:
        made = client.post("/api/v1/budgets", json=wanted)
        assert made.status_code == 201, made.text
    return str(made.json()["id"])


def _settle(number: int, **said: Any) -> Settle:
    at = datetime(2026, 11, 20, tzinfo=UTC)
    return Settle(
        hold_id=f"hold_{number}",
        held_nusd=10,
        started_at=at,
        ended_at=at,
        provider="openai",
        model="gpt-4o",
        usage={"input_uncached": 1},
        **said,
    )


def _sync(client: httpx.Client, request: SyncRequest) -> SyncReply:
    answer = client.post(
        "/api/v1/sync",
        content=msgspec.json.encode(request),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=SyncReply)


def test_an_agent_leases_settles_and_shows_up_in_the_standing(
    api: Any, keys: Any, admin: str, budget: str
) -> None:
    """The whole round through the real ledger: 7 nano-USD is what the price port says."""
    key = keys.key(NewKey(kind=PrincipalKind.PROXY, role="proxy", name="p", tenant="default"))
    with api.client(key) as client:
        document = decode_document(client.get("/api/v1/policy").content)
        assert [budget] == [clause.id for clause in document.budgets]
        want = (LeaseWant(budget, want_nusd=1_000, need_nusd=100),)
        reply = _sync(client, SyncRequest(node="n1", boot_id="b1", want=want))
        (grant,) = reply.grants
        assert grant.amount_nusd >= 100
        ended = _settle(1, leases={budget: grant.lease_id})
        applied = Generation(document.epoch, document.gen)
        said = SyncRequest(node="n1", boot_id="b1", settle=(ended, ended), applied=applied)
        assert _sync(client, said).settled == ("hold_1",)
        assert _sync(client, said).settled == ("hold_1",)  # said again, counted once
    with api.client(admin) as client:
        standing = client.get(f"/api/v1/budgets/{budget}").json()["standing"]
        (node,) = client.get("/api/v1/policy/nodes").json()["rows"]
        entries = client.get(f"/api/v1/budgets/{budget}/ledger").json()["rows"]
    assert standing["settled_enforced_nusd"] == "7"
    assert standing["settled_enforced_usd"] == "0.000000007"
    parts = ("settled_enforced", "settled_unproven", "observed_unenforced", "leased", "free")
    whole = int(standing["limit_nusd"]) + int(standing["debt_nusd"])
    assert sum(int(standing[f"{part}_nusd"]) for part in parts) == whole
    assert ("n1", "applied") == (node["node"], node["state"])
    assert {"grant", "settle"} <= {entry["kind"] for entry in entries}


def test_a_proxy_of_another_tenant_can_not_lease(api: Any, keys: Any, budget: str) -> None:
    key = keys.key(NewKey(kind=PrincipalKind.PROXY, role="proxy", name="p", tenant="globex"))
    want = (LeaseWant(budget, want_nusd=1, need_nusd=1),)
    with api.client(key, **{"content-type": "application/json"}) as client:
        body = msgspec.json.encode(SyncRequest(node="n", boot_id="b", want=want))
        assert client.post("/api/v1/sync", content=body).status_code == 403


def test_a_sync_that_is_too_long_or_malformed_is_refused(api: Any, proxy: str) -> None:
    long = SyncRequest(
        node="n",
        boot_id="b",
        settle=tuple(_settle(i, leases={}) for i in range(MAX_SYNC_ITEMS + 1)),
    )
    with api.client(proxy, **{"content-type": "application/json"}) as client:
        answer = client.post("/api/v1/sync", content=msgspec.json.encode(long))
        assert answer.status_code == 413
        assert "settle" in answer.json()["detail"]
        answer = client.post("/api/v1/sync", content=b'{"node": "n"}')
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["field"] == "boot_id"


def test_what_an_older_agent_says_beside_is_passed_over(api: Any, proxy: str) -> None:
    """It counted its open holds by budget, and was refused where they were of many."""
    held = {f"b{number}": 1 for number in range(MAX_SYNC_ITEMS + 1)}
    order = {"node": "n", "boot_id": "b", "open_holds_nusd": held}
    with api.client(proxy) as client:
        answer = client.post("/api/v1/sync", json=order)
    assert (200, []) == (answer.status_code, answer.json()["grants"])


RULES_YAML = """
rules:
  - {action: cap, id: short, max_tokens: 100, match: {model: ["gpt-*"]}}
  - {action: deny, id: none-of-that, match: {provider: [acme-llm]}, priority: 5}
"""


def test_rules_are_written_as_yaml_or_json_and_published(
    api: Any, admin: str, proxy: str, signer: Signer
) -> None:
    with api.client(admin) as client:
        made = client.put(
            "/api/v1/policy/rules",
            content=RULES_YAML,
            headers={"content-type": "application/yaml"},
        )
        assert made.status_code == 200, made.text
        assert (1, 2) == (made.json()["gen"], made.json()["rules"])
        written = client.get("/api/v1/policy/rules").json()
        assert [rule["id"] for rule in written["rules"]] == ["short", "none-of-that"]
        again = client.put("/api/v1/policy/rules", json=written)
        assert again.json()["gen"] == 1  # nothing new in it
        (row,) = client.get("/api/v1/policy/generations").json()["rows"]
        assert row == made.json()
    with api.client(proxy) as client:
        answer = client.get("/api/v1/policy")
    Verifier(signer.pinned).verify(answer.content, answer.headers["policy-signature"])
    assert [rule.id for rule in decode_document(answer.content).rules] == ["short", "none-of-that"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        ("rules: [{action: deny}]", "application/yaml", 422, "id"),
        ("rules: [{action: explode, id: x}]", "application/yaml", 422, "explode"),
        ("rules: [", "application/yaml", 422, "not YAML"),
        ('{"rulez": []}', "application/json", 422, "rulez"),
        ("{", "application/json", 400, "JSON"),
        ("\x00", "application/yaml", 422, "YAML"),
        ("{}", "text/plain", 400, "content-type"),
        (
            '{"rules": [{"action": "cap", "id": "a", "max_tokens": 0}]}',
            "application/json",
            422,
            "a",
        ),
        ('{"scope": "other"}', "application/json", 422, "scope"),
    ],
)
def test_rules_that_do_not_compile_change_nothing(
    api: Any, admin: str, policies: Any, body: str, kind: str, status: int, words: str
) -> None:
    with api.client(admin) as client:
        answer = client.put("/api/v1/policy/rules", content=body, headers={"content-type": kind})
    assert status == answer.status_code, answer.text
    assert words in answer.text
    assert policies.newest("default") is None


def test_rules_of_everybody_are_for_operators(api: Any, keys: Any) -> None:
    key = keys.add("acme", scopes=frozenset({Scope.POLICY_READ, Scope.POLICY_WRITE}))
    with api.client(key) as client:
        assert client.get("/api/v1/policy/rules").status_code == 403
        assert client.put("/api/v1/policy/rules", json={}).status_code == 403
        assert client.get("/api/v1/policy/generations").status_code == 200


def test_a_hard_budget_that_agents_can_not_read_is_refused_before_it_is_kept(
    api: Any, admin: str, budgets: Any
) -> None:
    wanted = {
        "name": "b",
        "owner": "o",
        "tenant": "default",
        "limit_usd": "1",
        "period": "day",
        "match": {"team": ["search"]},
    }
    with api.client(admin) as client:
        answer = client.post("/api/v1/budgets", json=wanted)
        assert answer.status_code == 422
        assert "dimension_map" in answer.json()["detail"]
        assert budgets.active() == []
        assert client.post("/api/v1/budgets", json=wanted | {"mode": "soft"}).status_code == 201
