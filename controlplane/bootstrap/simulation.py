"""The budget simulator on the ledgers there are: in memory, and every fiftieth run on SQLite."""

import gc
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from controlplane.budgets.budget import Budget
from controlplane.budgets.ports import Ledger
from controlplane.core.errors import ConflictError
from controlplane.simulate.budget_outcome import Outcome
from controlplane.simulate.budget_report import Figures, add_up, run_schedules
from controlplane.simulate.budget_stage import World
from controlplane.store.memory.ledger import MemoryLedger
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.migrate import migrate

SQLITE_EVERY: Final = 50
"""One run in so many keeps its ledger in the database that a laptop has; it takes much longer."""
PART: Final = 20
"""Runs that a process takes at a time."""
COLLECT_EVERY: Final = 100_000


def simulate_budgets(seed: str, schedules: int, *, workers: int = 1) -> Figures:
    """Run schedules in so many processes and add them up; the seed alone decides the figures."""
    parts = [range(at, min(at + PART, schedules)) for at in range(0, schedules, PART)]
    run_part = partial(_run_part, seed)
    if workers == 1:
        return add_up(seed, [one for part in parts for one in run_part(part)])
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        # In the order of the parts, whoever has run them.
        return add_up(seed, [one for done in pool.map(run_part, parts) for one in done])


def _run_part(seed: str, numbers: range) -> list[Outcome]:
    with ExitStack() as stack:
        stack.enter_context(_rare_collections())
        places = _SqliteLedgers(Path(stack.enter_context(TemporaryDirectory())))

        def world(number: int) -> World:
            return World(open_ledger=places.open if number % SQLITE_EVERY == 0 else memory_ledger)

        return list(run_schedules(seed, numbers, world_of=world))


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let garbage wait: looked for as often as usual, it costs a sixth of the time."""
    usual = gc.get_threshold()
    gc.set_threshold(COLLECT_EVERY, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@contextmanager
def memory_ledger() -> Iterator[tuple[Ledger, Callable[[Budget], None]]]:
    """Open an empty ledger in memory."""
    ledger = MemoryLedger()
    yield ledger, ledger.put_budget


class _SqliteLedgers:
    """Empty ledgers on files; the schema is made once and copied."""

    def __init__(self, directory: Path) -> None:
        self._empty = directory / "empty.sqlite"
        self._file = directory / "ledger.sqlite"

    @contextmanager
    def open(self) -> Iterator[tuple[Ledger, Callable[[Budget], None]]]:
        """Open an empty one; it is gone afterwards."""
        if not self._empty.exists():
            engine = open_engine(f"sqlite:///{self._empty}")
            migrate(engine)
            engine.dispose()
        shutil.copyfile(self._empty, self._file)
        engine = open_engine(f"sqlite:///{self._file}")
        budgets = BudgetRepository(engine)

        def put(budget: Budget) -> None:
            try:
                budgets.create(budget)
            except ConflictError:
                budgets.update(budget)

        yield LedgerRepository(engine), put
        engine.dispose()
        for path in self._file.parent.glob(f"{self._file.name}*"):
            path.unlink()
