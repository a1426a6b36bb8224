"""Why cost moved, over HTTP: additive, against any window, for any group-by."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from controlplane.api.ranges import compared
from controlplane.core.calendar import Window

TERMS = (
    "volume", "mix", "recognition", "input_size", "cache", "output_size", "other_usage", "price",
    "retries", "duplicates", "new", "vanished",
)  # fmt: skip


def test_terms_sum_to_the_change_for_every_group(api: Any, acme: str) -> None:
    """Two of five priced calls are in the last two hours, two in the two before."""
    with api.client(acme) as client:
        body = client.get("/api/v1/costs/change", params={"range": "2h", "group_by": "team"}).json()
    (row,) = body["rows"]
    assert ("acme-team", "3.000000002", "3.000000002") == (
        row["team"],
        row["before_usd"],
        row["after_usd"],
    )
    assert list(TERMS) == body["meta"]["terms"]
    assert row["change_nusd"] == str(sum(int(row[f"{term}_nusd"]) for term in TERMS)) == "0"
    assert body["meta"]["duplicates_sought"]


def test_a_window_of_ones_own_and_groups_that_come_and_go(api: Any, acme: str) -> None:
    """05:07 is the unpriced call without a team; 06:07 the first with one."""
    asked = {
        "start": "2026-11-20T06:00:00Z", "end": "2026-11-20T07:00:00Z", "group_by": "team",
        "before_start": "2026-11-20T05:00:00Z", "before_end": "2026-11-20T06:00:00Z",
    }  # fmt: skip
    with api.client(acme) as client:
        body = client.get("/api/v1/costs/change", params=asked).json()
    found = {row["team"]: (row["new_usd"], row["vanished_usd"]) for row in body["rows"]}
    assert {"acme-team": ("1.500000001", "0"), None: ("0", "0")} == found
    unpriced = {
        row["team"]: (row["unpriced_before"], row["unpriced_after"]) for row in body["rows"]
    }
    assert {"acme-team": (0, 0), None: (1, 0)} == unpriced
    steps = body["meta"]["steps"]
    assert list(TERMS) == [step["term"] for step in steps]
    assert ("0", "1.500000001") == (steps[0]["start_usd"], steps[-1]["end_usd"])
    assert all(a["end_usd"] == b["start_usd"] for a, b in pairwise(steps))
    totals = body["meta"]["totals"]
    assert ("1.500000001", 1, 1) == (
        totals["change_usd"],
        totals["calls_before"],
        totals["calls_after"],
    )


def test_the_price_becoming_known_is_recognition(api: Any, acme: str) -> None:
    """Without groups the same two windows are one group: its calls got a price."""
    asked = {
        "start": "2026-11-20T06:00:00Z", "end": "2026-11-20T07:00:00Z",
        "before_start": "2026-11-20T05:00:00Z", "before_end": "2026-11-20T06:00:00Z",
    }  # fmt: skip
    with api.client(acme) as client:
        body = client.get("/api/v1/costs/change", params=asked).json()
    (row,) = body["rows"]
    moved = {term: row[f"{term}_usd"] for term in TERMS if row[f"{term}_usd"] != "0"}
    assert {"mix": "1.500000001"} == moved  # another model: it is mix, not a price that was found


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"compare": "tomorrow"}, "compare"),
        ({"before_start": "2026-11-20T05:00:00Z"}, "before_end"),
        ({"before_end": "2026-11-20T05:00:00Z"}, "before_start"),
        (
            {"before_start": "2026-11-20T05:00:00Z", "before_end": "2026-11-20T04:00:00Z"},
            "before_end",
        ),
        (
            {"before_start": "2026-11-20T05:01:00Z", "before_end": "2026-11-20T06:00:00Z"},
            "before_start",
        ),
        (
            {
                "before_start": "2026-11-20T05:00:00Z",
                "before_end": "2026-11-20T06:00:00Z",
                "compare": "previous",
            },
            "compare",
        ),
    ],
)
def test_windows_that_can_not_be_compared_are_refused(
    api: Any, acme: str, asked: dict[str, str], field: str
) -> None:
    with api.client(acme) as client:
        answer = client.get("/api/v1/costs/change", params=asked)
    assert 400 == answer.status_code
    assert field in answer.json()["detail"]


def test_the_same_place_in_the_month_before() -> None:
    """30 March has no 30 February; Madrid changed its clock on 29 March."""
    window = Window(
        datetime(2026, 3, 29, 22, tzinfo=UTC), datetime(2026, 3, 30, 22, tzinfo=UTC)
    )  # 30 March in Madrid
    before = compared("last_month", window, zone="Europe/Madrid")
    assert datetime(2026, 2, 27, 23, tzinfo=UTC) == before.start  # 28 February
    assert datetime(2026, 2, 28, 23, tzinfo=UTC) == before.end
    week = compared("last_week", window, zone="Europe/Madrid")
    assert datetime(2026, 3, 22, 23, tzinfo=UTC) == week.start
    assert timedelta(hours=24) == week.end - week.start
    year = compared("last_year", window, zone="Europe/Madrid")
    assert datetime(2025, 3, 29, 23, tzinfo=UTC) == year.start
