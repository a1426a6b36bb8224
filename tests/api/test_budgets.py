"""Budgets and their ledger over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from controlplane.auth.roles import ROLE_SCOPES, Role, Scope
from controlplane.budgets.ledger import Amounts, Entry, EntryKind, WindowKey
from controlplane.policy.rules import PolicyRules
from controlplane.store.metadata.ledger import LedgerRepository

WANTED = {
    "name": "search in November",
    "owner": "dana@example.com",
    "tenant": "acme",
    "limit_usd": "100.000000001",
    "period": "month",
    "zone": "Asia/Kolkata",
    "match": {"team": ["search"], "model": ["gpt-*"]},
}


@pytest.fixture(autouse=True)
def readable(policies: Any, clock: Any) -> None:
    """Agents can tell teams and tenants apart, so that budgets may be hard."""
    mapped = {"tenant": "user", "team": "metadata.team"}
    policies.save_rules(
        PolicyRules(dimension_map=mapped, trusted_sources=tuple(mapped.values())), now=clock.now()
    )


@pytest.fixture
def finance(keys: Any) -> str:
    key: str = keys.add("acme", scopes=ROLE_SCOPES[Role.FINANCE])
    return key


def test_a_budget_is_made_shown_changed_and_stopped(api: Any, finance: str, policies: Any) -> None:
    with api.client(finance) as client:
        made = client.post("/api/v1/budgets", json=WANTED)
        assert made.status_code == 201
        budget = made.json()
        assert budget["limit_nusd"] == "100000000001"
        assert budget["counts_from"] == "2026-11-20T10:07:00Z"
        # November in Kolkata, five and a half hours ahead.
        assert budget["standing"]["window_start"] == "2026-10-31T18:30:00Z"
        assert budget["standing"]["window_end"] == "2026-11-30T18:30:00Z"
        path = f"/api/v1/budgets/{budget['id']}"
        assert client.get(path).json() == budget
        changed = client.patch(path, json={"limit_usd": "50", "mode": "soft"}).json()
        assert ("50", "soft", WANTED["name"]) == (
            changed["limit_usd"],
            changed["mode"],
            changed["name"],
        )
        assert client.delete(path).status_code == 204
        assert client.get(path).status_code == 404
        assert client.get("/api/v1/budgets").json()["rows"] == []
    assert policies.newest("default").generation.gen == 3  # agents are told each time


def test_standing_adds_up_and_is_exact(api: Any, finance: str, metadata: Engine) -> None:
    with api.client(finance) as client:
        made = client.post("/api/v1/budgets", json=WANTED).json()
        change = Amounts(40_000_000_001, 5, 7_000_000_000, 3_000_000_000)
        post(metadata, made["id"], "settle:hold_1", change)
        (row,) = client.get("/api/v1/budgets").json()["rows"]
        answer = client.get(f"/api/v1/budgets/{made['id']}/ledger", params={"limit": "10"})
        assert client.get(f"/api/v1/budgets/{made['id']}/ledger?limit=501").status_code == 400
    now = row["standing"]
    assert now["settled_enforced_usd"] == "40.000000001"
    assert now["settled_unproven_usd"] == "0.000000005"
    parts = ("settled_enforced", "settled_unproven", "observed_unenforced", "leased", "free")
    whole = int(now["limit_nusd"]) + int(now["debt_nusd"])
    assert sum(int(now[f"{part}_nusd"]) for part in parts) == whole
    # (40.000000001 + 0.000000005 + 7) of 100.000000001
    assert now["used_ratio"] == 0.47
    (entry,) = answer.json()["rows"]
    assert ("settle", "settle:hold_1", "40.000000001", "3") == (
        entry["kind"],
        entry["key"],
        entry["settled_enforced_usd"],
        entry["leased_usd"],
    )


def post(metadata: Engine, budget_id: str, key: str, change: Amounts) -> None:
    with LedgerRepository(metadata).transaction() as ledger:
        ledger.append(
            [
                Entry(
                    window=WindowKey(budget_id, datetime(2026, 10, 31, 18, 30, tzinfo=UTC)),
                    key=key,
                    kind=EntryKind.SETTLE,
                    at=datetime(2026, 11, 20, tzinfo=UTC),
                    change=change,
                )
            ]
        )


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"limit_usd": "1.0000000001"}, "limit_usd"),
        ({"limit_usd": "a lot"}, "limit_usd"),
        ({"limit_usd": 5}, "limit_usd"),
        ({"limit_usd": "-1"}, "limit_nusd"),
        ({"period": "fortnight"}, "period"),
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"match": {"colour": ["red"]}}, "match.colour"),
        ({"match": {"tenant": ["globex"]}}, "match.tenant"),
        ({"name": ""}, "name"),
        ({"thresholds": [0]}, "thresholds"),
        ({"limit_nusd": 5}, "limit_nusd"),
        ({"limit_tokens": 5}, "limit_usd"),
        ({"limit_usd": None}, "limit_usd"),
        ({"increases": [{"amount": 5, "until": "2026-11-21T00:00:00Z"}]}, "increases"),
        ({"every": "6h"}, "every"),
        ({"window": "fixed"}, "period"),
        ({"window": "rolling", "period": None, "every": "2 weeks"}, "every"),
    ],
)
def test_a_wrong_budget_names_its_field(
    api: Any, finance: str, policies: Any, wrong: dict[str, Any], field: str
) -> None:
    with api.client(finance) as client:
        answer = client.post("/api/v1/budgets", json=WANTED | wrong)
    assert answer.status_code in {400, 422}
    assert field in answer.json()["errors"][0]["field"], answer.text
    assert policies.newest("default") is None


def test_budgets_of_others_can_not_be_made_seen_or_touched(
    api: Any, finance: str, admin: str, policies: Any
) -> None:
    with api.client(admin) as client:
        theirs = client.post("/api/v1/budgets", json=WANTED | {"tenant": "globex"}).json()
    told = policies.newest("default").generation
    path = f"/api/v1/budgets/{theirs['id']}"
    with api.client(finance) as client:
        refused = client.post("/api/v1/budgets", json=WANTED | {"tenant": "globex"})
        assert refused.status_code == 403
        assert client.get("/api/v1/budgets").json()["rows"] == []
        assert client.get(path).status_code == 404
        assert client.patch(path, json={"limit_usd": "1"}).status_code == 404
        assert client.delete(path).status_code == 404
        assert client.get(f"{path}/ledger").status_code == 404
    assert told == policies.newest("default").generation


def test_reading_a_budget_does_not_allow_changing_it(api: Any, keys: Any) -> None:
    key = keys.add("acme", scopes=frozenset({Scope.BUDGETS_READ}))
    with api.client(key) as client:
        assert client.get("/api/v1/budgets").status_code == 200
        assert client.post("/api/v1/budgets", json=WANTED).status_code == 403


def test_what_a_budget_counts_can_not_change(api: Any, finance: str) -> None:
    with api.client(finance) as client:
        made = client.post("/api/v1/budgets", json=WANTED).json()
        answer = client.patch(f"/api/v1/budgets/{made['id']}", json={"period": "day"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "period"


def test_a_limit_below_what_is_promised_shows_it_first(
    api: Any, finance: str, metadata: Engine
) -> None:
    with api.client(finance) as client:
        made = client.post("/api/v1/budgets", json=WANTED).json()
        post(metadata, made["id"], "settle:hold_1", Amounts(30 * 10**9, 0, 0, 20 * 10**9))
        path = f"/api/v1/budgets/{made['id']}"
        refused = client.patch(path, json={"limit_usd": "49"})
        assert refused.status_code == 409
        assert "$30 is spent and $20 is promised" in refused.json()["detail"]
        assert client.patch(path, json={"limit_usd": "50"}).status_code == 200
        lower = {"limit_usd": "49", "accept_promised": True}
        assert client.patch(path, json=lower).json()["standing"]["debt_usd"] == "1"


def test_a_budget_says_what_it_promises(api: Any, finance: str, metadata: Engine) -> None:
    until = "2026-11-21T00:00:00Z"
    more = {"increases": [{"amount_usd": "5", "until": until, "reason": "launch"}]}
    with api.client(finance) as client:
        made = client.post("/api/v1/budgets", json=WANTED | more | {"limit_usd": "100"}).json()
        post(metadata, made["id"], "settle:hold_1", Amounts(30 * 10**9, 0, 10 * 10**9, 0))
        row = client.get(f"/api/v1/budgets/{made['id']}").json()
    assert row["limit_usd"] == "100"
    assert row["standing"]["limit_usd"] == "105"
    assert row["increases"] == [more["increases"][0] | {"amount": None}]
    assert row["standing"]["enforced_ratio"] == 0.75
    assert "can not exceed $105 at prices known when admitted" in row["bound"]
    assert row["price_book_version"] in row["bound"]
    assert "$10 (25.0 %) bypassed enforcement" in row["bound"]


def test_a_parent_must_be_there(api: Any, finance: str) -> None:
    with api.client(finance) as client:
        made = client.post("/api/v1/budgets", json=WANTED).json()
        child = client.post(
            "/api/v1/budgets", json=WANTED | {"parent": made["id"], "limit_usd": "1"}
        ).json()
        assert child["parent"] == made["id"]
        orphan = client.post("/api/v1/budgets", json=WANTED | {"parent": "budget_none"})
        assert orphan.status_code == 404


def test_what_ends_by_itself_stops_no_publishing(api: Any, finance: str, clock: Any) -> None:
    """An increase of the parent is over and its child above it: others are made and changed still."""
    until = (clock.now() + timedelta(minutes=20)).isoformat()
    more = {"increases": [{"amount_usd": "50", "until": until}]}
    with api.client(finance) as client:
        parent = client.post("/api/v1/budgets", json=WANTED | {"limit_usd": "100"} | more).json()
        wanted = WANTED | {"name": "child", "parent": parent["id"]}
        refused = client.post("/api/v1/budgets", json=wanted | {"limit_usd": "151"})
        assert 422 == refused.status_code
        assert "$151 of 'child' is more than $150 of its parent" in refused.json()["detail"]
        child = client.post("/api/v1/budgets", json=wanted | {"limit_usd": "150"}).json()
        clock.advance(1_200)
        assert 201 == client.post("/api/v1/budgets", json=WANTED).status_code
        path = f"/api/v1/budgets/{child['id']}"
        assert 200 == client.patch(path, json={"owner": "eve"}).status_code
        assert 422 == client.patch(path, json={"limit_usd": "149"}).status_code
        assert 200 == client.patch(path, json={"limit_usd": "100"}).status_code


def test_a_budget_that_another_names_is_not_stopped(api: Any, finance: str) -> None:
    """Stopped before it was asked, it left a child without its parent: nothing could be published."""
    with api.client(finance) as client:
        parent = client.post("/api/v1/budgets", json=WANTED).json()
        child = client.post("/api/v1/budgets", json=WANTED | {"parent": parent["id"]}).json()
        refused = client.delete(f"/api/v1/budgets/{parent['id']}")
        assert 422 == refused.status_code
        assert f"budgets.{child['id']}.parent" == refused.json()["errors"][0]["field"]
        assert 200 == client.get(f"/api/v1/budgets/{parent['id']}").status_code
        assert 201 == client.post("/api/v1/budgets", json=WANTED).status_code
        assert 204 == client.delete(f"/api/v1/budgets/{child['id']}").status_code
        assert 204 == client.delete(f"/api/v1/budgets/{parent['id']}").status_code


def test_a_budget_of_tokens_speaks_tokens(api: Any, finance: str, metadata: Engine) -> None:
    """No money anywhere: the amounts are whole numbers, and the money fields are null."""
    wanted = {key: value for key, value in WANTED.items() if key != "limit_usd"}
    more = {"limit_tokens": 1_000, "increases": [{"amount": 500, "until": "2026-11-21T00:00:00Z"}]}
    with api.client(finance) as client:
        made = client.post("/api/v1/budgets", json=wanted | more).json()
        post(metadata, made["id"], "settle:hold_1", Amounts(300, 0, 100, 0))
        row = client.get(f"/api/v1/budgets/{made['id']}").json()
        (entry,) = client.get(f"/api/v1/budgets/{made['id']}/ledger").json()["rows"]
        path = f"/api/v1/budgets/{made['id']}"
        assert 400 == client.patch(path, json={"limit_usd": "5"}).status_code
        assert "2000" == client.patch(path, json={"limit_tokens": 2_000}).json()["limit"]
    assert ("tokens", "1000", None, None) == tuple(
        row[key] for key in ("unit", "limit", "limit_usd", "limit_nusd")
    )
    now = row["standing"]
    assert ("1500", "300", "1100", None, None) == tuple(
        now[key] for key in ("limit", "settled_enforced", "free", "free_usd", "free_nusd")
    )
    assert ("300", None) == (entry["settled_enforced"], entry["settled_enforced_usd"])
    assert "can not exceed 1500 tokens. 100 tokens (25.0 %) bypassed" in row["bound"]


def test_a_rolling_budget_says_which_quarter_hours_count(api: Any, finance: str) -> None:
    """At 10:07 the last 24 hours touch the quarter hours from 10:00 yesterday to 10:15."""
    wanted = {key: value for key, value in WANTED.items() if key != "period"}
    with api.client(finance) as client:
        made = client.post("/api/v1/budgets", json=wanted | {"window": "rolling", "every": "24h"})
    row = made.json()
    assert ("rolling", None, "24h") == (row["window"], row["period"], row["every"])
    assert ("2026-11-19T10:00:00Z", "2026-11-20T10:15:00Z") == (
        row["standing"]["window_start"],
        row["standing"]["window_end"],
    )
    assert "in any 24h" in row["bound"]
    assert [] == row["forecast_thresholds"]


def test_a_rolling_budget_refuses_forecast_thresholds(api: Any, finance: str) -> None:
    """They would never be told: it has no end to forecast."""
    wanted = {key: value for key, value in WANTED.items() if key != "period"}
    rolling = wanted | {"window": "rolling", "every": "24h"}
    with api.client(finance) as client:
        refused = client.post("/api/v1/budgets", json=rolling | {"forecast_thresholds": [100]})
        made = client.post("/api/v1/budgets", json=rolling | {"forecast_thresholds": []}).json()
        path = f"/api/v1/budgets/{made['id']}"
        changed = client.patch(path, json={"forecast_thresholds": [90]})
        renamed = client.patch(path, json={"name": "still rolling"})
    for answer in (refused, changed):
        assert 400 == answer.status_code
        assert "forecast_thresholds" in answer.text
        assert "Leave them out" in answer.text
    assert "still rolling" == renamed.json()["name"]


def test_a_budget_has_escrow_for_times_without_the_hub(api: Any, finance: str) -> None:
    with api.client(finance) as client:
        made = client.post("/api/v1/budgets", json=WANTED | {"escrow_usd": "2.5"}).json()
        assert ("2.5", "2.5") == (made["escrow_usd"], made["escrow"])
        assert "$2.5 may be leased to each agent ahead" in made["bound"]
        path = f"/api/v1/budgets/{made['id']}"
        assert 400 == client.patch(path, json={"escrow": 5}).status_code  # which unit?
        none = client.patch(path, json={"escrow_usd": "0"}).json()
    assert "0" == none["escrow_usd"]
    assert "ahead" not in none["bound"]
