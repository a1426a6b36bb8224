"""The budget simulator: the limit is kept, the targets are met, and it notices what it must."""

from collections.abc import Callable, Iterator, Mapping

import msgspec
import pytest

from controlplane.bootstrap.simulation import memory_ledger, simulate_budgets
from controlplane.budgets.ledger import Amounts, Entry, EntryKind
from controlplane.pipelines.sync import sync
from controlplane.policy.wire import SyncReply, SyncRequest
from controlplane.simulate.budget_outcome import Outcome
from controlplane.simulate.budget_proxy import Parts
from controlplane.simulate.budget_report import add_up, run_schedules
from controlplane.simulate.budget_schedule import Event, Kind, Schedule, Weather, draw
from controlplane.simulate.budget_stage import World
from controlplane.simulate.budget_world import simulate
from tests.simulate.faults import altered_world, hold_the_p95

SEED = "2026-11-25"
SMALL = 100
"""Holds of the runs of `make test`; the full proof draws its own sizes."""


def small_world() -> World:
    return World(open_ledger=memory_ledger)


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_the_limit_is_kept_whatever_happens(
    *, full_size: bool, write_proof: Callable[[str, Mapping[str, object]], None]
) -> None:
    """Zero nano-USD over; and in calm weather nearly all of the limit is used."""
    if full_size:
        figures = simulate_budgets(SEED, 10_000, workers=2)
    else:
        figures = add_up(SEED, [_small(number) for number in range(200)])
    told = msgspec.to_builtins(figures)
    within = (
        figures.lease_calls_per_request is None or figures.lease_calls_per_request <= 1 / 50
    ) and figures.false_denial_ratio <= 0.01
    write_proof("budget", {**told, "is_within_limits": within and figures.overspend_nusd == 0})
    assert 0 == figures.overspend_nusd
    assert () == figures.unbalanced_schedules
    assert figures.at_ceiling_ratio >= 0.05
    calm = figures.weather[Weather.CALM.value]
    assert calm.utilization_ratio_100_holds is not None
    assert calm.utilization_ratio_100_holds >= 0.95
    assert calm.utilization_ratio_1000_holds is None or calm.utilization_ratio_1000_holds >= 0.99
    # Four in five of the small runs have room for 1 to 20 calls: one refused is 5 % and more.
    assert figures.false_denial_ratio <= (0.01 if full_size else 0.05)
    assert within or not full_size


def _small(number: int) -> Outcome:
    schedule = draw(f"{SEED}:{number}", holds=1 + number % 20 if number % 5 else SMALL)
    return simulate(schedule, small_world())


def test_a_large_budget_needs_few_lease_calls() -> None:
    """Less than one in fifty requests while it holds a thousand holds."""
    outcomes = [
        simulate(draw(f"{SEED}:{n}", holds=1_500, weather=Weather.CALM), small_world())
        for n in range(4)
    ]
    asked = sum(one.asked_of_large for one in outcomes)
    assert asked > 1_000
    assert sum(one.lease_calls_of_large for one in outcomes) <= asked / 50


def test_refusals_while_cut_off_are_not_false() -> None:
    """The agent can not ask: what it refuses then is told apart."""
    calm = draw("cut", holds=SMALL, weather=Weather.CALM)
    calm = msgspec.structs.replace(calm, proxies=1, idle_proxies=0, events=(), rolls=False)
    cut = Event(at_seconds=2.0, kind=Kind.PARTITION, for_seconds=8.0)
    whole = simulate(calm, small_world())
    parted = simulate(msgspec.structs.replace(calm, events=(cut,)), small_world())
    assert 0 == whole.denied_cut_off
    assert parted.denied_cut_off > 0
    assert parted.denied_cut_off + parted.falsely_denied <= parted.denied
    group = add_up("cut", [parted]).weather[Weather.CALM.value]
    assert parted.denied_cut_off == group.denied_cut_off


def test_the_seed_alone_reproduces_a_run() -> None:
    first, second = (list(run_schedules("x", range(4), world_of=_memory)) for _ in range(2))
    assert first == second
    assert first != list(run_schedules("y", range(4), world_of=_memory))


def test_workers_change_nothing() -> None:
    assert simulate_budgets("x", 30) == simulate_budgets("x", 30, workers=2)


def test_the_database_gives_the_same_run_as_memory() -> None:
    """Number 0 of a seed runs on SQLite."""
    (expected,) = run_schedules("x", [0], world_of=_memory)
    actual = simulate_budgets("x", 1)
    assert expected.asked == actual.requests
    assert expected.admitted == actual.admitted


def _memory(_number: int) -> World:
    return small_world()


def test_schedules_hold_everything_that_can_go_wrong() -> None:
    drawn = [draw(f"{SEED}:{number}") for number in range(300)]
    assert set(Kind) == {event.kind for schedule in drawn for event in schedule.events}
    assert set(Weather) == {schedule.weather for schedule in drawn}
    assert {True, False} == {schedule.rolls for schedule in drawn}
    assert any(schedule.traffic.turns_at is not None for schedule in drawn)
    assert all(schedule.traffic.at_ceiling_ratio >= 0.05 for schedule in drawn)


def double_grant() -> World:
    """Every other grant is forgotten, so its money is granted again."""
    seen = [0]

    def alter(entry: Entry) -> list[Entry]:
        seen[0] += entry.kind is EntryKind.GRANT
        return [] if entry.kind is EntryKind.GRANT and seen[0] % 2 else [entry]

    return altered_world(alter)


def grant_again_after_expiry() -> World:
    """A silent holder's lease is taken for unspent (what L2 forbids)."""

    def alter(entry: Entry) -> list[Entry]:
        if entry.kind is EntryKind.EXPIRE:
            freed = Amounts(leased_nusd=entry.change.leased_nusd)
            return [msgspec.structs.replace(entry, change=freed)]
        return [entry]

    return altered_world(alter)


def refund_twice() -> World:
    """What is given back is freed twice."""

    def alter(entry: Entry) -> list[Entry]:
        if entry.kind is EntryKind.RETURN:
            return [entry, msgspec.structs.replace(entry, key=f"{entry.key}:again")]
        return [entry]

    return altered_world(alter)


def fork_copies_leases() -> World:
    """A child goes on with its parent's leases (what L11 forbids)."""
    parts = Parts(after_fork=lambda _parent, _child: None)
    return World(open_ledger=memory_ledger, parts=parts)


@pytest.mark.parametrize(
    ("fault", "weather", "happens"),
    [
        (double_grant, Weather.CALM, None),
        (grant_again_after_expiry, Weather.STORMY, Kind.CRASH),
        (refund_twice, Weather.CALM, None),
        (fork_copies_leases, Weather.LOSSY, Kind.FORK),
        (hold_the_p95, Weather.CALM, None),
    ],
)
def test_planted_fault_is_overspend(
    fault: Callable[[], World], weather: Weather, happens: Kind | None
) -> None:
    """The simulator is able to fail; the product's own code passes on the same schedules."""
    for schedule in _schedules(weather, happens):
        if simulate(schedule, fault()).overspend_nusd:
            assert 0 == simulate(schedule, small_world()).overspend_nusd
            return
    pytest.fail("no schedule showed the fault")


def test_lost_returns_show_as_unused_money() -> None:
    """Nothing is overspent, but what is never given back can not be spent by others."""

    def lose(request: SyncRequest, *arguments: object, **named: object) -> SyncReply:
        deaf = msgspec.structs.replace(request, returns=(), leases=None)
        return sync(deaf, *arguments, **named)  # type: ignore[arg-type]  # passed on as they came

    used = {"lost": 0.0, "told": 0.0}
    for schedule in list(_schedules(Weather.CALM, None))[:12]:
        lost = simulate(schedule, World(open_ledger=memory_ledger, run_sync=lose))
        assert 0 == lost.overspend_nusd
        used["lost"] += lost.utilization_ratio or 0.0
        used["told"] += simulate(schedule, small_world()).utilization_ratio or 0.0
    assert used["lost"] < 0.98 * used["told"]


def _schedules(weather: Weather, happens: Kind | None) -> Iterator[Schedule]:
    for number in range(400):
        schedule = draw(f"fault:{number}", weather=weather, holds=20)
        kinds = {event.kind for event in schedule.events}
        if happens is None or happens in kinds:
            yield schedule
