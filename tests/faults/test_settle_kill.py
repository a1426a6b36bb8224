"""Kill -9 of collector, writer and settlement in one process, under load.

Every call is reported by a client and by a proxy, in requests of their own, so that settlement
joins across batches and changes what it has posted. Afterwards: every acknowledged span is stored
once, every call is counted once, and calls, cube and ledger have the same money.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.both_sides import CALLS, BothSides, assert_exact, judge
from tests.faults.lives import ANYWHERE, MakeRequest, Sender, finish, live_and_die

WINDOWS = (
    *("after_claim", "after_commit", "before_drop", "settle_take", "settle_apply"),
    *("settle_roll_up", "settle_unposted", "settle_post", "settle_posted"),
)

CLOSING_WINDOWS = ("settle_close_before", "settle_apply", "settle_restate")

Senders = Callable[[MakeRequest], list[Sender]]


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_every_call_is_counted_once_whenever_the_process_dies(
    tmp_path: Path,
    senders: Senders,
    full_size: bool,  # noqa: FBT001 - a fixture
    write_proof: Callable[..., None],
) -> None:
    draw = random.Random(11)
    lives = [*WINDOWS * 7, *[ANYWHERE] * 17] if full_size else [*WINDOWS[4::2], ANYWHERE]
    draw.shuffle(lives)
    threads = senders(BothSides())
    for sender in threads:
        sender.start()
    for window in lives:
        live_and_die(tmp_path, threads, store="settling", draw=draw, window=window)
    acked = finish(tmp_path, threads, store="settling")
    figures = judge(tmp_path, acked)
    write_proof("kills", {"kills": len(lives), **figures})
    assert figures["acknowledged_spans"] > CALLS * len(lives), "there was load"
    assert_exact(figures)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_every_call_is_counted_or_booked_once_while_periods_close(
    tmp_path: Path,
    senders: Senders,
    full_size: bool,  # noqa: FBT001 - a fixture
    write_proof: Callable[..., None],
) -> None:
    """A period closes a fifth of a second after its calls: what is late for it is a correction."""
    draw = random.Random(12)
    lives = [*CLOSING_WINDOWS * 7, *[ANYWHERE] * 9] if full_size else ["settle_restate"]
    draw.shuffle(lives)
    threads = senders(BothSides())
    for sender in threads:
        sender.start()
    for window in lives:
        live_and_die(tmp_path, threads, store="closing", draw=draw, window=window)
    acked = finish(tmp_path, threads, store="closing")
    figures = judge(tmp_path, acked)
    write_proof("kills_closing", {"kills": len(lives), **figures})
    assert figures["closings"] >= len(lives)
    assert figures["late_calls"] > 0, "something was late"
    assert_exact(figures)
