"""How far starts in the future are moved back (C8)."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.instants import HOUR_US
from controlplane.ingest import clock_skew
from controlplane.ingest.clock_skew import AHEAD_US, REVISED_US, correct, starts_ahead

APP = ("default", "key", "app")
NOW = 1_800_000_000_000_000
SECOND = 1_000_000


def moved(skews_us: list[int], known_us: int | None = None) -> tuple[list[int], list[int]]:
    """Move starts that are ahead by so much; answer how far, and what was learned."""
    arrived = np.full(len(skews_us), NOW, dtype=np.int64)
    known = {} if known_us is None else {APP: (known_us,)}
    found = correct(arrived + np.array(skews_us), arrived, [APP] * len(skews_us), known_us=known)
    return found.ahead_us.tolist(), [one.ahead_us for one in found.learned]


def test_five_minutes_are_no_wrong_clock() -> None:
    starts = np.array([NOW + AHEAD_US, NOW + AHEAD_US + 1, NOW - HOUR_US])
    assert [1] == starts_ahead(starts, np.full(3, NOW)).tolist()


def test_a_clock_two_hours_ahead_is_learned_once_and_moves_all_alike() -> None:
    skews = [2 * HOUR_US - 3 * SECOND, 2 * HOUR_US - SECOND, 2 * HOUR_US - 2 * SECOND]
    learned = 2 * HOUR_US - 2 * SECOND
    assert ([learned] * 3, [learned]) == moved(skews)
    assert ([learned], []) == moved([2 * HOUR_US - 9 * SECOND], learned)


def test_what_is_sent_again_is_moved_as_before() -> None:
    """A minute later the same start is less in the future; the estimate stays."""
    first, learned = moved([2 * HOUR_US])
    again, more = moved([2 * HOUR_US - 60 * SECOND], learned[0])
    assert (first, []) == (again, more)


def test_a_clock_that_was_set_is_learned_anew() -> None:
    assert ([5 * HOUR_US], [5 * HOUR_US]) == moved([5 * HOUR_US], 2 * HOUR_US)
    assert ([HOUR_US], [HOUR_US]) == moved([HOUR_US], 2 * HOUR_US)


def test_a_stray_start_is_moved_by_whole_hours_and_moves_no_other() -> None:
    century = 100 * 365 * 24 * HOUR_US
    ahead, learned = moved([HOUR_US, HOUR_US, century + 1])
    assert ([HOUR_US, HOUR_US, century + HOUR_US], [HOUR_US]) == (ahead, learned)


def test_estimates_are_bounded() -> None:
    arrived = np.array([NOW], dtype=np.int64)
    many = {("default", "key", str(n)): (HOUR_US,) for n in range(clock_skew.MAX_ESTIMATES)}
    one = {APP: tuple(n * 24 * HOUR_US for n in range(1, 1 + clock_skew.MAX_PER_EMITTER))}
    for known in (many, one):
        found = correct(arrived + HOUR_US + 1, arrived, [APP], known_us=known)
        assert ([2 * HOUR_US], ()) == (found.ahead_us.tolist(), found.learned)


def test_machines_of_one_service_have_clocks_of_their_own() -> None:
    """They take turns; each is learned once, and the earlier stays first."""
    arrived = np.array([NOW, NOW], dtype=np.int64)
    known = {APP: (2 * HOUR_US, 5 * HOUR_US, 2 * HOUR_US - SECOND)}
    skews = np.array([5 * HOUR_US - SECOND, 2 * HOUR_US - SECOND])
    found = correct(arrived + skews, arrived, [APP, APP], known_us=known)
    assert ([5 * HOUR_US, 2 * HOUR_US], ()) == (found.ahead_us.tolist(), found.learned)


@given(
    skews=st.lists(st.integers(AHEAD_US + 1, 10**15), min_size=1, max_size=20),
    known_us=st.none() | st.integers(AHEAD_US, 10**15),
)
def test_nothing_stays_in_the_future_or_falls_far_into_the_past(
    skews: list[int], known_us: int | None
) -> None:
    ahead, _ = moved(skews, known_us)
    left = [skew - move for skew, move in zip(skews, ahead, strict=True)]
    assert max(left) <= AHEAD_US
    assert min(left) > -max(REVISED_US, HOUR_US)
