"""Worlds much harsher than those of the proof: everything fails at once, in every unit."""

import random
from typing import Final

import msgspec

from controlplane.bootstrap.simulation import memory_ledger
from controlplane.policy.units import BudgetUnit
from controlplane.simulate.budget_schedule import Event, Kind, Schedule, Weather, draw
from controlplane.simulate.budget_stage import World
from controlplane.simulate.budget_world import simulate

KINDS: Final = tuple(kind for kind in Kind if kind is not Kind.DEARER)


def _event(chance: random.Random, schedule: Schedule, *, rolling: bool) -> Event:
    kinds = tuple(kind for kind in KINDS if not (rolling and kind is Kind.LIMIT))
    kind = chance.choice(kinds)
    return Event(
        at_seconds=chance.uniform(0.02, 0.98) * schedule.duration_seconds,
        kind=kind,
        proxy=chance.randrange(schedule.proxies),
        for_seconds=chance.choice((0.0, 1.0, 8.0)),
        keeps_disk=chance.random() < 0.7,
        amount=chance.choice((0.3, 0.6, 1.8) if kind is Kind.LIMIT else (-3_600.0, 3_600.0)),
    )


def _harsh(number: int) -> Schedule:
    """Short leases, a sixth of messages lost, a clock that gains a hundredth, many failures."""
    chance = random.Random(f"harsh:{number}")
    rolling = "1h" if number % 4 == 0 else None
    drawn = draw(f"harsh:{number}", weather=Weather.STORMY, holds=chance.choice((3, 12, 40)))
    events = [_event(chance, drawn, rolling=bool(rolling)) for _ in range(chance.randint(4, 14))]
    net = msgspec.structs.replace(drawn.net, loss_ratio=0.15, duplicate_ratio=0.2, late_ratio=0.08)
    return msgspec.structs.replace(
        drawn,
        unit=tuple(BudgetUnit)[number % 3],
        rolling=rolling,
        rolls=chance.random() < 0.5,
        escrow_holds=0 if rolling else chance.choice((0, 2)),
        lease_ttl_seconds=chance.choice((1.0, 3.0, 15.0)),
        skew_seconds=chance.choice((0.0, 5.0, 7_200.0)),
        drift_ratio=chance.choice((0.0, 0.01)),
        net=net,
        events=tuple(sorted(events, key=lambda one: one.at_seconds)),
    )


def test_nothing_is_over_when_everything_fails_at_once(*, full_size: bool) -> None:
    admitted = 0
    for number in range(400 if full_size else 24):
        outcome = simulate(_harsh(number), World(open_ledger=memory_ledger))
        assert (0, True) == (outcome.overspend_nusd, outcome.is_conserved), number
        admitted += outcome.admitted
    assert admitted > 200
