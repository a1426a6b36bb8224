"""What throttles let through."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.policy.document import Throttle
from controlplane.policy.quota import ThrottleState, limits_of

NOW = datetime(2026, 11, 20, 10, 0, 20, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_rate_with_a_burst() -> None:
    """Three at once, then one every two seconds."""
    state, rule = ThrottleState(), Throttle(id="t", rps=0.5, burst=3)
    assert [None, None, None, 2] == [state.take(rule, NOW, tokens=0) for _ in range(4)]
    assert 1 == state.take(rule, after(1), tokens=0)
    assert [None, 2] == [state.take(rule, after(2), tokens=0) for _ in range(2)]
    assert [None, None, None, 2] == [state.take(rule, after(60), tokens=0) for _ in range(4)]


def test_rate_without_a_burst_lets_a_second_through_at_once() -> None:
    """A rate above one is no queue of single requests."""
    state, rule = ThrottleState(), Throttle(id="t", rps=2.5)
    assert [None, None, None, 1] == [state.take(rule, NOW, tokens=0) for _ in range(4)]


def test_clock_that_goes_back_gives_nothing() -> None:
    """Neither credit nor an endless wait."""
    state, rule = ThrottleState(), Throttle(id="t", rps=1)
    assert state.take(rule, NOW, tokens=0) is None
    assert 1 == state.take(rule, after(-5), tokens=0)
    assert state.take(rule, after(1), tokens=0) is None


@pytest.mark.parametrize("rule", [Throttle(id="t", tpm=1_000), Throttle(id="t", rpm=2)])
def test_what_an_earlier_minute_did_not_use_is_no_room_in_this_one(rule: Throttle) -> None:
    """A call taken at 10:00:20 ends, or is never sent, at 10:01:10, when others have used it up."""
    state = ThrottleState()
    assert state.take(rule, NOW, tokens=900) is None
    assert state.take(rule, NOW, tokens=100) is None
    later = after(50)
    assert state.take(rule, later, tokens=600) is None
    assert state.take(rule, later, tokens=400) is None
    state.correct(rule, later, tokens=-890, taken_at=NOW)
    state.untake(rule, later, tokens=100, taken_at=NOW)
    assert 50 == state.take(rule, later, tokens=1)
    state.untake(rule, later, tokens=400, taken_at=later)
    assert state.take(rule, later, tokens=400) is None


def test_tokens_per_minute_are_charged_ahead_and_corrected() -> None:
    """The estimate counts until the call has ended; the next minute begins anew."""
    state, rule = ThrottleState(), Throttle(id="t", tpm=100)
    assert [None, 40] == [state.take(rule, NOW, tokens=60) for _ in range(2)]
    state.correct(rule, NOW, tokens=-50)
    assert [None, 40] == [state.take(rule, NOW, tokens=60) for _ in range(2)]
    assert state.take(rule, after(40), tokens=100) is None


def test_calls_at_once() -> None:
    """A place is free again when its call has ended, whatever the minute."""
    state, rule = ThrottleState(), Throttle(id="t", concurrency=2)
    assert [None, None, 1] == [state.take(rule, NOW, tokens=0) for _ in range(3)]
    assert 1 == state.take(rule, after(600), tokens=0)
    state.release(rule)
    assert [None, 1] == [state.take(rule, after(600), tokens=0) for _ in range(2)]


def test_refused_request_uses_up_no_limit() -> None:
    """The one that refuses must not eat what the others allow."""
    state, rule = ThrottleState(), Throttle(id="t", rpm=2, concurrency=1)
    assert [None, 1, 1] == [state.take(rule, NOW, tokens=0) for _ in range(3)]
    state.release(rule)
    assert state.take(rule, NOW, tokens=0) is None
    assert 2 == state.admitted("t", NOW)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Throttle(id="t", rpm=2), "2 requests per minute"),
        (Throttle(id="t", rps=0.5, tpm=9), "0.5 requests per second and 9 tokens per minute"),
        (Throttle(id="t", concurrency=3), "3 calls at once"),
    ],
)
def test_limits_in_words(rule: Throttle, said: str) -> None:
    """What a refused sender is told."""
    assert said == limits_of(rule)
