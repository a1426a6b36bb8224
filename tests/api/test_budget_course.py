"""Where a budget's window is going, and who changed the budget, over HTTP."""

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from controlplane.auth.roles import ROLE_SCOPES, Role
from controlplane.budgets.ledger import Amounts, Entry, EntryKind, WindowKey
from controlplane.store.metadata.ledger import LedgerRepository

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 20, 10, 7, tzinfo=UTC)
USD = 10**9
WANTED = {
    "name": "search", "owner": "dana", "tenant": "acme", "limit_usd": "50", "period": "month",
    "zone": "UTC", "mode": "soft", "counts_from": "2026-11-01T00:00:00Z",
}  # fmt: skip


@pytest.fixture
def finance(keys: Any) -> str:
    key: str = keys.add("acme", scopes=ROLE_SCOPES[Role.FINANCE])
    return key


def _spend(metadata: Engine, budget_id: str, *, all_at: datetime | None) -> None:
    """A dollar on odd days and three on even ones, at noon: 10 + 27 until the 19th.

    Posted then, or later in one go.
    """
    noons = [START + timedelta(days=day, hours=12) for day in range(19)]
    with LedgerRepository(metadata).transaction() as ledger:
        ledger.append(
            [
                Entry(
                    window=WindowKey(budget_id, START),
                    key=f"settle:{noon.day}",
                    kind=EntryKind.SETTLE,
                    at=all_at or noon,
                    called_at=noon if all_at else None,
                    change=Amounts((1 if noon.day % 2 else 3) * USD),
                )
                for noon in noons
            ]
        )


@pytest.mark.parametrize("posted_at", [None, NOW])
def test_a_course_goes_from_the_start_over_now_to_the_end(
    api: Any, finance: str, metadata: Engine, posted_at: datetime | None
) -> None:
    with api.client(finance) as client:
        made = client.post("/api/v1/budgets", json=WANTED).json()
        _spend(metadata, made["id"], all_at=posted_at)
        found = client.get(f"/api/v1/budgets/{made['id']}/course").json()
    assert ("50", "37", [50]) == (found["limit"], found["spent"], found["thresholds_crossed"])
    by_day = {one["at"]: one["spent"] for one in found["reached"]}
    assert 21 == len(by_day)  # the start, nineteen midnights, now
    assert ("0", "1", "4", "5", "37") == tuple(
        by_day[f"2026-11-{day:02}T00:00:00Z"] for day in (1, 2, 3, 4, 20)
    )
    assert "37" == by_day["2026-11-20T10:07:00Z"]
    first, last = found["expected"][0], found["expected"][-1]
    assert ("2026-11-20T10:07:00Z", "37", "37", "37") == tuple(first.values())
    # Fourteen whole days of $1 and $3 by turns: each weekday had both, and moved by $2.
    left = (END - NOW) / timedelta(days=1)
    off = 1.6 * math.sqrt(2) * math.sqrt(left * (1 + left / 14))
    assert "2026-12-01T00:00:00Z" == last["at"]
    for field, dollars in (("p10", -off), ("p50", 0.0), ("p90", off)):
        assert float(Decimal(last[field])) == pytest.approx(37 + 2 * left + dollars, abs=1e-6)
    # $13 are left at $2 a day.
    met = datetime.fromisoformat(found["exhausted_at"])
    assert abs(met - (NOW + timedelta(days=6.5))) < timedelta(seconds=1)


def test_what_is_not_known_of_a_course_is_not_drawn(api: Any, finance: str) -> None:
    rolling = {k: v for k, v in WANTED.items() if k != "period"} | {"window": "rolling"}
    with api.client(finance) as client:
        new = client.post("/api/v1/budgets", json=WANTED).json()["id"]
        rolls = client.post("/api/v1/budgets", json=rolling | {"every": "24h"}).json()["id"]
        day = client.post("/api/v1/budgets", json=WANTED | {"period": "day"}).json()["id"]
        of_rolling = client.get(f"/api/v1/budgets/{rolls}/course").json()
        of_day = client.get(f"/api/v1/budgets/{day}/course").json()
        of_new = client.get(f"/api/v1/budgets/{new}/course").json()
    assert ([], []) == (of_rolling["reached"], of_rolling["expected"])
    assert ([], None) == (of_day["expected"], of_day["exhausted_at"])
    assert ("0", [], None) == (
        of_new["spent"],
        of_new["thresholds_crossed"],
        of_new["exhausted_at"],
    )
    assert ("2026-11-20T00:00:00Z", "2026-11-20T10:07:00Z") == (
        of_day["reached"][0]["at"],
        of_day["reached"][-1]["at"],
    )


def test_edits_say_who_changed_what(api: Any, finance: str, clock: Any) -> None:
    with api.client(finance) as client:
        made = client.post("/api/v1/budgets", json=WANTED).json()
        path = f"/api/v1/budgets/{made['id']}"
        clock.advance(60)
        client.patch(path, json={"limit_usd": "75.5", "thresholds": [50, 90]})
        client.patch(path, json={"limit_usd": "75.5"})  # changes nothing
        changed, first = client.get(f"{path}/edits").json()["rows"]
        assert 400 == client.get(f"{path}/edits?limit=501").status_code
    assert ("made", "2026-11-20T10:07:00Z", []) == (first["kind"], first["at"], first["fields"])
    assert ("changed", "2026-11-20T10:08:00Z") == (changed["kind"], changed["at"])
    assert changed["author"] == first["author"] != ""
    assert [
        {"field": "limit", "before": "50", "after": "75.5"},
        {"field": "thresholds", "before": "50, 80, 100", "after": "50, 90"},
    ] == changed["fields"]


def test_course_and_edits_of_others_do_not_exist(api: Any, finance: str, admin: str) -> None:
    with api.client(admin) as client:
        theirs = client.post("/api/v1/budgets", json=WANTED | {"tenant": "globex"}).json()["id"]
    with api.client(finance) as client:
        for what in ("course", "edits"):
            assert 404 == client.get(f"/api/v1/budgets/{theirs}/{what}").status_code
