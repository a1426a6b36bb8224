"""Replays over HTTP and as a command; shadow rules, savings and experiments."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.api.test_policy_changes import Command

WINDOW = {"start": "2026-11-20T00:00:00Z", "end": "2026-11-21T00:00:00Z"}


def test_budget_is_replayed_for_the_callers_tenants(api: Any, acme: str) -> None:
    """Five priced calls of 1.500000001 USD; 4 USD a day admit two."""
    said = {"name": "b", "owner": "o", "tenant": "acme", "limit_usd": "4", "period": "day"}
    with api.client(acme) as client:
        report = client.post("/api/v1/replay", json={**WINDOW, "budgets": [said]}).json()
        assert (6, 3, "4500000003") == (
            report["calls"],
            report["blocked_calls"],
            report["saved_nusd"],
        )
        assert "acme-team" == report["blocked_by_team"][0]["team"]
        assert 3 == len(report["listed"])
        short = client.post("/api/v1/replay", json={**WINDOW, "budgets": [said], "limit": 1})
        assert (1, 2) == (len(short.json()["listed"]), short.json()["not_listed"])


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({}, 400),
        ({"tenants": ["globex"], "rules": {}}, 403),
        ({"rules": {"rules": [{"action": "cap", "id": "c", "max_tokens": 0}]}}, 422),
        ({"rules": {"color": 1}}, 422),
        ({"prices": [{"provider": "x"}]}, 400),
    ],
)
def test_wrong_replays_are_refused(api: Any, acme: str, order: dict[str, Any], status: int) -> None:
    with api.client(acme) as client:
        assert status == client.post("/api/v1/replay", json={**WINDOW, **order}).status_code


def test_shadow_rules_are_told_and_never_sent(api: Any, admin: str, policies: Any) -> None:
    """Agents do not even get them; the report says what they would have done."""
    rules = {
        "rules": [
            {"action": "deny", "id": "no", "match": {"model": ["gpt-4o"]}, "shadow": True},
            {"action": "cap", "id": "c", "max_tokens": 9_999},
        ]
    }
    with api.client(admin) as client:
        assert 404 == client.get("/api/v1/shadow", params=WINDOW).status_code
        client.put("/api/v1/policy/rules", json=rules).raise_for_status()
        report = client.get("/api/v1/shadow", params={**WINDOW, "tenant": "acme"}).json()
    assert (5, "no") == (report["blocked_calls"], report["listed"][0]["by"])
    serving = policies.serving("default")
    assert ["c"] == [rule["id"] for rule in json.loads(serving.stable.body)["rules"]]


def test_savings_and_experiments_answer(api: Any, admin: str) -> None:
    trial = {
        "action": "experiment",
        "id": "e",
        "sticky": "team",
        "arms": {"a": {"weight": 1}, "b": {"weight": 1, "model": "x"}},
    }
    rules = {"dimension_map": {"team": "key.team"}, "rules": [trial]}
    with api.client(admin) as client:
        saved = client.get("/api/v1/savings", params=WINDOW).json()
        assert ("0", 0) == (saved["saved_nusd"], saved["rerouted_calls"])
        client.put("/api/v1/policy/rules", json=rules).raise_for_status()
        (found,) = client.get("/api/v1/experiments", params=WINDOW).json()["rows"]
    assert ("e", "a", 1) == (found["rule"], found["control"], found["unassigned_calls"])
    assert 10 == sum(arm["calls"] for arm in found["arms"])


def test_command_replays_files(api: Any, admin: str, tmp_path: Path) -> None:
    command = Command(api.url, admin)
    file = tmp_path / "policy.yaml"
    file.write_text("tenant: acme\nrules:\n- {action: deny, id: no, match: {model: [gpt-4o]}}\n")
    span = ("--start", WINDOW["start"], "--end", WINDOW["end"])
    code, out, err = command("replay", "--policy", str(file), *span, "--json")
    assert 0 == code, err
    report = json.loads(out)
    assert (0, 10, 15_000_000_010) == (code, report["blocked_calls"], report["saved_nusd"])
    code, out, _ = command("replay", "--policy", str(file), *span, "--limit", "0")
    assert (0, True) == (code, "10 more calls are not listed" in out)
    file.write_text("tenant: acme\nrules:\n- {action: cap, id: c, max_tokens: 0}\n")
    code, _, err = command("replay", "--policy", str(file), *span)
    assert (1, True) == (code, "line 3" in err)
