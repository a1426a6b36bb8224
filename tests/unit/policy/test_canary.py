"""A canary's next share."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.policy.canary import NextShare, SideNow, next_share
from controlplane.policy.document import AbortIf, Canary

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
LIMITS = AbortIf(error_ratio=0.02, cost_ratio=1.3, latency_ratio=2.0)
RULE = Canary(
    id="c",
    to="next",
    steps=(5, 25, 100),
    step_seconds=60,
    min_calls=100,
    abort_if=LIMITS,
    share_percent=5,
)


def side(calls: int = 100, errors: int = 0, cost: int = 10, seconds: float = 1.0) -> SideNow:
    return SideNow(
        calls=calls,
        errors=errors,
        cost_nusd=cost * calls,
        priced_calls=calls,
        duration_us=round(seconds * 1e6) * calls,
        timed_calls=calls,
    )


def after(seconds: float, canary: SideNow, other: SideNow | None = None) -> NextShare | None:
    now = NOW + timedelta(seconds=seconds)
    return next_share(RULE, canary, other or side(), since=NOW, now=now)


def test_good_calls_for_long_enough_are_a_step() -> None:
    """Both the time and the calls."""
    assert after(59, side()) is None
    assert after(60, side(calls=99)) is None
    found = after(60, side())
    assert found is not None
    assert 25 == found.percent


@pytest.mark.parametrize(
    ("canary", "other", "word"),
    [
        (side(errors=3), side(), "error ratio 0.030"),
        (side(cost=14), side(cost=10), "cost ratio 1.40"),
        (side(seconds=2.1), side(), "latency ratio 2.10"),
        (side(errors=2), side(), None),
        (side(cost=13), side(cost=10), None),
        (side(cost=99), side(calls=99), None),  # too few to compare with
        (side(calls=99, errors=99), side(), None),  # too few to judge
    ],
)
def test_bad_calls_end_it_at_once(canary: SideNow, other: SideNow, word: str | None) -> None:
    """Without waiting for the step to be over."""
    found = after(1, canary, other)
    assert (found is not None) is (word is not None)
    if found is not None and word is not None:
        assert 0 == found.percent
        assert word in found.reason


@pytest.mark.parametrize("share", [0, 100, None])
def test_ended_canaries_stay_as_they_are(share: int | None) -> None:
    """Aborted, complete, or not begun."""
    rule = Canary(id="c", to="next", share_percent=share, min_calls=1)
    later = NOW + timedelta(days=1)
    assert next_share(rule, side(errors=100), side(), since=NOW, now=later) is None
