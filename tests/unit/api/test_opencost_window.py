"""OpenCost's words for windows on the organisation's clock, with a frozen one of ours."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.api.opencost_window import steps_of, window_of
from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.core.fiscal import GREGORIAN

NOW = datetime(2026, 11, 20, 10, 7, tzinfo=UTC)  # a Friday


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("today", "2026-11-20T00:00", "2026-11-21T00:00"),
        ("yesterday", "2026-11-19T00:00", "2026-11-20T00:00"),
        ("week", "2026-11-16T00:00", "2026-11-20T10:15"),
        ("lastweek", "2026-11-09T00:00", "2026-11-16T00:00"),
        ("month", "2026-11-01T00:00", "2026-11-20T10:15"),
        ("lastmonth", "2026-10-01T00:00", "2026-11-01T00:00"),
        ("7d", "2026-11-14T00:00", "2026-11-21T00:00"),
        ("1w", "2026-11-14T00:00", "2026-11-21T00:00"),
        ("24h", "2026-11-19T11:00", "2026-11-20T11:00"),
        ("30m", "2026-11-20T09:45", "2026-11-20T10:15"),
        ("2026-11-01T00:00:00Z,2026-11-02T02:30:00+02:00", "2026-11-01T00:00", "2026-11-02T00:30"),
        ("1578002400,1580681700", "2020-01-02T22:00", "2020-02-02T22:15"),
        ("1578002400-1580681700", "2020-01-02T22:00", "2020-02-02T22:15"),
    ],
)
def test_words_durations_and_pairs(text: str, start: str, end: str) -> None:
    """Weeks start on the calendar's day, which is Monday here (OpenCost's own is Sunday)."""
    found = window_of(text, now=NOW, zone="UTC", calendar=GREGORIAN)
    assert Window(_at(start), _at(end)) == found


def test_days_are_those_of_the_zone() -> None:
    """Half past five ahead of UTC it is Friday afternoon; the clocks of New York change on the 1st."""
    kolkata = window_of("today", now=NOW, zone="Asia/Kolkata", calendar=GREGORIAN)
    assert Window(_at("2026-11-19T18:30"), _at("2026-11-20T18:30")) == kolkata
    days = window_of(
        "2026-10-31T04:00:00Z,2026-11-03T05:00:00Z",
        now=NOW,
        zone="America/New_York",
        calendar=GREGORIAN,
    )
    steps = steps_of(days, "1d", zone="America/New_York")
    assert [24, 25, 24] == [(step.end - step.start) // timedelta(hours=1) for step in steps]
    assert [days.start, *(step.end for step in steps)] == [*(s.start for s in steps), days.end]


def test_the_last_step_is_what_is_left() -> None:
    window = Window(_at("2026-11-20T00:00"), _at("2026-11-20T01:00"))
    steps = steps_of(window, "45m", zone="UTC")
    assert [45, 15] == [(step.end - step.start) // timedelta(minutes=1) for step in steps]
    assert (window,) == steps_of(window, None, zone="UTC")


@pytest.mark.parametrize("text", ["99999999999999,1", "7x", "", "7d offset 1d", "now"])
def test_what_is_no_window_says_so(text: str) -> None:
    with pytest.raises(InvalidInputError):
        window_of(text, now=NOW, zone="UTC", calendar=GREGORIAN)
