"""Alerts over HTTP belong to tenants."""

from datetime import timedelta
from typing import Any

import pytest

from controlplane.alerts.alert import Alert, AlertState, fingerprint


@pytest.fixture(autouse=True)
def some_alerts(alerts: Any, clock: Any) -> None:
    for number, labels in enumerate(
        ({"tenant": "acme"}, {"tenant": "globex"}, {"alertname": "spool_full"})
    ):
        alerts.kept.append(
            Alert(
                fingerprint=fingerprint(labels),
                labels=labels,
                annotations={"summary": f"about {sorted(labels.values())}"},
                state=AlertState.FIRING if number else AlertState.PENDING,
                since=clock.now() - timedelta(minutes=number),
            )
        )


def test_a_tenant_sees_its_own_alerts_only(api: Any, acme: str) -> None:
    with api.client(acme) as client:
        answer = client.get("/api/v1/alerts")
        assert client.get("/api/v1/alerts", params={"state": "firing"}).json()["rows"] == []
    assert [{"tenant": "acme"}] == [row["labels"] for row in answer.json()["rows"]]
    assert "globex" not in answer.text
    assert "spool_full" not in answer.text


def test_an_operator_sees_all_of_them_newest_first(api: Any, admin: str) -> None:
    with api.client(admin) as client:
        rows = client.get("/api/v1/alerts").json()["rows"]
        firing = client.get("/api/v1/alerts", params={"state": "firing"}).json()["rows"]
        narrowed = client.get("/api/v1/alerts", params={"tenant": "globex"}).json()["rows"]
    assert ["pending", "firing", "firing"] == [row["state"] for row in rows]
    assert len(firing) == 2
    assert [{"tenant": "globex"}] == [row["labels"] for row in narrowed]


def test_an_unknown_state_is_refused(api: Any, admin: str) -> None:
    with api.client(admin) as client:
        answer = client.get("/api/v1/alerts", params={"state": "loud"})
    assert answer.status_code == 400
    assert "pending, firing, resolved" in answer.json()["detail"]
