"""The stream: pushed at once, pinged with the pair in force, never lower, bounded."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import httpx
import pytest

from controlplane import telemetry
from controlplane.api.app import create_app
from controlplane.api.policy_stream import MAX_WAITING_FRAMES
from controlplane.api.policy_watch import PING_SECONDS
from controlplane.api.server import ApiServer
from controlplane.auth.roles import ROLE_SCOPES, Role
from controlplane.policy.bundle import Signer, Verifier, decode_document
from controlplane.policy.rules import PolicyRules


@pytest.fixture
def proxy(keys: Any) -> str:
    key: str = keys.add("acme", scopes=ROLE_SCOPES[Role.PROXY])
    return key


class Event:
    """One server-sent event."""

    def __init__(self, lines: list[str]) -> None:
        fields = [line.partition(": ") for line in lines]
        self.id = next((value for name, _, value in fields if name == "id"), "")
        self.kind = next(value for name, _, value in fields if name == "event")
        self.data = [value for name, _, value in fields if name == "data"]


def events(answer: httpx.Response) -> Iterator[Event]:
    lines: list[str] = []
    for line in answer.iter_lines():
        if line:
            lines.append(line)
        elif lines:
            yield Event(lines)
            lines = []


@contextmanager
def stream(api: Any, key: str, **headers: str) -> Iterator[Iterator[Event]]:
    with api.client(key) as client, client.stream("GET", "/api/v1/stream", headers=headers) as got:
        assert 200 == got.status_code
        yield events(got)


def test_document_is_pushed_as_its_exact_bytes(
    api: Any, proxy: str, policies: Any, signer: Signer
) -> None:
    policies.publish(7, signer=signer)
    with stream(api, proxy) as found:
        first = next(found)
    assert ('"1.7"', "policy") == (first.id, first.kind)
    signature, body = first.data
    Verifier(signer.pinned).verify(body.encode(), signature)
    assert 7 == decode_document(body.encode()).gen


@pytest.mark.usefixtures("only_told")
def test_publish_reaches_open_streams(api: Any, proxy: str, admin: str) -> None:
    with api.client(admin) as client:
        first = client.put("/api/v1/policy/rules", json={"tenant": "a"}).json()
        with stream(api, proxy, **{"last-event-id": first["etag"]}) as found:
            assert ("ping", first["etag"]) == (next(found).kind, first["etag"])
            client.put("/api/v1/policy/rules", json={"tenant": "b"})
            second = next(each for each in found if each.kind == "policy")
    assert "b" == decode_document(second.data[1].encode()).tenant


def test_generation_of_another_replica_is_pushed_too(
    api: Any, proxy: str, policies: Any, signer: Signer
) -> None:
    policies.publish(1, signer=signer)
    with stream(api, proxy) as found:
        next(found)
        timer = threading.Timer(0.1, policies.publish, [2], {"signer": signer})
        timer.start()
        assert '"1.2"' == next(each for each in found if each.kind == "policy").id
        timer.join()


def test_silence_is_broken_by_pings_with_the_pair_in_force(
    api: Any, proxy: str, policies: Any, signer: Signer
) -> None:
    policies.publish(3, signer=signer)
    with stream(api, proxy, **{"last-event-id": '"1.3"'}) as found:
        next(found)  # the greeting
        started = time.monotonic()
        second = next(found)
        waited = time.monotonic() - started
    assert ("ping", ['"1.3"']) == (second.kind, second.data)
    assert waited < 2 * PING_SECONDS


def test_caller_that_is_ahead_is_never_taken_back(
    api: Any, proxy: str, policies: Any, signer: Signer
) -> None:
    """A replica behind holds the poll; the stream says where it is and waits (D3)."""
    policies.publish(5, signer=signer)
    with stream(api, proxy, **{"last-event-id": '"1.6"'}) as found:
        assert ("ping", '"1.5"') == ((first := next(found)).kind, first.id)
    with api.client(proxy) as client:
        for tag in ('"1.6"', '"2.1"', 'W/"1.9"'):
            answer = client.get(
                "/api/v1/policy", headers={"if-none-match": tag}, params={"wait": "0.2"}
            )
            assert 304 == answer.status_code


def test_large_document_is_announced_and_fetched(api: Any, proxy: str, admin: str) -> None:
    notes = {f"key-{i}": "x" * 200 for i in range(400)}
    with api.client(admin) as client:
        client.put("/api/v1/policy/rules", json={"annotations": notes})
    with stream(api, proxy) as found:
        first = next(found)
    assert ("changed", ['"1.1"']) == (first.kind, first.data)
    with api.client(proxy) as client:
        fetched = client.get("/api/v1/policy")
        assert 400 == len(decode_document(fetched.content).annotations)
        assert "gzip" == fetched.headers["content-encoding"]
        assert fetched.num_bytes_downloaded < len(fetched.content) / 10
        plain = client.get("/api/v1/policy", headers={"accept-encoding": "identity"})
        assert fetched.content == plain.content


def test_change_of_a_large_document_is_pushed_as_the_change(
    api: Any, proxy: str, admin: str, signer: Signer
) -> None:
    """It gives the exact signed bytes; who has something else is told to fetch."""
    notes = {f"key-{i}": "x" * 200 for i in range(400)}

    def rules(tokens: int) -> dict[str, object]:
        cap = {"action": "cap", "id": "c", "max_tokens": tokens}
        return {"annotations": notes, "rules": [cap]}

    with api.client(admin) as client, stream(api, proxy) as found:
        client.put("/api/v1/policy/rules", json=rules(100)).raise_for_status()
        assert "changed" == next(event for event in found if event.kind != "ping").kind
        before = client.get("/api/v1/policy").content
        client.put("/api/v1/policy/rules", json=rules(250)).raise_for_status()
        event = next(event for event in found if event.kind != "ping")
        with stream(api, proxy, **{"last-event-id": '"1.0"'}) as of_older:
            assert "changed" == next(of_older).kind
    signature, place, middle = event.data
    assert ('"1.2"', "patch") == (event.id, event.kind)
    assert len(middle) < len(before) / 100
    was, now, head, tail = place.split()
    body = before[: int(head)] + middle.encode() + before[-int(tail) :]
    assert (sha256(before).hexdigest(), sha256(body).hexdigest()) == (was, now)
    Verifier(signer.pinned).verify(body, signature)
    assert 2 == decode_document(body).gen


def test_too_many_at_once_are_told_to_come_back_later(
    serve: Any, proxy: str, policies: Any, signer: Signer
) -> None:
    """A storm of reconnects is spread out, not served at once (D5)."""
    policies.publish(1, signer=signer)
    api = serve(connects_per_second=2)
    with api.client(proxy) as client:
        waits = []
        for _ in range(12):
            with client.stream("GET", "/api/v1/stream") as got:
                if got.status_code == 429:
                    waits.append(int(got.headers["retry-after"]))
    # The clock of this server stands still: two get in, the others within the seconds all need.
    assert 10 == len(waits)
    assert all(1 <= wait <= 5 for wait in waits)
    assert len(set(waits)) > 1
    with api.client(proxy) as client:
        assert 200 == client.get("/api/v1/policy").status_code


def test_slow_reader_gets_whole_frames_in_order_and_is_cut_off(
    services: Any, proxy: str, policies: Any, signer: Signer
) -> None:
    """What its socket does not take waits, up to a limit; nobody else waits for it."""
    policies.publish(1, signer=signer)
    app = create_app(services)
    names = [f"{number:04d}-" + "x" * 200_000 for number in range(120)]
    key = {"authorization": f"Bearer {proxy}"}
    with ApiServer(app) as server, socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(
            f"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: {key['authorization']}\r\n\r\n".encode()
        )
        assert slow.recv(64, socket.MSG_PEEK).startswith(b"HTTP/1.1 200")
        for name in names:
            app.state.policy_watch.recall(name)
        url = f"{server.url}/api/v1/stream"
        with httpx.stream("GET", url, headers=key, timeout=30) as other:  # served meanwhile
            assert "policy" == next(events(other)).kind
        got = bytearray()
        while not got.endswith(b"\r\n0\r\n\r\n"):
            chunk = slow.recv(1_000_000)
            assert chunk, "the answer has no end"
            got += chunk
    told = re.findall(rb"data: (\d{4})-(x*)", re.sub(rb"\r\n[0-9a-f]+\r\n", b"", bytes(got)))
    assert [(b"%04d" % number, 200_000) for number in range(len(told))] == [
        (number, len(rest)) for number, rest in told
    ]
    assert MAX_WAITING_FRAMES < len(told) < len(names)


def test_server_that_stops_ends_its_streams(
    services: Any, proxy: str, policies: Any, signer: Signer
) -> None:
    policies.publish(1, signer=signer)
    server = ApiServer(create_app(services))
    server.start()
    headers = {"authorization": f"Bearer {proxy}"}
    with (
        httpx.Client(base_url=server.url, timeout=30) as client,
        client.stream("GET", "/api/v1/stream", headers=headers) as got,
    ):
        found = events(got)
        next(found)
        started = time.monotonic()
        server.stop()
        assert [] == list(found)
    assert time.monotonic() - started < 20


def test_lowered_budget_calls_its_leases_back(
    api: Any, proxy: str, admin: str, policies: Any, clock: Any
) -> None:
    """Whoever listens is asked to sync at once; the answer says what is wanted back."""
    rules = PolicyRules(dimension_map={"tenant": "key.team"})
    policies.save_rules(rules, now=clock.now())
    said = {"name": "b", "owner": "o", "tenant": "acme", "limit_usd": "9", "period": "day"}
    with api.client(admin) as client:
        made = client.post("/api/v1/budgets/", json=said).json()
        with stream(api, proxy) as found:
            next(found)
            client.patch(f"/api/v1/budgets/{made['id']}", json={"limit_usd": "1"})
            assert [made["id"]] == next(each for each in found if each.kind == "lease").data


def test_other_content_under_our_pair_is_an_alarm(
    api: Any, proxy: str, policies: Any, signer: Signer
) -> None:
    """Counted once a node and generation, however often it syncs; our own content is not."""
    policies.publish(7, signer=signer)
    ours = policies.serving("default").stable.sha256

    def alarms() -> float:
        return float(telemetry.REGISTRY.get_sample_value("controlplane_policy_forged_total") or 0)

    def sync(node: str, sha256: str) -> None:
        said = {
            "scope": "default",
            "node": node,
            "boot_id": f"{node}-boot",
            "applied_sha256": sha256,
        }
        answer = client.post("/api/v1/sync", json={**said, "applied": {"epoch": 1, "gen": 7}})
        assert 200 == answer.status_code, answer.text

    before = alarms()
    with stream(api, proxy) as found, api.client(proxy) as client:
        next(found)
        sync("honest", ours)
        assert before == alarms()
        for _ in range(3):
            sync("odd", "0" * 64)
        assert before + 1 == alarms()
