"""Price look-up."""

from collections.abc import Callable
from typing import Any

from controlplane import telemetry
from controlplane.core.fiscal import FiscalCalendar


def test_a_known_model_shows_its_exact_rates_and_provenance(api: Any, acme: str) -> None:
    with api.client(acme) as client:
        body = client.get("/api/v1/prices", params={"provider": "openai", "model": "GPT-4o"}).json()
    assert body["price_id"] == "house@1/openai/gpt-4o/2026-01-01"
    assert body["provenance"] == "override"
    assert body["tiers"] == [
        {
            "above_input_tokens": -1,
            "rates": [{"bucket": "input_uncached", "usd_per_million": "2.5", "is_stand_in": False}],
        }
    ]


def test_an_unknown_model_is_not_found_with_the_fix_and_counted(api: Any, acme: str) -> None:
    before = telemetry.API_REFUSED.labels(code="not_found")._value.get()
    with api.client(acme) as client:
        answer = client.get("/api/v1/prices", params={"provider": "openai", "model": "gpt-99"})
    assert answer.status_code == 404
    (error,) = answer.json()["errors"]
    assert error["field"] == "model"
    assert "price_overrides" in error["fix"]
    assert "0" not in answer.json()["detail"]
    assert before + 1 == telemetry.API_REFUSED.labels(code="not_found")._value.get()


def test_a_missing_model_and_a_bad_instant_are_named(api: Any, acme: str) -> None:
    with api.client(acme) as client:
        assert client.get("/api/v1/prices").json()["errors"][0]["field"] == "model"
        answer = client.get("/api/v1/prices", params={"model": "gpt-4o", "at": "now"})
    assert answer.json()["errors"][0]["field"] == "at"


def test_coverage_says_what_has_no_price_and_what_it_may_cost(api: Any, acme: str) -> None:
    """Five of acme's six calls are priced: 150 of 180 tokens; gpt-4o's input alone bounds nothing."""
    with api.client(acme) as client:
        body = client.get("/api/v1/prices/coverage", params={"range": "24h"}).json()
    assert (6, 1, 180, 30) == tuple(
        body[name] for name in ("calls", "unpriced_calls", "tokens", "unpriced_tokens")
    )
    assert abs(body["coverage_ratio"] - 150 / 180) < 1e-12
    (unpriced,) = body["unpriced"]
    assert ("mystery-1", "unknown_model", True, None) == tuple(
        unpriced[name] for name in ("model", "reason", "wants_a_price", "low_usd")
    )
    assert ("0", "0") == (body["low_usd"], body["high_usd"])


def test_coverage_is_of_the_organisations_periods(serve: Callable[..., Any], acme: str) -> None:
    """A month from the 20th, half past five ahead of UTC: of acme's hourly calls those since are in it."""
    calendar = FiscalCalendar(month_start_day=20)
    with serve(calendar=calendar, zone="Asia/Kolkata").client(acme) as client:
        month = client.get("/api/v1/prices/coverage", params={"range": "mtd"}).json()
        before = client.get("/api/v1/prices/coverage", params={"range": "last_month"}).json()
        costs = client.get("/api/v1/costs", params={"range": "mtd"}).json()["meta"]
    assert ("2026-11-19T18:30:00Z", "2026-11-20T10:15:00Z") == (month["start"], month["end"])
    assert ("2026-10-19T18:30:00Z", "2026-11-19T18:30:00Z") == (before["start"], before["end"])
    assert (6, 1, 0) == (month["calls"], month["unpriced_calls"], before["calls"])
    assert (costs["start"], costs["totals"]["calls"]) == (month["start"], month["calls"])
