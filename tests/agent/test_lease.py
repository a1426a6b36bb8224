from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from controlplane.agent.lease import Instant
from controlplane.agent.lease_book import IDLE_SECONDS, LeaseBook, Need
from controlplane.agent.refusals import Refusals, Refused
from controlplane.core.clock import FakeClock
from controlplane.policy.wire import Grant, Standing

START = datetime(2026, 1, 1, tzinfo=UTC)
AT = Instant(START, 0.0)


def _later(seconds: float, *, wall: float | None = None) -> Instant:
    return Instant(START + timedelta(seconds=seconds if wall is None else wall), seconds)


def _escrow(lease_id: str, amount: int, ttl: float = 1_200.0) -> Grant:
    return Grant("b", lease_id, amount, ttl, START + timedelta(seconds=ttl), is_escrow=True)


def _grant(lease_id: str, amount: int, budget: str = "b", ttl: float = 60.0) -> Grant:
    return Grant(budget, lease_id, amount, ttl, START + timedelta(seconds=ttl))


def test_a_hold_takes_from_every_budget_or_none() -> None:
    book = LeaseBook()
    book.accept(_grant("l1", 100, "x"), AT)
    book.accept(_grant("l2", 50, "y"), AT)
    assert book.hold({"x": 60, "y": 60}, AT) is None
    assert (100, 50) == (book.left_nusd("x"), book.left_nusd("y"))
    assert {"x": "l1", "y": "l2"} == book.hold({"y": 50, "x": 50}, AT)
    assert (50, 0) == (book.left_nusd("x"), book.left_nusd("y"))


def test_a_lease_ends_by_whichever_clock_is_ahead() -> None:
    """A suspended machine or a stepped wall clock must not prolong a lease."""
    for now in (_later(61), _later(1, wall=61)):
        book = LeaseBook()
        book.accept(_grant("l1", 100), AT)
        assert book.hold({"b": 10}, now) is None
    young = LeaseBook()
    young.accept(_grant("l2", 100), AT)
    assert {"b": "l2"} == young.hold({"b": 10}, _later(59))


def test_a_clock_set_back_does_not_prolong_a_lease() -> None:
    book = LeaseBook()
    book.accept(_grant("l1", 100), AT)
    assert book.hold({"b": 10}, _later(61, wall=-3_600)) is None


def test_what_was_given_back_can_not_be_held() -> None:
    book = LeaseBook()
    book.accept(_grant("l1", 100), AT)
    assert book.hold({"b": 30}, AT)
    (returned,) = book.give_back({}, _later(IDLE_SECONDS + 0.1))
    assert ("l1", 70) == (returned.lease_id, returned.unspent_nusd)
    assert book.hold({"b": 1}, _later(3)) is None
    assert () == book.give_back_all()


def test_what_a_call_did_not_use_can_be_held_again() -> None:
    """Only in a lease that is still open: what was closed is told to the server whole."""
    book = LeaseBook()
    book.accept(_grant("l1", 100), AT)
    first, second = book.hold({"b": 60}, AT), book.hold({"b": 40}, AT)
    assert first == second == {"b": "l1"}
    assert {"b": 35} == book.release({"b": "l1"}, {"b": 35})
    assert {"b": "l1"} == book.hold({"b": 35}, AT)
    assert book.hold({"b": 1}, AT) is None
    assert [("l1", 0)] == [(one.lease_id, one.unspent_nusd) for one in book.give_back_all()]
    assert {} == book.release({"b": "l1"}, {"b": 40})


def test_small_remains_are_used_first() -> None:
    book = LeaseBook()
    book.accept(_grant("large", 100), AT)
    book.accept(_grant("small", 30), AT)
    assert {"b": "small"} == book.hold({"b": 30}, AT)
    assert {"b": "large"} == book.hold({"b": 31}, AT)


def test_an_idle_lease_is_kept_while_there_is_plenty() -> None:
    """It goes back when others may need it, and at once when it is asked back."""
    for free, recalled, idle, expected in (
        (1_000, (), 20.0, 0),
        (99, (), IDLE_SECONDS + 0.1, 1),
        (99, (), IDLE_SECONDS - 0.1, 0),
        (1_000, ("b",), 0.3, 1),
        (1_000, ("b",), 0.1, 0),
    ):
        book = LeaseBook()
        book.accept(_grant("l1", 100), AT)
        given = book.give_back(
            {}, _later(idle), standings={"b": _standing(free)}, recalled=recalled
        )
        assert expected == len(given)


def _standing(free: int) -> Standing:
    return Standing("b", START, START + timedelta(days=1), 1_000, 0, 0, 0, 0, 1_000 - free, free)


def test_a_refusal_is_remembered_until_money_may_have_come_back() -> None:
    book = LeaseBook()
    assert not book.accept(_grant("", 0, ttl=5.0), AT)
    assert book.is_refused("b", 1, _later(4))
    assert () == book.wants({"b": [Need(10, 10)]}, elapsed_seconds=1.0, now=_later(4))
    assert not book.is_refused("b", 1, _later(6))
    book.accept(_grant("", 0, ttl=5.0), AT)
    book.forget_refusal(["b"], _later(0.5))
    (want,) = book.wants({"b": [Need(10, 1), Need(20, 1)]}, elapsed_seconds=1.0, now=_later(1))
    assert (30 + 16 * 20, 30, 1) == (want.want_nusd, want.need_nusd, want.least_nusd)


def test_a_refusal_does_not_outlive_the_reason() -> None:
    """It was sent before a call's money came back, or the server says that there is enough now."""
    book = LeaseBook()
    book.forget_refusal(["b"], _later(1))
    assert not book.accept(_grant("", 0, ttl=5.0), AT, least_nusd=10)
    assert not book.is_refused("b", 10, _later(2))
    assert not book.accept(_grant("", 0, ttl=5.0), _later(2), least_nusd=10)
    assert not book.heard(_standing(9))
    assert book.is_refused("b", 10, _later(2))
    assert book.heard(_standing(10))
    assert not book.is_refused("b", 10, _later(2))
    assert not book.heard(_standing(10))


def test_who_is_about_to_end_asks_only_for_calls_that_wait() -> None:
    book = LeaseBook()
    book.accept(_grant("l1", 1_000), AT)
    assert book.hold({"b": 1_000}, AT)
    assert () == book.wants({}, elapsed_seconds=1.0, now=_later(1), in_advance=False)
    (want,) = book.wants(
        {"b": [Need(30, 1), Need(20, 1)]}, elapsed_seconds=1.0, now=_later(2), in_advance=False
    )
    assert 50 == want.need_nusd
    assert want.want_nusd < 1_000


def test_too_little_is_remembered_for_calls_that_need_more() -> None:
    book = LeaseBook()
    book.accept(_grant("l1", 5), AT)
    book.fell_short("b", 10, AT)
    assert book.is_refused("b", 10, _later(0.05))
    assert not book.is_refused("b", 9, _later(0.05))
    assert not book.is_refused("b", 10, _later(2))
    book.fell_short("b", 5, AT)
    assert not book.is_refused("b", 5, AT)


def test_a_busy_budget_asks_before_it_runs_dry() -> None:
    book = LeaseBook()
    book.accept(_grant("l1", 1_000), AT)
    assert book.hold({"b": 800}, AT)
    (want,) = book.wants({}, elapsed_seconds=1.0, now=_later(1))
    assert want.want_nusd >= 800


def test_a_renewed_lease_is_given_back_and_asked_for_in_one_message() -> None:
    """What is wanted is reckoned without what goes back."""
    book, plenty = LeaseBook(), {"b": _standing(10_000)}
    book.accept(_grant("l1", 1_000), AT)
    assert book.hold({"b": 10}, AT)
    assert () == book.give_back({}, _later(44), standings=plenty)
    assert book.hold({"b": 10}, _later(44))
    (returned,) = book.give_back({}, _later(46), standings=plenty)
    assert 980 == returned.unspent_nusd
    (want,) = book.wants({}, elapsed_seconds=1.0, now=_later(46))
    assert want.want_nusd > 20


def test_a_lease_that_has_a_younger_one_beside_it_is_used_to_its_end() -> None:
    book, plenty = LeaseBook(), {"b": _standing(10_000)}
    book.accept(_grant("old", 100), AT)
    book.accept(_grant("young", 100), _later(30))
    assert {"b": "old"} == book.hold({"b": 20}, _later(40))
    assert () == book.give_back({}, _later(59), standings=plenty)
    assert {"b": "old"} == book.hold({"b": 20}, _later(59))
    (returned,) = book.give_back({}, _later(60.1), standings=plenty)
    assert ("old", 60) == (returned.lease_id, returned.unspent_nusd)


def test_what_is_too_little_for_a_call_is_no_reason_to_speak() -> None:
    """It goes with the next message that says something, or when its life ends."""
    book = LeaseBook()
    book.accept(_grant("l1", 100), AT)
    assert book.hold({"b": 60}, AT)
    plenty = {"b": _standing(1_000)}
    assert () == book.give_back({}, _later(50), standings=plenty)
    assert () == book.give_back_spent(_later(40), standings=plenty)
    (returned,) = book.give_back_spent(_later(50), standings=plenty)
    assert 40 == returned.unspent_nusd
    book.accept(_grant("l2", 40), _later(50))
    (returned,) = book.give_back({}, _later(111), standings=plenty)
    assert ("l2", 40) == (returned.lease_id, returned.unspent_nusd)


def test_the_first_lease_of_a_large_budget_is_a_part_of_it() -> None:
    for free, expected in ((0, 160), (2_559, 160), (16_000, 1_000)):
        (want,) = LeaseBook().wants(
            {"b": [Need(10, 10)]}, elapsed_seconds=1.0, now=AT, free={"b": free}
        )
        assert (expected + 10, 10) == (want.want_nusd, want.need_nusd)


def test_one_request_a_second_is_demand_for_a_budget_of_requests() -> None:
    """Whatever the unit: what is asked for ahead is reckoned in calls."""
    book = LeaseBook()
    book.accept(_grant("l1", 16), AT)
    wants = book.wants({}, elapsed_seconds=1.0, now=AT)
    for second in range(14):
        assert book.hold({"b": 1}, _later(second))
        wants = book.wants({}, elapsed_seconds=2.0, now=_later(second))
    (want,) = wants
    assert want.want_nusd > 300
    idle = [book.wants({}, elapsed_seconds=2.0, now=_later(14 + n)) for n in range(6)]
    assert () == idle[-1]


def test_nothing_is_asked_in_advance_of_what_others_wait_for() -> None:
    book = LeaseBook()
    book.accept(_grant("l1", 1_000), AT)
    assert book.hold({"b": 900}, AT)
    assert () == book.wants({}, elapsed_seconds=1.0, now=_later(1), recalled=["b"])
    (want,) = book.wants(
        {"b": [Need(200, 200)]}, elapsed_seconds=1.0, now=_later(2), recalled=["b"]
    )
    assert 200 - 100 <= want.need_nusd <= 200


def test_who_is_about_to_end_gives_back_what_it_does_not_use_for_a_second() -> None:
    book = LeaseBook()
    book.accept(_grant("l1", 1_000), AT)
    plenty = {"b": _standing(10_000)}
    assert () == book.give_back({}, _later(0.9), standings=plenty, is_leaving=True)
    assert () == book.give_back({}, _later(1.1), standings=plenty)
    (returned,) = book.give_back({}, _later(1.1), standings=plenty, is_leaving=True)
    assert 1_000 == returned.unspent_nusd


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("grant"), st.integers(0, 500)),
            st.tuples(st.just("hold"), st.integers(0, 300)),
            st.tuples(st.just("wait"), st.integers(0, 30)),
            st.tuples(st.just("return"), st.integers(0, 300)),
        ),
        max_size=60,
    )
)
def test_no_lease_is_ever_held_for_more_than_it_is(steps: list[tuple[str, int]]) -> None:
    """Held + returned + left = granted for every lease, and nothing is held after its end."""
    book, clock = LeaseBook(), FakeClock(START)
    granted: dict[str, tuple[int, float]] = {}
    gone: dict[str, int] = {}
    for number, (step, amount) in enumerate(steps):
        now = Instant.of(clock)
        if step == "grant":
            lease = f"l{number}"
            if book.accept(_grant(lease, amount, ttl=20.0), now):
                granted[lease] = (amount, clock.monotonic())
        elif step == "hold":
            for lease in (book.hold({"b": amount}, now) or {}).values():
                gone[lease] = gone.get(lease, 0) + amount
                assert clock.monotonic() < granted[lease][1] + 20.0
        elif step == "wait":
            clock.advance(amount)
        else:
            for item in book.give_back({"b": amount}, now):
                gone[item.lease_id] = gone.get(item.lease_id, 0) + item.unspent_nusd
                assert gone[item.lease_id] == granted[item.lease_id][0]
    left = {lease.lease_id: lease.left_nusd for lease in book.leases}
    for lease, (amount, _) in granted.items():
        assert amount == gone.get(lease, 0) + left.get(lease, 0)
        assert left.get(lease, 0) >= 0


def test_escrow_is_spent_only_without_a_server_and_last() -> None:
    book = LeaseBook()
    book.accept(_grant("l1", 50), AT)
    book.accept(_escrow("e1", 30), AT)
    assert book.hold({"b": 30}, _later(1)) == {"b": "l1"}
    assert book.hold({"b": 30}, _later(1)) is None
    assert 20 == book.left_nusd("b")
    book.is_isolated = True
    assert {"b": "l1"} == book.hold({"b": 20}, _later(1))
    assert {"b": "e1"} == book.hold({"b": 10}, _later(600))  # the other lease is long over
    assert {"b": 5} == book.release({"b": "e1"}, {"b": 5})
    assert book.hold({"b": 26}, _later(600)) is None
    assert {"b": "e1"} == book.hold({"b": 25}, _later(1_199))
    assert book.hold({"b": 0}, _later(1_201)) is None


def test_escrow_is_asked_for_where_somebody_calls_and_renewed_before_the_old_goes() -> None:
    book, kept = LeaseBook(), {"b": 30, "nobody": 30}
    assert () == book.escrow_wants(kept, AT, standings={})
    book.accept(_grant("l1", 50), AT)
    (want,) = book.escrow_wants(kept, AT, standings={})
    assert ("b", 30, 30, True) == (want.budget_id, want.want_nusd, want.least_nusd, want.is_escrow)
    assert () == book.escrow_wants(kept, _later(5), standings={})  # not at once again
    book.accept(_escrow("e1", 30), AT)
    assert () == book.escrow_wants(kept, _later(299), standings={})
    assert 1 == len(book.escrow_wants(kept, _later(301), standings={}))  # a quarter has passed
    book.give_back_all(["nobody"])
    assert "e1" not in {one.lease_id for one in book.give_back({}, _later(301), escrows=kept)}
    book.accept(_escrow("e2", 30), _later(301))
    assert ["e1"] == [one.lease_id for one in book.give_back({}, _later(302), escrows=kept)]


def test_escrow_goes_back_when_others_lack_it_but_not_without_a_server() -> None:
    book, kept = LeaseBook(), {"b": 30}
    book.accept(_escrow("e1", 30), AT)
    book.is_isolated = True
    assert () == book.give_back({}, _later(1), recalled=["b"], escrows=kept)
    book.is_isolated = False
    assert () == book.give_back({}, _later(1), escrows=kept)
    (returned,) = book.give_back({}, _later(1), recalled=["b"], escrows=kept)
    assert ("e1", 30) == (returned.lease_id, returned.unspent_nusd)
    assert () == book.escrow_wants(kept, _later(10), standings={})
    assert 1 == len(book.escrow_wants(kept, _later(12), standings={}))


def test_escrow_alone_is_nothing_to_hurry_for_when_others_lack_it() -> None:
    """An agent speaks ten times a second while it has what is recalled: escrow is not that."""
    book = LeaseBook()
    book.accept(_escrow("e1", 30), AT)
    assert not book.holds_of({"b"})
    book.accept(_grant("l1", 20), AT)
    assert book.holds_of({"b"})
    assert not book.holds_of({"c"})


def test_a_refused_escrow_says_nothing_of_calls() -> None:
    book = LeaseBook()
    assert not book.accept(_escrow("", 0), AT)
    assert not book.is_refused("b", 1, AT)


def test_another_policy_makes_asking_sensible_again() -> None:
    """What was refused under the old limit says nothing of the new one, however late the answer."""
    refusals = Refusals()
    refusals.add("b", Refused(_later(0), 60.0, 10))
    assert 59.0 == refusals.seconds("b", 10, _later(1))
    refusals.renew(_later(2))
    assert 0.0 == refusals.seconds("b", 10, _later(2))
    refusals.add("b", Refused(_later(1), 60.0, 10))  # asked for under the old policy
    assert 0.0 == refusals.seconds("b", 10, _later(3))
    refusals.add("b", Refused(_later(3), 60.0, 10))
    assert 60.0 == refusals.seconds("b", 10, _later(3))
