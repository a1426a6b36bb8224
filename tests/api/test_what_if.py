"""What-if over HTTP: the caller's tenants, the formula, and nothing changed."""

from typing import Any

import msgspec.yaml

from controlplane.bootstrap.text import compared
from controlplane.policy.compile import compile_policy
from controlplane.policy.document import Downgrade
from controlplane.policy.rules import read_rules
from tests.api.conftest import NOW

BODY = {
    "start": "2026-11-20T00:00:00Z",
    "end": "2026-11-21T00:00:00Z",
    "scenario": {"model": "gpt-4o"},
}


def test_the_callers_calls_are_compared_and_the_formula_said(api: Any, acme: str) -> None:
    """The stored calls carry totals but no buckets: nothing of them can be priced anew."""
    with api.client(acme) as client:
        body = client.post("/api/v1/what-if", json=BODY).json()
    assert {"acme"} == {row["tenant"] for row in body["rows"]}
    assert body["calls"] + body["not_compared"] == 6
    assert any("gpt-4o" in line for line in body["formula"])
    assert "house@1" == body["price_book_version"].partition("+")[0]
    (moving,) = body["latency"]
    assert ("acme", 1, 5, None) == (
        moving["tenant"], moving["recorded"]["calls"], moving["other"]["calls"], moving["reason"]
    )  # fmt: skip
    assert f"p95 {moving['other']['p95_ms']:,.0f} ms of 5 calls" in compared(body)
    nobodys = {**BODY, "scenario": {"model": "no-such-model"}}
    with api.client(acme) as client:
        said = compared(client.post("/api/v1/what-if", json=nobodys).json())
    assert "unknown: no successful call of the other model" in said


def test_calls_are_filtered_and_the_switch_is_drafted(api: Any, acme: str) -> None:
    """A draft that the rules' own reader and compiler take; none for calls that none can select."""
    scenario = {"provider": "openai", "model": "gpt-4o mini/2"}
    asked = {**BODY, "scenario": scenario, "filters": {"team": ["acme-team"], "model": ["gpt-4o"]}}
    with api.client(acme) as client:
        body = client.post("/api/v1/what-if", json=asked).json()
        nobody = client.post(
            "/api/v1/what-if", json={**asked, "filters": {"team": ["unattributed"]}}
        ).json()
    assert (5, 1) == tuple(one["calls"] + one["not_compared"] for one in (body, nobody))
    assert None is nobody["policy_draft"]
    (feature,) = body["features"]
    assert (None, 5) == (feature["feature"], feature["calls"] + feature["not_compared"])
    tree = msgspec.yaml.decode(body["policy_draft"].encode())
    rules = read_rules({**tree, "dimension_map": {"team": "key.team"}})
    compile_policy(rules, (), rate_card={}, price_book_version="v", issued_at=NOW)
    (rule,) = rules.rules
    assert isinstance(rule, Downgrade)
    assert (True, {"team": ("acme-team",), "model": ("gpt-4o",)}) == (rule.shadow, rule.match)
    assert "gpt-4o mini/2" == rules.deployments[rule.to].model


def test_wrong_questions_are_refused(api: Any, acme: str) -> None:
    with api.client(acme) as client:
        for wrong in (
            {**BODY, "scenario": {}},
            {**BODY, "filters": {"nothing": ["x"]}},
            {**BODY, "filters": {"team": []}},
            {**BODY, "end": "2026-11-20T00:00:00Z"},
            {**BODY, "start": "2026-11-20T00:00:00"},
            {**BODY, "start": "2026-01-20T00:00:00Z"},
        ):
            assert 400 == client.post("/api/v1/what-if", json=wrong).status_code
        assert (
            403 == client.post("/api/v1/what-if", json={**BODY, "tenants": ["globex"]}).status_code
        )
