"""Fixed windows tile time; what a rolling budget admits stays within its limit in any span."""

from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import given

from controlplane.budgets.book import LeaseTerms, LedgerBook
from controlplane.budgets.budget import Budget
from controlplane.budgets.ledger import WindowKey
from controlplane.budgets.windows import WindowKind, fixed_window, parse_every
from controlplane.policy.wire import LeaseReturn, LeaseWant
from controlplane.store.memory.ledger import MemoryLedger

ANCHOR = datetime(2026, 3, 20, 7, 30, tzinfo=UTC)
instants = st.datetimes(
    datetime(2026, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    datetime(2027, 1, 1),  # noqa: DTZ001 - the same
    timezones=st.just(UTC),
)


def test_hours_are_counted_as_they_pass() -> None:
    """Five hours from 07:30: the window of 13:00 began at 12:30."""
    every = parse_every("5h")
    window = fixed_window(every, anchor=ANCHOR, at=ANCHOR.replace(hour=13, minute=0), zone="UTC")
    assert (ANCHOR.replace(hour=12), ANCHOR.replace(hour=17)) == (window.start, window.end)
    before = fixed_window(every, anchor=ANCHOR, at=ANCHOR - timedelta(seconds=1), zone="UTC")
    assert ANCHOR == before.end


def test_days_begin_at_the_anchors_time_of_day_in_the_zone() -> None:
    """Madrid goes to summer time on 29 March 2026: the third day from the 28th 08:30 is short."""
    madrid = ZoneInfo("Europe/Madrid")
    at = datetime(2026, 3, 28, 20, tzinfo=UTC)
    anchor = datetime(2026, 3, 20, 8, 30, tzinfo=madrid).astimezone(UTC)
    window = fixed_window(parse_every("2d"), anchor=anchor, at=at, zone="Europe/Madrid")
    assert datetime(2026, 3, 28, 8, 30, tzinfo=madrid) == window.start
    assert datetime(2026, 3, 30, 8, 30, tzinfo=madrid) == window.end
    assert timedelta(hours=47) == window.end - window.start


@pytest.mark.parametrize("zone", ["UTC", "Europe/Madrid", "Australia/Lord_Howe", "Asia/Kolkata"])
@given(every=st.sampled_from(["1h", "7h", "1d", "3d", "30d"]), at=instants, anchor=instants)
def test_fixed_windows_tile_time(zone: str, every: str, at: datetime, anchor: datetime) -> None:
    """The window holds its instant, and its neighbours begin and end where it does."""
    length = parse_every(every)
    window = fixed_window(length, anchor=anchor, at=at, zone=zone)
    assert window.contains(at)
    after = fixed_window(length, anchor=anchor, at=window.end, zone=zone)
    last = window.start - timedelta(microseconds=1)
    before = fixed_window(length, anchor=anchor, at=last, zone=zone)
    assert (window.start, window.end) == (before.end, after.start)


moments = st.lists(
    st.tuples(st.integers(0, 1_500), st.integers(1, 60), st.floats(0, 1)), min_size=2, max_size=40
)


@given(moments)
def test_no_span_of_a_rolling_window_passes_the_limit(
    moments: list[tuple[int, int, float]],
) -> None:
    """Leases are granted, partly spent until they end, and given back; every hour stays within 100."""
    budget = Budget(
        id="b",
        name="b",
        owner="o",
        tenant="t",
        limit_nusd=100,
        window_kind=WindowKind.ROLLING,
        every="1h",
        counts_from=ANCHOR,
    )
    ledger, now, spent = MemoryLedger([budget]), ANCHOR, list[tuple[datetime, int]]()
    for number, (seconds, want, share) in enumerate(moments):
        now += timedelta(seconds=seconds)
        with ledger.transaction() as transaction:
            current = WindowKey("b", budget.window(now).start)
            book = LedgerBook(
                {"b": budget},
                terms=LeaseTerms(ttl_seconds=60),
                now=now,
                holders={},
                amounts=transaction.amounts([current]),
                earlier={
                    "b": transaction.amounts_between(
                        "b", budget.counted_window(now).start, current.start
                    )
                },
            )
            lease = book.grant(LeaseWant("b", want, want), holder="h", new_id=partial(str, number))
            if lease is not None:
                used = int(lease.amount_nusd * share)
                spent.append((lease.expires_at - timedelta(microseconds=1), used))
                book.give_back(LeaseReturn(lease.id, lease.amount_nusd - used), holder="h")
            transaction.append(book.entries)
            transaction.save_leases(book.leases)
    for end, _ in spent:
        start = end - timedelta(hours=1)
        assert sum(nusd for at, nusd in spent if start < at <= end) <= 100


def test_a_rolling_window_lets_go_of_what_is_older() -> None:
    """It is refused while the first quarter hour counts, and granted when it no longer does."""
    budget = Budget(
        id="b",
        name="b",
        owner="o",
        tenant="t",
        limit_nusd=100,
        window_kind=WindowKind.ROLLING,
        every="6h",
        counts_from=ANCHOR,
    )
    windows = [budget.counted_window(ANCHOR + timedelta(minutes=15 * n)) for n in range(30)]
    assert all(b.start - a.start == timedelta(minutes=15) for a, b in pairwise(windows))
    last = ANCHOR + timedelta(hours=6, minutes=14)
    assert budget.counted_window(last).contains(ANCHOR)
    assert not budget.counted_window(last + timedelta(minutes=1)).contains(ANCHOR)
