"""Changing policy over HTTP, and the commands that do it from files."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from controlplane import telemetry
from controlplane.auth.principal import PrincipalKind
from controlplane.auth.roles import Scope
from controlplane.bootstrap.remote import KEY_ENV, URL_ENV
from controlplane.cli.main import app as cli
from controlplane.policy.bundle import Signer
from controlplane.policy.rules import PolicyRules
from controlplane.store.metadata.keys import NewKey

CAPPED = "tenant: acme\nrules:\n- action: cap\n  id: c\n  max_tokens: {}\n"
YAML = {"content-type": "application/yaml"}


def put(client: Any, text: str, **params: str) -> Any:
    return client.put("/api/v1/policy/rules", content=text, headers=YAML, params=params)


def test_history_says_who_and_why(api: Any, admin: str) -> None:
    with api.client(admin) as client:
        assert 200 == put(client, CAPPED.format(100), message="to begin with").status_code
        put(client, CAPPED.format(50))
        rows = client.get("/api/v1/policy/generations").json()["rows"]
        told = [(row["author"], row["message"], row["cause"]) for row in rows]
        assert [("somebody", "", "rules"), ("somebody", "to begin with", "rules")] == told
        diff = client.get("/api/v1/policy/diff").json()
    assert ("1.1", "1.2") == (diff["older"], diff["newer"])
    assert "-  max_tokens: 100\n+  max_tokens: 50" in diff["diff"]


def test_refusals_name_the_line(api: Any, admin: str) -> None:
    text = CAPPED.format(5) + "- action: cap\n  id: d\n  max_tokens: 0\n  match: {model: [m]}\n"
    with api.client(admin) as client:
        for answer in (
            put(client, text),
            client.post("/api/v1/policy/plan", content=text, headers=YAML),
            client.post("/api/v1/policy/proposals", content=text, headers=YAML),
        ):
            assert 422 == answer.status_code
            (error,) = answer.json()["errors"]
            assert ("rules.d.max_tokens", 8) == (error["field"], error["line"])
            assert "line 8" in answer.json()["detail"]


def test_going_back_and_a_new_epoch(api: Any, admin: str) -> None:
    with api.client(admin) as client:
        for tokens in (100, 50):
            put(client, CAPPED.format(tokens))
        back = client.post("/api/v1/policy/rollback", json={"to": "1.1", "message": "worse"})
        assert (1, 3, "rollback") == tuple(back.json()[key] for key in ("epoch", "gen", "cause"))
        assert 100 == client.get("/api/v1/policy/rules").json()["rules"][0]["max_tokens"]
        bumped = client.post("/api/v1/policy/epoch", json={"scope": "default"}).json()
        assert (2, 1, "epoch") == (bumped["epoch"], bumped["gen"], bumped["cause"])
        for wrong, status in ((("1.9"), 404), ("x", 400), ("1.2.3", 400)):
            answer = client.post("/api/v1/policy/rollback", json={"to": wrong})
            assert status == answer.status_code


def test_approval_needs_somebody_else(serve: Any, keys: Any, admin: str, policies: Any) -> None:
    other = keys.add(scopes=frozenset(Scope), all_tenants=True)
    api = serve(require_approval=True)
    with api.client(admin) as author, api.client(other) as approver:
        assert 409 == put(author, CAPPED.format(9)).status_code
        made = author.post(
            "/api/v1/policy/proposals",
            content=CAPPED.format(9),
            headers=YAML,
            params={"message": "m"},
        )
        assert 201 == made.status_code
        where = f"/api/v1/policy/proposals/{made.json()['id']}"
        assert 403 == author.post(f"{where}/approve").status_code
        assert PolicyRules() == policies.rules("default")
        published = approver.post(f"{where}/approve")
        assert (200, 1) == (published.status_code, published.json()["gen"])
        assert 409 == approver.post(f"{where}/reject").status_code
        (row,) = author.get("/api/v1/policy/proposals").json()["rows"]
        assert "approved" == row["state"]
        assert author.post("/api/v1/policy/plan", content=CAPPED.format(8), headers=YAML).json()[
            "needs_approval"
        ]


def test_an_author_alone_can_break_the_glass_and_it_is_told(serve: Any, admin: str) -> None:
    """Recorded with the generation, and counted for an alert; an empty reason is none."""
    api = serve(require_approval=True)

    def alarms() -> float:
        name = "controlplane_policy_break_glass_total"
        return float(telemetry.REGISTRY.get_sample_value(name) or 0)

    before = alarms()
    with api.client(admin) as author:
        made = author.post(
            "/api/v1/policy/proposals",
            content=CAPPED.format(9),
            headers=YAML,
            params={"message": "stop it"},
        )
        where = f"/api/v1/policy/proposals/{made.json()['id']}/approve"
        assert 403 == author.post(where, params={"break_glass": " "}).status_code
        assert before == alarms()
        broken = author.post(where, params={"break_glass": "3 am, nobody answers"})
    assert 200 == broken.status_code
    assert before + 1 == alarms()
    message = broken.json()["message"]
    assert message.startswith("stop it (glass broken by ")
    assert message.endswith(": 3 am, nobody answers)")


def test_roll_out_is_shown_and_absent_ones_are_not_found(api: Any, admin: str) -> None:
    with api.client(admin) as client:
        assert 404 == client.get("/api/v1/policy/rollout").status_code
        for verb in ("halt", "promote"):
            answer = client.post(f"/api/v1/policy/rollout/{verb}", json={})
            assert 404 == answer.status_code


def test_key_pulls_and_acknowledges_its_own_scopes_only(
    api: Any, keys: Any, policies: Any, signer: Signer
) -> None:
    policies.publish(1, signer=signer)
    policies.publish(1, scope="prod", signer=signer)

    def key(*scopes: str) -> str:
        wanted = NewKey(kind=PrincipalKind.PROXY, role="proxy", policy_scopes=scopes)
        text: str = keys.key(wanted)
        return text

    for scopes, allowed in (
        (("default",), {"default"}),
        (("prod", "test"), {"prod"}),
        (("*",), {"default", "prod"}),
    ):
        with api.client(key(*scopes)) as client:
            for scope in ("default", "prod"):
                expected = 200 if scope in allowed else 403
                got = client.get("/api/v1/policy", params={"scope": scope})
                assert expected == got.status_code
                said = {"node": "n", "boot_id": f"{scopes}", "scope": scope}
                assert expected == client.post("/api/v1/sync", json=said).status_code
                if expected == 403:
                    assert 403 == client.get("/api/v1/stream", params={"scope": scope}).status_code


class Command:
    """The command line against a running API."""

    def __init__(self, url: str, key: str) -> None:
        self._environment = {URL_ENV: url, KEY_ENV: key}

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(cli, list(arguments), env=self._environment)
        error = str(done.exception) if done.exception and done.exit_code == 1 else ""
        return done.exit_code, done.stdout, done.stderr + error


@pytest.fixture
def command(api: Any, admin: str) -> Command:
    return Command(api.url, admin)


def test_files_are_planned_applied_and_gone_back_from(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "default.yaml"
    file.write_text(CAPPED.format(100))
    code, out, _ = command("policy", "plan", str(file), "--json")
    plan = json.loads(out)
    assert (3, True, None) == (code, plan["has_changes"], plan["files"][0]["plan"]["in_force"])
    code, out, _ = command("policy", "apply", str(file), "-m", "first", "--json")
    assert (0, "published", "1.1") == (
        code,
        json.loads(out)["files"][0]["result"],
        json.loads(out)["files"][0]["generation"],
    )
    assert 0 == command("policy", "plan", str(file))[0]
    file.write_text(CAPPED.format(50))
    code, out, _ = command("policy", "plan", str(file))
    assert (3, True) == (code, "+  max_tokens: 50" in out)
    assert "published 1.2" in command("policy", "apply", str(file))[1]
    assert "unchanged" in command("policy", "apply", str(file))[1]
    assert "+  max_tokens: 50" in command("policy", "diff")[1]
    assert "published 1.3" in command("policy", "rollback", "1.1")[1]
    history = command("policy", "history")[1].splitlines()
    assert ["1.3", "1.2", "1.1"] == [line.split()[0] for line in history]
    assert history[2].endswith("somebody  first")
    assert "published 2.1" in command("epoch", "bump")[1]


def test_wrong_files_are_refused_with_file_and_line(command: Command, tmp_path: Path) -> None:
    good, bad, twin = (tmp_path / name for name in ("a.yaml", "b.yaml", "c.yaml"))
    good.write_text(CAPPED.format(1))
    bad.write_text("scope: other\n" + CAPPED.format(0))
    twin.write_text("tenant: acme\nscope: default\n")
    code, out, err = command("policy", "apply", str(good), str(bad))
    assert (1, "") == (code, out)
    assert f"{bad}:6: rules.c.max_tokens: 0 is no answer" in err
    assert '"has_changes": false' in command("policy", "plan", str(bad), "--json")[1]
    said = command("policy", "history", "--scope", "default")[1]  # nothing of the good file either
    assert said == "No generation of 'default' is published.\n"
    code, _, err = command("policy", "check", str(good), str(twin))
    assert (1, True) == (code, f"{twin}:2: scope: 'default' is in {good} too" in err)
    good.write_text("rules: [\n")
    code, _, err = command("policy", "check", str(good))
    assert (1, True) == (code, f"{good}:2: rules: is not YAML" in err)


def test_schema_is_printed_without_a_server() -> None:
    done = CliRunner().invoke(cli, ["policy", "schema"])
    assert (0, "#/$defs/PolicyRules") == (done.exit_code, json.loads(done.stdout)["$ref"])
