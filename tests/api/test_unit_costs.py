"""Unit economics over HTTP: figures worked by hand from the calls of the fixture."""

from typing import Any

import pytest

from controlplane.auth.roles import ROLE_SCOPES, Role

DAY = {"range": "24h"}


@pytest.fixture
def finance(keys: Any) -> str:
    key: str = keys.add("acme", scopes=ROLE_SCOPES[Role.FINANCE])
    return key


def _figures(client: Any, **params: str) -> dict[str, dict[str, Any]]:
    answer = client.get("/api/v1/unit-costs", params={**DAY, **params})
    assert 200 == answer.status_code
    return {row["figure"]: row for row in answer.json()["rows"]}


def test_figures_show_both_sides(api: Any, acme: str) -> None:
    """Five calls at 1.500000001, 30 tokens each; what the unpriced one used divides nothing (I7)."""
    with api.client(acme) as client:
        found = _figures(client)
        meta = client.get("/api/v1/unit-costs", params=DAY).json()["meta"]
    request = found["request"]
    assert ("7.500000005", "5", "1.500000001") == (
        request["cost_usd"],
        request["denominator"],
        request["unit_cost_usd"],
    )
    assert "50000.000033333" == found["million_tokens"]["unit_cost_usd"]  # 7.500000005 / 150 tokens
    assert ("0", None) == (found["gpu_hour"]["denominator"], found["gpu_hour"]["unit_cost_usd"])
    assert ("0", None) == (
        found["active_user"]["denominator"],
        found["active_user"]["unit_cost_usd"],
    )
    assert (1, 30) == (meta["unpriced_calls"], meta["unpriced_tokens"])


def test_users_are_not_counted_over_a_quarter(api: Any, acme: str) -> None:
    """The figure says why it is not there."""
    with api.client(acme) as client:
        row = _figures(client, range="90d")["active_user"]
    assert row["denominator"] is None
    assert "31 days" in row["reason"]


def test_a_business_metric_is_a_denominator_with_its_gaps(api: Any, finance: str) -> None:
    """Uploaded as CSV, then corrected: the day's value is replaced, the missing day stays a gap."""
    with api.client(finance) as client:
        for text in ("day,value\n2026-11-20,40\n2026-11-19,10\n", "2026-11-20,50\n"):
            put = client.put(
                "/api/v1/business-metrics", json={"tenant": "acme", "name": "orders", "csv": text}
            )
            assert 200 == put.status_code
        row = _figures(client, range="3d")["orders"]
        days = client.get("/api/v1/business-metrics", params={"range": "3d"}).json()["rows"]
    assert ("60", "0.125", 1, True) == (
        row["denominator"],
        row["unit_cost_usd"],
        row["gap_days"],
        row["is_business"],
    )
    assert [("2026-11-18", None), ("2026-11-19", "10"), ("2026-11-20", "50")] == [
        (one["day"], one["value"]) for one in days
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "orders"}, "points"),
        ({"name": "", "csv": "2026-11-20,1"}, "name"),
        ({"name": "orders", "csv": "2026-11-20;1"}, "csv"),
        ({"name": "orders", "csv": "2026-11-20,many"}, "points"),
        ({"name": "orders", "csv": "2026-11-20,-1"}, "points"),
        ({"name": "orders", "csv": "2026-11-20,1e99"}, "points"),
        (
            {"name": "o", "csv": "2026-11-20,1", "points": [{"day": "2026-11-20", "value": 1}]},
            "csv",
        ),
    ],
)
def test_values_that_are_none_are_refused(
    api: Any, finance: str, body: dict[str, Any], field: str
) -> None:
    with api.client(finance) as client:
        answer = client.put("/api/v1/business-metrics", json={"tenant": "acme", **body})
    assert 400 == answer.status_code
    assert answer.json()["detail"].startswith(field)


def test_metrics_are_the_tenants_own(api: Any, finance: str, acme: str) -> None:
    """Another tenant's can not be written, and a reader can not write at all."""
    body = {"tenant": "globex", "name": "orders", "csv": "2026-11-20,1"}
    with api.client(finance) as client:
        assert 403 == client.put("/api/v1/business-metrics", json=body).status_code
    with api.client(acme) as client:
        own = {**body, "tenant": "acme"}
        assert 403 == client.put("/api/v1/business-metrics", json=own).status_code


def test_concentration_counts_what_has_a_name(api: Any, admin: str) -> None:
    """Two teams that cost the same; the unattributed call is in neither."""
    with api.client(admin) as client:
        answer = client.get("/api/v1/concentration", params={**DAY, "dimension": "team"}).json()
    assert [(1, "7.500000005"), (2, "7.500000005")] == [
        (row["rank"], row["cost_usd"]) for row in answer["rows"]
    ]
    meta = answer["meta"]
    assert (2, 0.0, 1, 2) == (
        meta["groups"],
        meta["gini"],
        meta["half_groups"],
        meta["most_groups"],
    )
    assert {"groups": 2, "cost_usd": "15.00000001"} == meta["curve"][-1]
