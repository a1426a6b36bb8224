"""Re-rates over HTTP: asked for, refused with the reason, and answered once they ran."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from controlplane.pricing.history import PriceVersion
from controlplane.pricing.rerate import RunState
from controlplane.store.metadata.prices import PriceRepository
from controlplane.store.metadata.rerates import RerateRepository

NOW = datetime(2026, 11, 20, 10, 7, tzinfo=UTC)

ASK = {"start": "2026-11-01T00:00:00+01:00", "end": "2026-11-02T00:00:00Z"}


def _record(metadata: Engine) -> None:
    PriceRepository(metadata).append([], PriceVersion(version=1, recorded_at=NOW, source="s"))


def test_a_re_rate_is_kept_until_it_ran_and_then_answered(
    api: Any, admin: str, metadata: Engine
) -> None:
    _record(metadata)
    with api.client(admin) as client:
        asked = client.post("/api/v1/rerates", json={**ASK, "apply": True, "tenants": ["acme"]})
        assert (201, "to_apply", 1) == (
            asked.status_code,
            asked.json()["state"],
            asked.json()["price_version"],
        )
        assert "2026-10-31T23:00:00Z" == asked.json()["start"]
        runs, run_id = RerateRepository(metadata), asked.json()["id"]
        assert [run_id] == [run.id for run in runs.runs(states=[RunState.TO_APPLY])]
        runs.done(run_id, state=RunState.APPLIED, report='{"calls":3}', now=NOW)
        assert {"calls": 3} == client.get(f"/api/v1/rerates/{run_id}").json()["report"]
        runs.done(run_id, state=RunState.FAILED, report="because", now=NOW)
        (listed,) = client.get("/api/v1/rerates").json()["rerates"]
        assert (None, "because") == (listed["report"], listed["problem"])
        assert 404 == client.get("/api/v1/rerates/none").status_code


def test_what_can_not_be_run_is_refused(api: Any, admin: str, metadata: Engine) -> None:
    _record(metadata)
    with api.client(admin) as client:
        for wrong, field in (
            ({**ASK, "end": "2026-10-01T00:00:00Z"}, "end"),
            ({**ASK, "start": "2026-11-01T00:00:00"}, "start"),
            ({**ASK, "price_version": 2}, "price_version"),
        ):
            answer = client.post("/api/v1/rerates", json=wrong)
            assert (400, True) == (answer.status_code, field in answer.text), answer.text


def test_a_tenant_can_not_move_everybodys_money(api: Any, acme: str) -> None:
    with api.client(acme) as client:
        assert 403 == client.post("/api/v1/rerates", json=ASK).status_code
        assert 403 == client.get("/api/v1/rerates").status_code
