"""What happens in one simulated run, drawn from a seed: who asks for what, and what goes wrong."""

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from controlplane.policy.units import BudgetUnit

INPUT_NUSD: Final = 2_500_000_000
OUTPUT_NUSD: Final = 10_000_000_000
"""Rates of the simulated model, nano-USD per million tokens: 2.5 and 10 USD."""
DEARER_RATIO: Final = 1.5
STEADY: Final = 1_500
"""Holds of a budget that stays large to the end of the run."""
MAX_INPUT_TOKENS: Final = 1_000
MAX_OUTPUT_TOKENS: Final = 1_000


class Weather(StrEnum):
    """How hard the world makes it."""

    CALM = "calm"
    """Delays only."""
    LOSSY = "lossy"
    """Messages are lost, sent twice, late and out of order; clocks are wrong and are set."""
    STORMY = "stormy"
    """And agents, the server and the network between them fail."""


class Kind(StrEnum):
    """What can happen at a moment."""

    CRASH = "crash"
    """An agent's process ends; its calls go on upstream. It comes back with its disk, or without."""
    STOP = "stop"
    """An agent is told to end: it gives its leases back."""
    FORK = "fork"
    """An agent's process forks; the child serves as well."""
    PARTITION = "partition"
    """An agent and the server do not reach each other for a while."""
    JUMP = "jump"
    """An agent's wall clock is set."""
    SERVER_DOWN = "server_down"
    """The server ends, in the middle of a transaction or between commit and answer."""
    LIMIT = "limit"
    """Somebody changes the budget."""
    DEARER = "dearer"
    """The announced price takes effect."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happens."""

    at_seconds: float
    kind: Kind
    proxy: int = 0
    for_seconds: float = 0.0
    keeps_disk: bool = True
    amount: float = 0.0
    """Of LIMIT: the new limit over the old; of JUMP: seconds."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What clients ask for, of each proxy."""

    calls_per_second: float
    concurrency: int
    fixed_cost: bool
    """Every call costs its ceiling; else costs have a heavy tail."""
    varied: bool
    """Calls have different ceilings; else all have the largest."""
    at_ceiling_ratio: float
    unknown_ratio: float
    """Calls whose usage the agent never learns (a client that hangs up)."""
    refused_ratio: float
    """Calls that the upstream refuses: free."""
    median_seconds: float
    turns_at: float | None
    """The adversary: from this part of the limit on, every call costs its ceiling."""
    bypass_ratio: float
    """Calls that never ask, as a part of those that do."""


class Net(msgspec.Struct, frozen=True, kw_only=True):
    """What the network does to a message."""

    loss_ratio: float
    duplicate_ratio: float
    median_seconds: float
    late_ratio: float
    """Messages that take up to LATE_SECONDS: they arrive after the sender gave up."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of one run; equal seeds give equal schedules."""

    seed: str
    weather: Weather
    holds: int
    """The limit, in ceilings of the largest call."""
    is_steady: bool
    """Ends long before the limit: what a large budget's ordinary day costs in conversation."""
    parent_ratio: float | None
    """A second budget above it: its limit over the first one's."""
    proxies: int
    idle_proxies: int
    """Proxies that call rarely and hold a lease all the same."""
    rolls: bool
    """The window ends in the middle of it."""
    traffic: Traffic
    net: Net
    duration_seconds: float
    lease_ttl_seconds: float
    skew_seconds: float
    drift_ratio: float
    events: tuple[Event, ...]
    escrow_holds: int = 0
    """What each proxy is leased for times without a server, in ceilings of the largest call."""
    rolling: str | None = None
    """The length of a rolling window, longer than the run; None: windows are days."""
    unit: BudgetUnit = BudgetUnit.USD
    """Of the budgets; "nusd" is then an amount in it, here as in the ledger (ADR 045)."""


def draw(seed: str, *, weather: Weather | None = None, holds: int | None = None) -> Schedule:
    """Draw a schedule; `weather` and `holds` may be asked for."""
    chance = random.Random(seed)  # noqa: S311 - a simulation must be repeatable
    size = holds or chance.choices((chance.randint(1, 20), 100, 1_000, STEADY), (37, 54, 3, 6))[0]
    sky = weather or chance.choice(tuple(Weather))
    many = chance.random() < 0.05 and size == 100  # noqa: PLR2004 - a hundred holds, thirty proxies
    proxies = 32 if many else chance.choice((1, 2, 2, 3, 4, 8))
    traffic = _traffic(chance, proxies)
    # Long enough to ask for half as much again as there is, at the mean cost of a call.
    mean = 1.0 if traffic.fixed_cost else 0.3
    calls = (0.25 if size == STEADY else 1.6) * size / mean
    per_second = max(4.0, calls / chance.uniform(20, 60))
    rate = per_second / proxies
    traffic = msgspec.structs.replace(
        traffic,
        calls_per_second=rate,
        concurrency=max(2, int(4 * rate * traffic.median_seconds)),
    )
    duration = max(10.0, calls / per_second)
    return Schedule(
        seed=seed,
        weather=sky,
        holds=size,
        is_steady=size == STEADY,
        parent_ratio=chance.choice((None, None, 0.6, 1.5)),
        proxies=proxies,
        idle_proxies=chance.choice((0, 0, 1, 2)),
        rolls=chance.random() < 0.15,  # noqa: PLR2004 - a seventh of all
        traffic=traffic,
        net=_net(chance, sky),
        duration_seconds=duration,
        lease_ttl_seconds=60.0 if size == STEADY else chance.choice((5.0, 15.0, 60.0)),
        skew_seconds=0.0 if sky is Weather.CALM else chance.choice((0.0, 0.2, 5.0, 7_200.0)),
        drift_ratio=chance.choice((0.0, 1e-5, 2e-4)),
        events=tuple(_events(chance, sky, proxies=proxies, duration=duration)),
        unit=_unit(seed),
    )


def _unit(seed: str) -> BudgetUnit:
    """Draw the unit by itself: a schedule is the same in everything else in whatever unit."""
    chance = random.Random(f"{seed}:unit")  # noqa: S311 - a simulation must be repeatable
    units = (BudgetUnit.USD, BudgetUnit.TOKENS, BudgetUnit.REQUESTS)
    return chance.choices(units, (8, 1, 1))[0]


def _traffic(chance: random.Random, proxies: int) -> Traffic:
    return Traffic(
        calls_per_second=1.0,
        concurrency=proxies,
        fixed_cost=chance.random() < 0.15,  # noqa: PLR2004 - a seventh of all
        varied=chance.random() < 0.3,  # noqa: PLR2004 - a third of all
        at_ceiling_ratio=chance.uniform(0.05, 0.3),
        unknown_ratio=chance.choice((0.0, 0.0, 0.02)),
        refused_ratio=chance.choice((0.0, 0.03)),
        median_seconds=chance.choice((0.1, 0.5, 2.0)),
        turns_at=chance.choice((None, chance.random())),
        bypass_ratio=chance.choice((0.0, 0.0, 0.0, 0.1)),
    )


def _net(chance: random.Random, weather: Weather) -> Net:
    median = chance.choice((0.001, 0.005, 0.02))
    if weather is Weather.CALM:
        return Net(loss_ratio=0.0, duplicate_ratio=0.0, median_seconds=median, late_ratio=0.0)
    return Net(
        loss_ratio=chance.uniform(0.0, 0.1),
        duplicate_ratio=chance.uniform(0.0, 0.1),
        median_seconds=median,
        late_ratio=chance.uniform(0.0, 0.02),
    )


def _events(
    chance: random.Random, weather: Weather, *, proxies: int, duration: float
) -> Sequence[Event]:
    """Draw what happens besides traffic, in the order of time."""
    drawn: list[Event] = []

    def add(kind: Kind, *, times: int, amount: float = 0.0) -> None:
        drawn.extend(
            Event(
                at_seconds=chance.uniform(0.05, 0.95) * duration,
                kind=kind,
                proxy=chance.randrange(proxies),
                for_seconds=chance.choice((0.0, 1.0, 8.0)),
                keeps_disk=chance.random() < 0.8,  # noqa: PLR2004 - most disks outlive a process
                amount=amount or chance.choice((-3_600.0, -2.0, 2.0, 3_600.0)),
            )
            for _ in range(times)
        )

    if chance.random() < 0.3:  # noqa: PLR2004 - a third of all
        add(Kind.LIMIT, times=1, amount=chance.choice((0.5, 0.8, 1.2)))
    if chance.random() < 0.25:  # noqa: PLR2004 - a quarter of all
        add(Kind.DEARER, times=1)
    if weather is not Weather.CALM:
        add(Kind.JUMP, times=chance.randint(0, 2))
        add(Kind.STOP, times=chance.randint(0, 1))
        add(Kind.FORK, times=chance.randint(0, 1))
    if weather is Weather.STORMY:
        add(Kind.CRASH, times=chance.randint(0, 3))
        add(Kind.PARTITION, times=chance.randint(0, 2))
        add(Kind.SERVER_DOWN, times=chance.randint(0, 2))
    return sorted(drawn, key=lambda event: event.at_seconds)
