"""What a simulated run has on stage: budgets, server, proxies, and the truth beside them."""

import contextlib
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from controlplane.budgets.book import LeaseTerms
from controlplane.budgets.budget import Budget
from controlplane.budgets.ports import Ledger
from controlplane.budgets.windows import WindowKind
from controlplane.core.calendar import Period, Window
from controlplane.core.ids import SequentialIds
from controlplane.pipelines.sync import sync
from controlplane.policy.ceiling import call_ceiling_nusd
from controlplane.policy.document import RatePerMillion
from controlplane.simulate.budget_loop import LocalClock, VirtualLoop
from controlplane.simulate.budget_network import Network
from controlplane.simulate.budget_proxy import Names, Parts, Process, Proxy
from controlplane.simulate.budget_schedule import (
    DEARER_RATIO,
    INPUT_NUSD,
    MAX_INPUT_TOKENS,
    MAX_OUTPUT_TOKENS,
    OUTPUT_NUSD,
    Kind,
    Schedule,
)
from controlplane.simulate.budget_server import TENANT, Around, Server, Sync
from controlplane.simulate.budget_traces import Traces
from controlplane.simulate.budget_truth import Truth, WindowId, amount_of, bill_nusd

START: Final = datetime(2026, 11, 25, 10, tzinfo=UTC)
CHILD: Final = "b"
PARENT: Final = "a"
LARGE_HOLDS: Final = 1_000

OpenLedger = Callable[
    [], contextlib.AbstractContextManager[tuple[Ledger, Callable[[Budget], None]]]
]
"""Opens an empty ledger, and says how a budget is kept in it."""


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is made of; a test puts something faulty in a place."""

    open_ledger: OpenLedger
    run_sync: Sync = sync
    parts: Parts = Parts()


class Stage:
    """The things of one run, and what they are worth at this moment."""

    def __init__(
        self,
        schedule: Schedule,
        world: World,
        *,
        loop: VirtualLoop,
        state_dir: Path,
        ledger: Ledger,
        put_budget: Callable[[Budget], None],
    ) -> None:
        self.schedule = schedule
        self.loop = loop
        self.is_over = False
        """Nobody calls any more."""
        self._world = world
        self._state_dir = state_dir
        self._chance = random.Random(f"{schedule.seed}:run")  # noqa: S311 - repeatable
        self._serial = 0
        self._window = Window(START, START)
        self._start = START
        if schedule.rolls:
            self._start += timedelta(hours=14, seconds=-schedule.duration_seconds / 2)
        self._card = self._rate_at(dearer=any(e.kind is Kind.DEARER for e in schedule.events))
        self._dearer_at = min(
            (e.at_seconds for e in schedule.events if e.kind is Kind.DEARER), default=None
        )
        ceiling = self.ceiling(MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS)
        self._escrow_nusd = schedule.escrow_holds * ceiling
        limits = {CHILD: schedule.holds * ceiling}
        if schedule.parent_ratio:
            limits[PARENT] = int(limits[CHILD] * schedule.parent_ratio)
        self.budgets = {name: self._budget(name, limit) for name, limit in limits.items()}
        self.traces = Traces()
        self.server = Server(
            ledger,
            Around(
                put_budget=put_budget,
                price=self.price,
                card=self._card,
                now=self.now,
                run_sync=self._world.run_sync,
                report=self.traces.reported,
                is_large=self.is_large,
                terms=LeaseTerms(ttl_seconds=schedule.lease_ttl_seconds, skew_seconds=1.0),
            ),
        )
        self.server.change(list(self.budgets.values()))
        self.truth = Truth(limits)
        self.truth.enter(self.windows())
        self._ids = SequentialIds()
        self._names = Names()
        self.proxies = [
            self._proxy(number) for number in range(schedule.proxies + schedule.idle_proxies)
        ]

    def now(self) -> datetime:
        """The true time."""
        return self._start + timedelta(seconds=self.loop.time())

    def _budget(self, name: str, limit_nusd: int) -> Budget:
        return Budget(
            id=name,
            name=name,
            owner="o",
            tenant=TENANT,
            limit_nusd=limit_nusd,
            unit=self.schedule.unit,
            escrow_nusd=min(limit_nusd, self._escrow_nusd),
            window_kind=WindowKind.ROLLING if self.schedule.rolling else WindowKind.CALENDAR,
            period=None if self.schedule.rolling else Period.DAY,
            every=self.schedule.rolling,
            counts_from=START - timedelta(days=1),
        )

    def windows(self) -> tuple[WindowId, ...]:
        """The window of each budget that is open now."""
        if self.schedule.rolling:  # longer than the run: all of it counts together
            return tuple((name, START) for name in self.budgets)
        if self.now() >= self._window.end:
            self._window = self.budgets[CHILD].window(self.now())
        return tuple((name, self._window.start) for name in self.budgets)

    @staticmethod
    def _rate_at(*, dearer: bool) -> RatePerMillion:
        ratio = DEARER_RATIO if dearer else 1
        return RatePerMillion(
            input_nusd=int(INPUT_NUSD * ratio), output_nusd=int(OUTPUT_NUSD * ratio)
        )

    def price(self, at: datetime) -> RatePerMillion:
        """What the upstream bills at a time."""
        changed = self._dearer_at
        is_dearer = changed is not None and at >= self._start + timedelta(seconds=changed)
        return self._rate_at(dearer=is_dearer)

    def ceiling(self, input_tokens: int, output_tokens: int) -> int:
        """The most that a call of this size may cost, in the unit of the budgets."""
        cost = call_ceiling_nusd(self._card, input_tokens=input_tokens, output_tokens=output_tokens)
        return amount_of(self.schedule.unit, cost, tokens=input_tokens + output_tokens)

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """What a call of this size costs now, in the unit of the budgets."""
        rate = self.price(self.now())
        cost = bill_nusd(rate, input_tokens=input_tokens, output_tokens=output_tokens)
        return amount_of(self.schedule.unit, cost, tokens=input_tokens + output_tokens)

    def _proxy(self, number: int) -> Proxy:
        chance, schedule = self._chance, self.schedule
        skew = schedule.skew_seconds * chance.choice((-1, 1)) if number % 2 else 0.0
        return Proxy(
            self._state_dir / f"proxy{number}",
            self.network(number),
            Process(
                clock=LocalClock(
                    self.loop,
                    self._start,
                    offset_seconds=skew,
                    drift_ratio=schedule.drift_ratio * chance.choice((-1, 1)),
                ),
                ids=self._ids,
                names=self._names,
                seed=f"{schedule.seed}:proxy{number}",
                parts=self._world.parts,
            ),
        )

    def network(self, number: int) -> Network:
        """Lay another line from a proxy to the server."""
        seed = f"{self.schedule.seed}:net{number}:{self.next_number() - 1}"
        return Network(
            self.server,
            self.schedule.net,
            random.Random(seed),  # noqa: S311 - repeatable
            clock=self.loop.time,
        )

    def next_number(self) -> int:
        """Count what is numbered in a run: lines and calls."""
        self._serial += 1
        return self._serial

    def current(self) -> tuple[WindowId, ...]:
        """The open windows, which are entered with this."""
        windows = self.windows()
        self.truth.enter(windows)
        return windows

    def post(self) -> None:
        """Let the server take the traces that have come."""
        changes = self.traces.settled()
        if changes is not None:
            self.server.post(changes)

    def is_cut_off(self, proxy: Proxy) -> bool:
        """Whether a proxy's agent and the server do not reach each other now."""
        return self.loop.time() < max(proxy.network.cut_until, self.server.down_until)

    def is_large(self) -> bool:
        """Whether every budget still holds so many calls that a lease call should be rare."""
        return all(
            self.truth.limits[window[0]] - self.truth.spent_nusd.get(window, 0)
            >= LARGE_HOLDS * self.ceiling(MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS)
            for window in self.windows()
        )

    def change_limit(self, ratio: float) -> None:
        """Multiply the limit of the first budget."""
        before = self.budgets[CHILD]
        amounts = self.server.amounts(CHILD)
        after = msgspec.structs.replace(before, limit_nusd=int(before.limit_nusd * ratio))
        self.budgets[CHILD] = after
        self.current()
        promised = amounts.enforced_nusd + amounts.unproven_nusd + amounts.leased_nusd
        self.truth.change_limit(CHILD, after.limit_nusd, promised_nusd=promised)
        self.server.change([after])
