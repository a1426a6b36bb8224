"""What is wrong is refused with the fix, counted by reason, and takes nothing else with it."""

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status

REJECTED = "controlplane_ingest_rejected_total"
REMEMBERED_SECONDS = 2.0  # how long the collector may go on trusting a key that has ended
USAGE = {"input_tokens": 11, "output_tokens": 5}


@pytest.fixture
def good_after(system: Any, team: str, chat: Any) -> Callable[..., None]:
    """Send one good call right after the bad one: only it is stored."""

    def check(*, key: str = "") -> None:
        assert 200 == system.send(chat(team, **USAGE).body, key=key).status_code
        system.wait_for(team, calls=1)
        time.sleep(0.3)  # whatever else was let in would be settled with it
        assert 1 == system.totals(team)["calls"]

    return check


def _counted(system: Any, reason: str, send: Callable[[], httpx.Response]) -> httpx.Response:
    """Send something bad; answer the refusal, which must be counted once under its reason."""
    before = system.metric(REJECTED, reason=reason)
    answer = send()
    assert before + 1 == system.metric(REJECTED, reason=reason)
    return answer


def _message(answer: httpx.Response) -> str:
    """Read the Status that OTLP prescribes, in the encoding of the request."""
    if answer.headers["content-type"] == "application/json":
        message: str = answer.json()["message"]
        return message
    text: str = Status.FromString(answer.content).message
    return text


def test_truncated_protobuf(system: Any, team: str, chat: Any, good_after: Any) -> None:
    whole = chat(team, **USAGE).body
    refused = _counted(system, "malformed_payload", lambda: system.send(whole[:-7]))
    assert 400 == refused.status_code
    assert "a field is longer than the message it is in. Send the protobuf" in _message(refused)
    good_after()


def test_wrong_content_type(system: Any, team: str, chat: Any, good_after: Any) -> None:
    body = chat(team, **USAGE).body
    refused = _counted(
        system, "unsupported_content_type", lambda: system.send(body, content_type="text/plain")
    )
    assert 415 == refused.status_code
    assert "application/x-protobuf or application/json" in refused.text
    good_after()


def test_json_that_claims_to_be_protobuf(system: Any, good_after: Any) -> None:
    refused = _counted(system, "malformed_payload", lambda: system.send(b'{"resourceSpans": []}'))
    assert 400 == refused.status_code
    assert "or JSON with content-type application/json" in _message(refused)
    good_after()


@pytest.mark.parametrize(
    ("mebibytes", "limit"),
    [(32, "max_compression_ratio: at most 300"), (512, "max_decompressed_bytes: at most 67108864")],
)
def test_gzip_bomb(system: Any, good_after: Any, mebibytes: int, limit: str) -> None:
    bomb = gzip.compress(bytes(mebibytes * 2**20))
    assert len(bomb) < mebibytes * 2**20 / 200
    began = time.monotonic()
    refused = _counted(
        system, limit.partition(":")[0], lambda: system.send(bomb, content_encoding="gzip")
    )
    assert time.monotonic() - began < 20
    assert 413 == refused.status_code
    assert f"{limit}. Send less at once" in _message(refused)
    good_after()


def test_model_without_a_price_is_unpriced_and_never_free(
    system: Any, team: str, chat: Any
) -> None:
    unknown = chat(team, model="nobody-has-heard-of-it", **USAGE)
    assert 200 == system.send(unknown.body).status_code
    totals = system.wait_for(team, calls=1)
    assert (1, 16, "0") == (
        totals["unpriced_calls"],
        totals["unpriced_tokens"],
        totals["cost_nusd"],
    )
    (call,) = system.ask("calls", **{"filter.team": team}).json()["rows"]
    assert (None, None, "unpriced") == (call["cost_usd"], call["cost_nusd"], call["cost_state"])
    assert call["cost_reason"]
    assert 200 == system.send(chat(team, **USAGE).body).status_code
    # 11 x 0.15 + 5 x 0.60 USD per million tokens
    assert "0.00000465" == system.wait_for(team, calls=2)["cost_usd"]


def test_key_of_another_shape(system: Any, team: str, chat: Any, good_after: Any) -> None:
    body = chat(team, **USAGE).body
    refused = system.send(body, key="sk-something-else")
    assert 401 == refused.status_code
    assert "Use a key as `controlplane keys create` printed it" in _message(refused)
    good_after()


def test_expired_key(system: Any, chat: Any, good_after: Any) -> None:
    key = _short_lived(system, kind="ingest", role="client")
    body = chat("nobody", **USAGE).body
    before = system.metric(REJECTED, reason="expired_key")
    assert 200 == system.send(body, key=key).status_code
    answer = _until(lambda: system.send(body, key=key), status=401)
    assert "expired key. Ask an administrator for a new key" == _message(answer)
    assert before + 1 == system.metric(REJECTED, reason="expired_key")
    good_after(key=system.make_key("ingest", "client"))


def test_expired_key_of_a_reader(system: Any) -> None:
    key = _short_lived(system, kind="user", role="viewer")
    assert 200 == system.ask("costs", key=key).status_code
    problem = _until(lambda: system.ask("costs", key=key), status=401).json()
    assert "unauthenticated" == problem["code"]
    assert "Ask an administrator for a new key" in problem["detail"]
    refused = 'controlplane_api_refused_total{code="unauthenticated"}'
    held = {"Authorization": f"Bearer {system.admin}"}
    assert refused in system.api.get("/metrics", headers=held).text
    assert 200 == system.ask("costs").status_code


def _short_lived(system: Any, *, kind: str, role: str) -> str:
    order = {
        "kind": kind,
        "role": role,
        "name": "short-lived",
        "tenant": "default",
        "expires_at": (datetime.now(UTC) + timedelta(seconds=3)).isoformat(),
    }
    held = {"Authorization": f"Bearer {system.admin}"}
    made = system.api.post("/api/v1/keys", json=order, headers=held)
    text: str = made.raise_for_status().json()["key"]
    return text


def _until(send: Callable[[], httpx.Response], *, status: int) -> httpx.Response:
    end = time.monotonic() + REMEMBERED_SECONDS + 60
    while (answer := send()).status_code != status and time.monotonic() < end:
        time.sleep(0.1)
    assert status == answer.status_code
    return answer


def test_other_tenants_are_out_of_reach(system: Any, team: str, chat: Any) -> None:
    theirs = system.make_key("user", "engineering_lead", tenant="tenant-b")
    sent = chat(team, **USAGE)
    assert 200 == system.send(sent.body).status_code
    system.wait_for(team, calls=1)
    refused = system.ask("costs", key=theirs, tenant="default")
    assert (403, "forbidden") == (refused.status_code, refused.json()["code"])
    assert "access to the tenant 'default'. Use a key that has it" in refused.json()["detail"]
    assert 0 == system.totals(team, key=theirs)["calls"]
    assert [] == system.ask("calls", key=theirs).json()["rows"]
    assert 404 == system.ask(f"traces/{sent.trace_id}", key=theirs).status_code
    assert 200 == system.ask(f"traces/{sent.trace_id}").status_code


def test_sender_can_not_choose_its_tenant(system: Any, team: str, chat: Any) -> None:
    reader = system.make_key("user", "viewer", tenant="tenant-c")
    key = system.make_key("ingest", "client", tenant="tenant-c")
    assert 200 == system.send(chat(team, **USAGE).body, key=key).status_code
    system.wait_for(team, calls=1, key=reader)
    assert 0 == system.totals(team)["calls"]


@pytest.mark.parametrize("command", [["check-config"], ["serve", "--role", "api"], ["up"]])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("collector: {grpc_prot: 1}", "collector.grpc_prot: is not a setting"),
        ("api: {port: many}", "api.port: "),
        ("zone: Nowhere", "zone: 'Nowhere' is not an IANA zone"),
        ("api: {port: 1", "is not YAML"),
    ],
)
def test_malformed_configuration_starts_nothing(
    tmp_path: Path, command: list[str], text: str, says: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"data_dir: {tmp_path / 'data'}\n{text}\n")
    ran = _run(*command, "--config", str(config))
    assert (2, "") == (ran.returncode, ran.stdout)
    assert says in ran.stderr
    assert 1 == ran.stderr.count("\n")  # one sentence, no stack
    assert not (tmp_path / "data").exists()


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    env = {name: text for name, text in os.environ.items() if not name.startswith("CONTROLPLANE_")}
    command = [sys.executable, "-m", "controlplane", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=env, check=False
    )


def test_good_configuration_is_said_to_be_good(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"data_dir: {tmp_path / 'data'}\napi: {{port: 0}}\n")
    ran = _run("check-config", "--json", "--config", str(config))
    assert (0, "") == (ran.returncode, ran.stderr)
    assert str(tmp_path / "data") == json.loads(ran.stdout)["data_dir"]
