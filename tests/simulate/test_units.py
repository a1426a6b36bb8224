"""Budgets in tokens and in requests: the same worlds, the same oracle, nothing over."""

from collections.abc import Callable
from typing import Final

import msgspec
import pytest

from controlplane.bootstrap.simulation import memory_ledger
from controlplane.budgets.ledger import Entry, EntryKind
from controlplane.policy.units import BudgetUnit
from controlplane.simulate.budget_schedule import Schedule, Weather, draw
from controlplane.simulate.budget_stage import World
from controlplane.simulate.budget_world import simulate
from tests.simulate.faults import altered_world, hold_the_p95

HOLDS: Final = 10
OTHERS: Final = (BudgetUnit.TOKENS, BudgetUnit.REQUESTS)


def _schedule(number: int, weather: Weather, unit: BudgetUnit) -> Schedule:
    drawn = draw(f"units:{number}", weather=weather, holds=HOLDS)
    return msgspec.structs.replace(drawn, unit=unit)


@pytest.mark.parametrize("unit", OTHERS)
def test_a_limit_in_another_unit_is_kept_and_used(unit: BudgetUnit) -> None:
    used = []
    for number, weather in enumerate((*Weather, Weather.CALM, Weather.STORMY)):
        outcome = simulate(_schedule(number, weather, unit), World(open_ledger=memory_ledger))
        assert (0, True) == (outcome.overspend_nusd, outcome.is_conserved), number
        if outcome.utilization_ratio is not None:
            used.append(outcome.utilization_ratio)
    assert used
    assert max(used) >= 0.9


@pytest.mark.parametrize("unit", OTHERS)
def test_grants_that_are_forgotten_are_overspend(unit: BudgetUnit) -> None:
    """The oracle counts in the unit, too: a planted fault shows."""

    def forget(entry: Entry) -> list[Entry]:
        return [] if entry.kind is EntryKind.GRANT else [entry]

    assert _shows(unit, lambda: altered_world(forget))


def test_half_a_ceiling_in_tokens_is_overspend() -> None:
    assert _shows(BudgetUnit.TOKENS, hold_the_p95)


def _shows(unit: BudgetUnit, faulty: Callable[[], World]) -> bool:
    """Whether one of a few runs is overspent."""
    return any(
        simulate(_schedule(number, Weather.CALM, unit), faulty()).overspend_nusd
        for number in range(20)
    )


def test_schedules_are_drawn_in_every_unit() -> None:
    assert set(BudgetUnit) == {draw(f"units:{number}").unit for number in range(60)}


def test_a_limit_of_less_than_one_request_is_none_that_could_be_used() -> None:
    """Six tenths of one request, of the parent, are no request."""
    schedule = draw("2026-11-25:7208")
    assert (1, 0.6, BudgetUnit.REQUESTS) == (schedule.holds, schedule.parent_ratio, schedule.unit)
    outcome = simulate(schedule, World(open_ledger=memory_ledger))
    assert (0, 0, None) == (outcome.admitted, outcome.overspend_nusd, outcome.utilization_ratio)
