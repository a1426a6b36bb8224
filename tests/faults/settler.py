"""The settling half of the process that a test kills: ticks against a real ledger."""

import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import structlog

from controlplane.budgets.budget import Budget
from controlplane.core.calendar import Period
from controlplane.core.clock import Clock
from controlplane.core.errors import ConflictError, UnavailableError
from controlplane.pipelines.post_ledger import LedgerPosting
from controlplane.pipelines.rerate import post_adjustments
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.price_book import ModelPrices, PriceBook
from controlplane.pricing.rates import ALWAYS, PriceRow, Tier, rate
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.migrate import migrate
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

METADATA = "metadata.sqlite"
BUDGET = "everything"
TOKEN_NUSD = 1_000
"""What a token costs, input and output."""
TICK_SECONDS = 0.02
CLOSES_AFTER = timedelta(seconds=0.2)
"""How soon after a call its period closes, where periods close: many second reports are late."""
CLOSES_EVERY = timedelta(seconds=0.5)

FailPoint = Callable[[str], None]


def price_book() -> PriceBook:
    """One model, at a price that sums can be checked by."""
    each = rate(Decimal(TOKEN_NUSD), per=10**9)
    tier = Tier(-1, {"input_uncached": each, "output_text": each})
    row = PriceRow(price_id="test@1", validity=ALWAYS, tiers=(tier,))
    model = ModelPrices(provider="openai", model="gpt-4o", rows=(row,))
    return PriceBook("test@1", [], overrides=[model])


class Mortal:
    """A store whose settlement may die after each step."""

    def __init__(self, store: DuckDbSpanStore, fail_point: FailPoint) -> None:
        self._store = store
        self._fail_point = fail_point

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._store, name)

        def reach(*arguments: Any, **named: Any) -> Any:
            answer = step(*arguments, **named)
            if name != "apply" or answer:
                self._fail_point(f"settle_{name}")
            return answer

        return reach


class MortalLedger:
    """The ledger's posting, after which the process may die before the store knows of it."""

    def __init__(self, posting: LedgerPosting, fail_point: FailPoint) -> None:
        self._posting = posting
        self._fail_point = fail_point

    def counts_calls(self) -> bool:
        return self._posting.counts_calls()

    def post(self, changes: pa.Table, now: datetime) -> None:
        self._posting.post(changes, now)
        if changes.num_rows:
            self._fail_point("settle_post")

    def restate(self, changes: pa.Table, now: datetime) -> None:
        self._posting.restate(changes, now)
        self._fail_point("settle_restate")


class Settler:
    """Ticks in a thread until told to finish."""

    def __init__(
        self,
        store: DuckDbSpanStore,
        directory: Path,
        *,
        fail_point: FailPoint,
        clock: Clock,
        closes: bool = False,
    ) -> None:
        """Close periods as time goes by, if it is told to; the budget counts what is booked."""
        self._clock = clock
        self._closes = closes
        self._closed_at = datetime(2020, 1, 1, tzinfo=UTC)
        self._rerates = store.rerates
        self._engine = open_engine(f"sqlite:///{directory / METADATA}")
        migrate(self._engine)
        budget = Budget(
            id=BUDGET,
            name=BUDGET,
            owner="test",
            tenant="default",
            limit_nusd=10**18,
            period=Period.YEAR,
            counts_from=datetime(2020, 1, 1, tzinfo=UTC),
        )
        with contextlib.suppress(ConflictError):  # an earlier life made it
            BudgetRepository(self._engine).create(budget)
        posting = LedgerPosting(LedgerRepository(self._engine), unenforced_grace_seconds=0)
        self._ledger = MortalLedger(posting, fail_point)
        self._store: Any = Mortal(store, fail_point)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(TICK_SECONDS):
            try:
                now = self._clock.now()
                if self._closes and now - self._closed_at >= CLOSES_EVERY:
                    self._store.close_before(now - CLOSES_AFTER, zone="UTC", now=now)
                    self._closed_at = now
                self._tick(now)
            except UnavailableError as error:  # as a worker's rounds do: again at the next tick
                structlog.get_logger().warning("settle_failed", says=str(error))

    def _tick(self, now: datetime) -> int:
        outcome = settle_tick(self._store, now=now, ledger=self._ledger)
        restated = post_adjustments(self._rerates, self._ledger, now=now)
        return outcome.reports + outcome.rolled_up_buckets + outcome.posted_changes + restated

    def finish(self) -> None:
        """Settle, roll up and post what is left."""
        self._stopping.set()
        self._thread.join()
        now = datetime.now(UTC)
        for then in (now, now + timedelta(hours=6)):  # what is booked now is rolled up then
            while self._tick(then):
                pass
        self._engine.dispose()
