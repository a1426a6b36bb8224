"""What a budget may be, and what a lease may be sized to."""

from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from controlplane.budgets.budget import Budget, Increase, check_budget
from controlplane.budgets.lease import (
    IN_HAND,
    TRANSITIONS,
    Lease,
    LeaseEvent,
    LeaseState,
    escrow_amount,
    expired,
    lease_amount,
    returned,
    settled,
)
from controlplane.budgets.ledger import Amounts, Balance, WindowKey
from controlplane.budgets.standing import standing
from controlplane.budgets.windows import WindowKind
from controlplane.core.calendar import Period
from controlplane.core.errors import InvalidInputError
from controlplane.policy.document import Mode

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
BUDGET = Budget(
    id="b",
    name="Acme",
    owner="ada",
    tenant="acme",
    limit_nusd=1_000,
    period=Period.DAY,
    zone="Asia/Kolkata",
    counts_from=NOW,
    match={"team": ("a",)},
)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": ""}, "id"),
        ({"name": "x" * 201}, "name"),
        ({"owner": ""}, "owner"),
        ({"tenant": ""}, "tenant"),
        ({"limit_nusd": -1}, "limit_nusd"),
        ({"limit_nusd": 2**63}, "limit_nusd"),
        ({"match": {"tenant": ("globex",)}}, "match.tenant"),
        ({"match": {"colour": ("red",)}}, "match.colour"),
        ({"match": {"team": ()}}, "match.team"),
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"zone": "/etc/passwd"}, "zone"),
        ({"thresholds": (0,)}, "thresholds"),
        ({"forecast_thresholds": (0,)}, "forecast_thresholds"),
        (
            {"window_kind": WindowKind.ROLLING, "period": None, "every": "1h"},
            "forecast_thresholds",
        ),
        ({"escrow_nusd": -1}, "escrow"),
        ({"escrow_nusd": 1_001}, "escrow"),
        ({"escrow_nusd": 1, "mode": Mode.SOFT}, "escrow"),
        ({"parent": "b"}, "parent"),
        ({"increases": (Increase(amount_nusd=0, until=NOW),)}, "increases"),
        ({"increases": (Increase(amount_nusd=1, until=NOW.replace(tzinfo=None)),)}, "increases"),
        ({"increases": (Increase(amount_nusd=1, until=NOW),) * 21}, "increases"),
    ],
)
def test_wrong_field_is_named(change: dict[str, object], field: str) -> None:
    """The first that can not be kept."""
    check_budget(BUDGET)
    with pytest.raises(InvalidInputError) as refused:
        check_budget(msgspec.structs.replace(BUDGET, **change))
    assert field == refused.value.field


def test_clause_has_the_window_of_its_zone_and_its_tenant() -> None:
    """A day in Kolkata begins at 18:30 UTC the day before."""
    clause = BUDGET.clause(NOW)
    assert datetime(2026, 11, 19, 18, 30, tzinfo=UTC) == clause.window_start
    assert datetime(2026, 11, 20, 18, 30, tzinfo=UTC) == clause.window_end
    assert {"team": ("a",), "tenant": ("acme",)} == clause.match


nusd = st.integers(0, 10**15)


@given(nusd, st.builds(Amounts, nusd, nusd, nusd, nusd, st.integers(-(10**15), 10**15)))
def test_standing_always_adds_up(limit: int, amounts: Amounts) -> None:
    """limit + debt = the parts, and never both free and in debt; a re-rate may be below zero."""
    budget = msgspec.structs.replace(BUDGET, limit_nusd=limit)
    told = standing(budget, amounts, NOW)
    parts = (
        told.settled_enforced_nusd,
        told.settled_unproven_nusd,
        told.observed_unenforced_nusd,
        told.leased_nusd,
        told.free_nusd,
    )
    assert sum(parts) + told.restated_nusd == limit + told.debt_nusd
    assert min(*parts, told.debt_nusd) >= 0
    assert 0 in {told.free_nusd, told.debt_nusd}


@given(nusd, st.integers(-1_000, 1_000))
def test_a_rerate_can_lower_what_is_promised_and_never_raise_it(limit: int, moved: int) -> None:
    """The bound is about prices known at admission (L4)."""
    before = Balance(limit, Amounts(enforced_nusd=5)).grantable_nusd
    after = Balance(limit, Amounts(enforced_nusd=5, restated_nusd=moved)).grantable_nusd
    assert after == max(0, min(before, limit - 5 - moved))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"period": None}, "period"),
        ({"every": "6h"}, "every"),
        ({"anchor": NOW}, "every"),
        ({"window_kind": WindowKind.FIXED}, "period"),
        ({"window_kind": WindowKind.FIXED, "period": None}, "every"),
        ({"window_kind": WindowKind.ROLLING, "period": None, "every": "90m"}, "every"),
        ({"window_kind": WindowKind.ROLLING, "period": None, "every": "0h"}, "every"),
        ({"window_kind": WindowKind.ROLLING, "period": None, "every": "32d"}, "every"),
        ({"window_kind": WindowKind.FIXED, "period": None, "every": "367d"}, "every"),
        (
            {"window_kind": WindowKind.ROLLING, "period": None, "every": "1h", "anchor": NOW},
            "anchor",
        ),
    ],
)
def test_windows_that_make_no_sense_are_refused(change: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_budget(msgspec.structs.replace(BUDGET, **change))
    assert field == refused.value.field


@given(nusd, nusd, nusd, st.integers(0, 100))
def test_lease_is_within_what_is_free_and_wanted(
    want: int, need: int, free: int, holders: int
) -> None:
    """Never above free; the call at hand if it fits; else never above half of what is free."""
    amount = lease_amount(want_nusd=want, need_nusd=need, free_nusd=free, holders=holders)
    assert 0 <= amount <= min(free, max(want, need))
    assert amount >= min(need, free)
    assert amount <= max(need, free // 2)


def test_a_small_budget_of_several_holders_is_leased_call_by_call() -> None:
    """Below ten holds for each; a lone holder and a larger budget are leased ahead (L10)."""

    def size(*, free: int, holders: int) -> int:
        return lease_amount(want_nusd=50_000, need_nusd=100, free_nusd=free, holders=holders)

    assert 100 == size(free=1_999, holders=2)
    assert 500 == size(free=2_000, holders=2)
    assert 100 == size(free=2_000, holders=3)
    assert 999 == size(free=1_999, holders=1)
    assert 60 == size(free=60, holders=2)


LEASE = Lease(
    id="l",
    window=WindowKey("b", NOW),
    holder="h",
    amount_nusd=10,
    open_nusd=7,
    state=LeaseState.GRANTED,
    granted_at=NOW,
    expires_at=NOW,
    sweep_at=NOW,
)


def test_what_has_expired_does_not_expire_again() -> None:
    """Its money moved to unproven once; a second sweep moves nothing."""
    step = expired(LEASE)
    assert step is not None
    assert Amounts(leased_nusd=-7, unproven_nusd=7) == step.change
    assert expired(step.lease) is None


@pytest.mark.parametrize(
    ("state", "taken"),
    [
        (LeaseState.GRANTED, Amounts(leased_nusd=-7)),
        (LeaseState.RETURNED, Amounts(leased_nusd=-7)),
        (LeaseState.EXPIRED, Amounts(unproven_nusd=-7)),
        (LeaseState.PROVEN, Amounts(unproven_nusd=-7)),
    ],
)
def test_a_holder_that_counts_wrongly_frees_no_more_than_is_open(
    state: LeaseState, taken: Amounts
) -> None:
    """What it says it spent is charged in full all the same."""
    lease = msgspec.structs.replace(LEASE, state=state)
    spent = settled(lease, 50, Amounts(enforced_nusd=50))
    assert (0, taken + Amounts(enforced_nusd=50)) == (spent.lease.open_nusd, spent.change)
    back = returned(lease, 50, sweep_at=NOW)
    if state in IN_HAND:
        assert back is not None
        assert (0, taken) == (back.lease.open_nusd, back.change)
    else:
        assert back is None


def test_nothing_of_the_last_money_is_set_aside_for_a_partition() -> None:
    """All of it or nothing, and at most the share of a holder: half of what is free, by holders."""
    asked = [(200, 1), (199, 1), (600, 3), (599, 3), (200, 0)]
    found = [escrow_amount(100, free_nusd=free, holders=holders) for free, holders in asked]
    assert [100, 0, 100, 0, 100] == found


def test_every_state_can_be_settled_and_none_is_left_twice() -> None:
    """A late settle is always heard; a return and an expiry each happen once."""
    for state in LeaseState:
        assert state == TRANSITIONS[state, LeaseEvent.SETTLE]
    for event in (LeaseEvent.RETURN, LeaseEvent.EXPIRE):
        reached = {TRANSITIONS[key] for key in TRANSITIONS if key[1] is event}
        assert all((state, event) not in TRANSITIONS for state in reached)


def test_an_increase_ends_by_itself() -> None:
    """Until its moment, not at it; agents are told the limit that holds."""
    later = NOW + timedelta(hours=2)
    more = Increase(amount_nusd=500, until=NOW + timedelta(hours=1))
    longer = Increase(amount_nusd=70, until=later)
    budget = msgspec.structs.replace(BUDGET, increases=(more, longer))
    at = (NOW, more.until, later)
    assert [1_570, 1_070, 1_000] == [budget.limit_at(moment) for moment in at]
    assert [1_570, 1_070, 1_000] == [budget.clause(moment).limit_nusd for moment in at]
