"""A ledger that was put back from a copy is told of every correction it lost, once (L6, L8)."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from sqlalchemy import Engine

from controlplane.budgets.budget import Budget
from controlplane.core.calendar import Window
from controlplane.pipelines.post_ledger import LedgerPosting
from controlplane.pipelines.rerate import post_adjustments
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.rerate import RerateOrder
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.migrate import migrate
from controlplane.store.metadata.timeline import TimelineRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

CLOSED = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 9, 10, tzinfo=UTC)
UNITS = ("usd", "tokens", "requests")
IDS = {"response_id": "chatcmpl-0123456789abcdef"}
PROXY = {**IDS, "layer": "proxy", "key_role": "proxy", "span_id": 11}
Amounts = dict[str, tuple[int, int]]
"""Of each unit and team, what October and November came to."""


def _report(number: int, cost: int, **said: Any) -> dict[str, Any]:
    return {
        "trace_lo": number, "span_id": number, "content_hash": number * 1_000 + cost,
        "start_time": CLOSED - timedelta(hours=5), "report_kind": "call", "layer": "client",
        "key_role": "unknown", "usage_state": "exact", "input_tokens": cost * 10,
        "output_tokens": 1, "cost_nusd": cost, "cost_state": "priced", "tenant": "a", "team": "x",
        "provider": "p", "billing_model": "m", **said,
    }  # fmt: skip


class World:
    """A span store, a ledger in a file, and copies of that file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, DuckDbSpanStore(None)
        self.engine = self.open()
        migrate(self.engine)
        self.budgets = [
            BudgetRepository(self.engine).create(
                msgspec.convert(
                    {"id": f"{unit}-{team}", "name": team, "owner": "ada", "tenant": "a",
                     "unit": unit, "limit_nusd": 10**9, "period": "month", "match": {"team": [team]},
                     "counts_from": datetime(2026, 1, 1, tzinfo=UTC)}, Budget)
            )
            for unit in UNITS for team in ("x", "y")
        ]  # fmt: skip

    def open(self) -> Engine:
        return open_engine(f"sqlite:///{self.folder / 'metadata.sqlite'}")

    def tick(self) -> None:
        ledger = LedgerPosting(LedgerRepository(self.engine), unenforced_grace_seconds=1)
        settle_tick(self.store, now=NOW, ledger=ledger)
        post_adjustments(self.store.rerates, ledger, now=NOW)

    def re_rate(self, window: Window, nusd: int) -> None:
        def dearer(rows: pa.Table) -> pa.Table:
            at = rows.schema.get_field_index("cost_nusd")
            return rows.set_column(at, "cost_nusd", pa.array([nusd] * rows.num_rows, pa.int64()))

        order = RerateOrder(
            run_id=f"r{nusd}", window=window, price_version="v", closed_before=CLOSED
        )
        for day in self.store.rerates.days(window):
            self.store.rerates.apply(order, day, dearer, now=NOW)
        self.tick()

    def copy(self, name: str) -> None:
        self.engine.dispose()
        shutil.copy(self.folder / "metadata.sqlite", self.folder / name)
        self.engine = self.open()

    def restore(self, name: str) -> None:
        self.engine.dispose()
        for end in ("", "-wal", "-shm"):
            (self.folder / f"metadata.sqlite{end}").unlink(missing_ok=True)
        shutil.copy(self.folder / name, self.folder / "metadata.sqlite")
        self.engine = self.open()
        self.store.repost(TimelineRepository(self.engine).posted())

    def amounts(self) -> Amounts:
        repository = BudgetRepository(self.engine)

        def at(moment: datetime) -> dict[str, int]:
            found = repository.balances(self.budgets, at=moment)
            return {name: a.unenforced_nusd + a.restated_nusd for name, a in found.items()}

        october, november = at(CLOSED - timedelta(hours=1)), at(NOW)
        return {budget.id: (october[budget.id], november[budget.id]) for budget in self.budgets}


def test_a_restored_ledger_has_every_correction_once(
    span_rows: Callable[..., pa.Table], tmp_path: Path
) -> None:
    """Late calls, an owner who changed, re-rates of closed and open calls; copies of every age."""
    world = World(tmp_path)
    world.copy("empty")
    today = {"start_time": NOW - timedelta(hours=2)}
    world.store.write(span_rows(_report(1, 100, **IDS), _report(5, 50, **today)), batch_id="b1")
    world.store.close_before(CLOSED, zone="UTC", now=NOW)
    world.tick()
    world.copy("closed")
    late = [_report(2, 40), _report(1, 130, team="y", **PROXY), _report(6, 60, **today)]
    world.store.write(span_rows(*late), batch_id="b2")
    world.tick()
    world.copy("late")
    world.re_rate(Window(NOW - timedelta(days=1), NOW), 70)
    world.copy("re-rated")
    world.re_rate(Window(CLOSED - timedelta(days=1), CLOSED), 90)
    told = world.amounts()
    # Of x: 100 were closed, given back and 40 came late, now 90; two calls of today, 70 each.
    # Of y: what was 130 is 90. Tokens and requests do not change with prices.
    assert told == {
        "usd-x": (100, -100 + 90 + 70 + 70), "usd-y": (0, 90),
        "tokens-x": (1_001, -1_001 + 401 + 501 + 601), "tokens-y": (0, 1_301),
        "requests-x": (1, -1 + 1 + 1 + 1), "requests-y": (0, 1),
    }  # fmt: skip
    for name in ("re-rated", "empty", "late", "closed", "late"):
        world.restore(name)
        for _ in range(2):
            world.tick()
            assert told == world.amounts(), name
    world.store.close()
    world.engine.dispose()
