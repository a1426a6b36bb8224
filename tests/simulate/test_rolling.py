"""A rolling budget over the end of a quarter hour: what both sides of it spend is one limit."""

from typing import Final

import msgspec

from controlplane.bootstrap.simulation import memory_ledger
from controlplane.simulate.budget_outcome import Outcome
from controlplane.simulate.budget_schedule import Kind, Weather, draw
from controlplane.simulate.budget_stage import World
from controlplane.simulate.budget_world import simulate

HOLDS: Final = 40
RUNS: Final = 4


def _run(number: int, weather: Weather, *, rolling: str | None) -> Outcome:
    drawn = draw(f"rolling:{number}", weather=weather, holds=HOLDS)
    events = tuple(event for event in drawn.events if event.kind is not Kind.LIMIT)
    schedule = msgspec.structs.replace(drawn, rolling=rolling, rolls=True, events=events)
    return simulate(schedule, World(open_ledger=memory_ledger))


def test_a_rolling_limit_holds_over_the_edge_of_its_sub_windows() -> None:
    """A day's budget has its limit again at midnight; one of the last hour has not."""
    served = {"1h": 0, None: 0}
    for rolling in served:
        for weather in Weather:
            for number in range(RUNS):
                outcome = _run(number, weather, rolling=rolling)
                assert (0, True) == (outcome.overspend_nusd, outcome.is_conserved)
                served[rolling] += outcome.admitted
    assert 0 < served["1h"] < served[None]
