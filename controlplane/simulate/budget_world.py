"""One simulated run: the shipped agents, ledger and flows in a world that the seed decides."""

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from controlplane.core.errors import UnavailableError
from controlplane.simulate.budget_clients import Clients
from controlplane.simulate.budget_fate import Fate
from controlplane.simulate.budget_loop import VirtualLoop, run_virtually
from controlplane.simulate.budget_outcome import Outcome, outcome_of
from controlplane.simulate.budget_schedule import Schedule
from controlplane.simulate.budget_stage import Stage, World

SWEEP_SECONDS: Final = 5.0
POST_SECONDS: Final = 3.0
DRAIN_SECONDS: Final = 15.0


def simulate(schedule: Schedule, world: World) -> Outcome:
    """Run one schedule to its end, in virtual time."""
    outcomes: list[Outcome] = []
    with _state_dir() as state_dir, world.open_ledger() as (ledger, put_budget):

        async def run(loop: VirtualLoop) -> None:
            stage = Stage(
                schedule,
                world,
                loop=loop,
                state_dir=state_dir,
                ledger=ledger,
                put_budget=put_budget,
            )
            clients = Clients(stage)
            await _play(stage, clients)
            outcomes.append(outcome_of(stage, clients))

        run_virtually(run)
    return outcomes[0]


async def _play(stage: Stage, clients: Clients) -> None:
    """Let the traffic run, then let everything come to rest."""
    background = [
        asyncio.ensure_future(task)
        for task in (
            _every(SWEEP_SECONDS, stage.server.sweep, stage),
            _every(POST_SECONDS, stage.post, stage),
            Fate(stage).run(),
            *(clients.arrivals(proxy, number) for number, proxy in enumerate(stage.proxies)),
        )
    ]
    await asyncio.sleep(stage.schedule.duration_seconds)
    stage.is_over = True
    await asyncio.sleep(DRAIN_SECONDS)
    stage.post()
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    for task in background:
        if not task.cancelled() and (wrong := task.exception()):
            raise wrong


async def _every(seconds: float, do: Callable[[], None], stage: Stage) -> None:
    while True:
        await asyncio.sleep(seconds)
        if stage.loop.time() >= stage.server.down_until:
            with contextlib.suppress(UnavailableError):  # ended in the middle of it
                do()


@contextlib.contextmanager
def _state_dir() -> Iterator[Path]:
    """Journals are real files; in memory where the machine has such a place."""
    memory = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it
    path = Path(mkdtemp(prefix="simulate-", dir=memory if memory.is_dir() else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)
