"""GPU cost and its pools over HTTP."""

from decimal import Decimal
from typing import Any

import pytest

from tests.api.conftest import own_spans

spans = pytest.fixture(name="spans")(own_spans)

POOL: dict[str, Any] = {
    "name": "h100",
    "nodes": 2,
    "price": {"kind": "committed", "upfront_usd": "87600", "hourly_usd": "2"},
    "models": ["nobody-calls-this"],
}


_HOUR = ("denominator", "unit_cost_usd")


def _gpu_hour(client: Any, window: dict[str, str]) -> dict[str, Any]:
    rows = client.get("/api/v1/unit-costs", params=window).json()["rows"]
    found: dict[str, Any] = next(row for row in rows if row["figure"] == "gpu_hour")
    return found


def test_hours_of_gpus_follow_the_number_of_nodes(api: Any, admin: str) -> None:
    """An hour of two nodes, then, from midnight, one of four: 24 + 48 USD over six hours."""
    later = {"effective_from": "2026-11-20", "price": POOL["price"], "nodes": 4}
    window = {"start": "2026-11-19T23:00:00Z", "end": "2026-11-20T01:00:00Z"}
    with api.client(admin) as client:
        client.put("/api/v1/gpu/pools/h100", json={**POOL, "changes": [later]})
        client.post("/api/v1/gpu/rebuild", json=window)
        hour = _gpu_hour(client, window)
    assert ("72", "6", "12") == (hour["cost_usd"], hour["denominator"], hour["unit_cost_usd"])


def test_a_pool_is_made_billed_and_removed(api: Any, admin: str, acme: str) -> None:
    with api.client(admin) as client:
        assert [] == client.get("/api/v1/gpu/pools").json()["rows"]
        assert 200 == client.put("/api/v1/gpu/pools/h100", json=POOL).status_code
        (row,) = client.get("/api/v1/gpu/pools").json()["rows"]
        assert ("24", False) == (row["hourly_usd"].rstrip("0").rstrip("."), row["is_fixed"])
        window = {"start": "2026-11-20T08:00:00Z", "end": "2026-11-20T10:00:00Z"}
        assert {"changed_buckets": 8} == client.post("/api/v1/gpu/rebuild", json=window).json()
        assert {"changed_buckets": 0} == client.post("/api/v1/gpu/rebuild", json=window).json()
        answer = client.get("/api/v1/gpu", params=window).json()
        assert "48" == answer["meta"]["totals"]["cost_usd"].rstrip("0").rstrip(".")
        (bill,) = answer["meta"]["bills"]
        assert answer["meta"]["totals"]["cost_nusd"] == bill["bill_nusd"]
        assert [True] == [row["is_idle"] for row in answer["rows"]]
        split = client.get("/api/v1/gpu", params={**window, "granularity": "quarter_hour"}).json()
        assert 8 == len(split["rows"])
        # two hours at $24 that nobody used, beside the calls of both tenants
        meta = client.get("/api/v1/costs", params=window).json()["meta"]
        assert "48000000000" == meta["idle"]["cost_nusd"]
        both = Decimal(meta["totals"]["cost_usd"]) + 48
        assert both == Decimal(meta["idle"]["with_calls_usd"])
        hour = _gpu_hour(client, window)  # two nodes for two hours
        assert ("48", "4", "12") == (hour["cost_usd"], hour["denominator"], hour["unit_cost_usd"])
        filtered = {**window, "filter.team": "acme-team"}
        assert client.get("/api/v1/costs", params=filtered).json()["meta"]["idle"] is None
    with api.client(acme) as client:
        mine = client.get("/api/v1/gpu", params=window).json()
        assert ([], []) == (mine["rows"], mine["meta"]["bills"])
        assert "0" == client.get("/api/v1/costs", params=window).json()["meta"]["idle"]["cost_usd"]
        assert ("0", None) == tuple(_gpu_hour(client, window)[k] for k in _HOUR)
        assert 403 == client.get("/api/v1/gpu/pools").status_code
    with api.client(admin) as client:
        assert 204 == client.delete("/api/v1/gpu/pools/h100").status_code
        assert 404 == client.delete("/api/v1/gpu/pools/h100").status_code


def test_showback_divides_idle_time_and_sums_to_costs(api: Any, admin: str) -> None:
    """UX-14: two hours of a pool at $24, two thirds to a and the rest to b."""
    window = {"start": "2026-11-20T08:00:00Z", "end": "2026-11-20T10:00:00Z"}
    with api.client(admin) as client:
        client.put("/api/v1/gpu/pools/h100", json=POOL)
        client.post("/api/v1/gpu/rebuild", json=window)
        meta = client.get("/api/v1/costs", params=window).json()["meta"]
        rules = {**window, "idle": "fixed", "idle_share": "a=2,b=1", "shared": "even"}
        told = client.get("/api/v1/showback", params=rules).json()
        assert meta["idle"]["with_calls_usd"] == told["meta"]["totals"]["cost_usd"]
        by_name = {row["name"]: row for row in told["rows"]}
        assert ("32", "16") == (by_name["a"]["idle_usd"], by_name["b"]["idle_usd"])
        assert ("idle", "48", "-48", "0") == tuple(
            by_name["h100"][k] for k in ("kind", "own_usd", "idle_usd", "total_usd")
        )
        assert 0 == sum(Decimal(row["shared_usd"]) for row in told["rows"])
        wrong = {**window, "idle": "even", "idle_share": "a=2"}
        answer = client.get("/api/v1/showback", params=wrong)
        assert 400 == answer.status_code
        assert "idle_shares" in answer.json()["detail"]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"price": {"kind": "spot", "hourly_usd": "free"}},
        {"idle": "owner"},
        {"slices": [{"name": "a", "share": "3/2"}]},
        {"gpus": 8},
    ],
)
def test_a_wrong_pool_is_refused(api: Any, admin: str, change: dict[str, Any]) -> None:
    with api.client(admin) as client:
        assert 400 == client.put("/api/v1/gpu/pools/h100", json={**POOL, **change}).status_code
        assert [] == client.get("/api/v1/gpu/pools").json()["rows"]
