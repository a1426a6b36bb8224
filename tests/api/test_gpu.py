"""GPU cost and its pools over HTTP."""

from decimal import Decimal
from typing import Any

import pytest

POOL: dict[str, Any] = {
    "name": "h100",
    "nodes": 2,
    "price": {"kind": "committed", "upfront_usd": "87600", "hourly_usd": "2"},
    "models": ["nobody-calls-this"],
}


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
        filtered = {**window, "filter.team": "acme-team"}
        assert client.get("/api/v1/costs", params=filtered).json()["meta"]["idle"] is None
    with api.client(acme) as client:
        mine = client.get("/api/v1/gpu", params=window).json()
        assert ([], []) == (mine["rows"], mine["meta"]["bills"])
        assert "0" == client.get("/api/v1/costs", params=window).json()["meta"]["idle"]["cost_usd"]
        assert 403 == client.get("/api/v1/gpu/pools").status_code
    with api.client(admin) as client:
        assert 204 == client.delete("/api/v1/gpu/pools/h100").status_code
        assert 404 == client.delete("/api/v1/gpu/pools/h100").status_code


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
