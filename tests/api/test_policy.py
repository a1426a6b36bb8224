"""The policy long poll and sync."""

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
from controlplane.auth.roles import ROLE_SCOPES, Role
from controlplane.core.errors import UnavailableError
from controlplane.policy.wire import MAX_SYNC_ITEMS, Settle, SyncReply, SyncRequest


@pytest.fixture
def proxy(keys: Any) -> str:
    key: str = keys.add("acme", scopes=ROLE_SCOPES[Role.PROXY])
    return key


def test_document_comes_as_its_exact_bytes_with_etag_and_signature(
    api: Any, proxy: str, policies: Any
) -> None:
    policies.publish(7)
    with api.client(proxy) as client:
        answer = client.get("/api/v1/policy")
        assert answer.status_code == 200
        assert answer.content == b'{"gen":7}'
        assert answer.headers["etag"] == '"1.7"'
        assert answer.headers["policy-signature"] == "ed25519;kid=k1;sig=AAAA"
        for tag in ('"1.7"', 'W/"1.7"', '"1.6", "1.7"'):
            again = client.get("/api/v1/policy", headers={"if-none-match": tag})
            assert (304, b"") == (again.status_code, again.content)
        assert client.get("/api/v1/policy", headers={"if-none-match": '"1.6"'}).status_code == 200


def test_waiting_polls_are_answered_by_a_publish_and_share_one_reader(
    services: Services, proxy: str, policies: Any
) -> None:
    policies.publish(1)
    waiters = 40
    app = create_app(services)
    with ApiServer(app) as server, ThreadPoolExecutor(waiters) as pool:
        arrived = threading.Barrier(waiters + 1)

        def poll() -> tuple[int, str, float]:
            with httpx.Client(base_url=server.url, timeout=30) as client:
                headers = {"authorization": f"Bearer {proxy}", "if-none-match": '"1.1"'}
                arrived.wait()
                answer = client.get("/api/v1/policy", params={"wait": "25"}, headers=headers)
                return answer.status_code, answer.headers["etag"], time.monotonic()

        polls = [pool.submit(poll) for _ in range(waiters)]
        arrived.wait()
        time.sleep(1.5 * REREAD_SECONDS)  # real waiting is the thing under test
        reads = policies.reads
        assert reads <= 4  # not one per waiter
        policies.publish(2)
        published = time.monotonic()
        app.state.policy_watch.published()
        answers = [future.result(timeout=10) for future in polls]
    assert {(200, '"1.2"')} == {answer[:2] for answer in answers}
    assert max(at for _, _, at in answers) - published < REREAD_SECONDS / 2


def test_a_generation_published_elsewhere_is_found_by_reading_again(
    api: Any, proxy: str, policies: Any
) -> None:
    policies.publish(1)
    timer = threading.Timer(0.2, policies.publish, [2])
    timer.start()
    started = time.monotonic()
    with api.client(proxy) as client:
        answer = client.get(
            "/api/v1/policy", params={"wait": "10"}, headers={"if-none-match": '"1.1"'}
        )
    timer.join()
    assert answer.headers["etag"] == '"1.2"'
    assert time.monotonic() - started < 2 * REREAD_SECONDS + 1


def test_other_requests_are_served_while_polls_wait(api: Any, proxy: str, policies: Any) -> None:
    policies.publish(1)
    with ThreadPoolExecutor(60) as pool:

        def poll(_: int) -> int:
            with api.client(proxy) as client:
                return int(
                    client.get(
                        "/api/v1/policy", params={"wait": "2"}, headers={"if-none-match": '"1.1"'}
                    ).status_code
                )

        polls = [pool.submit(poll, i) for i in range(60)]
        with api.client(proxy) as client:
            started = time.monotonic()
            assert client.get("/api/v1/me").status_code == 200
            assert time.monotonic() - started < 1
        assert {304} == {future.result(timeout=10) for future in polls}


def test_a_store_that_fails_does_not_break_a_waiting_poll(
    api: Any, proxy: str, policies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies.publish(1)

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
    services: Services, proxy: str, policies: Any
) -> None:
    policies.publish(1)
    server = ApiServer(create_app(services))
    server.start()
    codes: list[int] = []

    def poll() -> None:
        headers = {"authorization": f"Bearer {proxy}", "if-none-match": '"1.1"'}
        with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
            codes.append(client.get("/api/v1/policy", params={"wait": "25"}).status_code)

    thread = threading.Thread(target=poll)
    thread.start()
    time.sleep(0.5)  # the poll is waiting
    started = time.monotonic()
    server.stop()
    thread.join()
    assert codes == [304]
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("wait", ["26", "-1", "nan", "soon", "inf"])
def test_wait_is_bounded(api: Any, proxy: str, wait: str) -> None:
    with api.client(proxy) as client:
        answer = client.get("/api/v1/policy", params={"wait": wait})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "wait"


def test_a_scope_without_policy_is_not_found(api: Any, proxy: str) -> None:
    with api.client(proxy) as client:
        assert client.get("/api/v1/policy", params={"scope": "nowhere"}).status_code == 404


def _settle(number: int) -> Settle:
    at = datetime(2026, 11, 20, tzinfo=UTC)
    return Settle(
        hold_id=f"hold_{number}",
        leases={},
        held_nusd=1,
        started_at=at,
        ended_at=at,
        provider="openai",
        model="gpt-4o",
    )


def test_sync_speaks_the_wire_format_of_agents(api: Any, proxy: str) -> None:
    request = SyncRequest(node="n1", boot_id="b1", settle=(_settle(1), _settle(2)))
    with api.client(proxy) as client:
        answer = client.post(
            "/api/v1/sync",
            content=msgspec.json.encode(request),
            headers={"content-type": "application/json"},
        )
    assert answer.status_code == 200
    assert msgspec.json.decode(answer.content, type=SyncReply).settled == ("hold_1", "hold_2")


def test_a_sync_that_is_too_long_or_malformed_is_refused(api: Any, proxy: str) -> None:
    long = SyncRequest(
        node="n", boot_id="b", settle=tuple(_settle(i) for i in range(MAX_SYNC_ITEMS + 1))
    )
    with api.client(proxy, **{"content-type": "application/json"}) as client:
        answer = client.post("/api/v1/sync", content=msgspec.json.encode(long))
        assert answer.status_code == 413
        assert "settle" in answer.json()["detail"]
        answer = client.post("/api/v1/sync", content=b'{"node": "n"}')
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["field"] == "boot_id"
