"""One simulated run: the shipped agents, ledger and flows in a world that the seed decides."""

import asyncio
import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import msgspec

from controlplane.agent.admit import USEFUL_OUTPUT_TOKENS
from controlplane.agent.ticket import RefusedError, Ticket
from controlplane.budgets.book import LeaseTerms
from controlplane.budgets.budget import Budget
from controlplane.budgets.ledger import Amounts
from controlplane.budgets.ports import Ledger
from controlplane.core.calendar import Period, Window
from controlplane.core.errors import UnavailableError
from controlplane.core.ids import SequentialIds
from controlplane.pipelines.sync import sync
from controlplane.policy.ceiling import call_ceiling_nusd
from controlplane.policy.document import RatePerMillion
from controlplane.simulate.budget_loop import LocalClock, VirtualLoop, run_virtually
from controlplane.simulate.budget_proxy import Names, Parts, Process, Proxy
from controlplane.simulate.budget_schedule import (
    DEARER_RATIO,
    INPUT_NUSD,
    MAX_INPUT_TOKENS,
    MAX_OUTPUT_TOKENS,
    OUTPUT_NUSD,
    Event,
    Kind,
    Schedule,
)
from controlplane.simulate.budget_server import TENANT, Around, Network, Server, Sync
from controlplane.simulate.budget_traces import Traces
from controlplane.simulate.budget_truth import Call, Draw, Truth, WindowId, bill_nusd, heavy_tail

START: Final = datetime(2026, 11, 25, 10, tzinfo=UTC)
CHILD: Final = "b"
PARENT: Final = "a"
SWEEP_SECONDS: Final = 5.0
LARGE_HOLDS: Final = 1_000
POST_SECONDS: Final = 3.0
DRAIN_SECONDS: Final = 15.0

OpenLedger = Callable[
    [], contextlib.AbstractContextManager[tuple[Ledger, Callable[[Budget], None]]]
]
"""Opens an empty ledger, and says how a budget is kept in it."""


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is made of; a test puts something faulty in a place."""

    open_ledger: OpenLedger
    run_sync: Sync = sync
    parts: Parts = Parts()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one run came to."""

    seed: str
    weather: str
    holds: int
    proxies: int
    asked: int
    admitted: int
    denied: int
    falsely_denied: int
    unserved: int
    overspend_nusd: int
    debt_nusd: int
    """By the ledger, bypassing calls left out."""
    utilization_ratio: float | None
    """Of the tightest budget; null when fewer calls were wanted than it could pay for."""
    stranded_ratio: float
    """Part of the limit that is charged or leased and was never spent."""
    syncs: int
    lease_calls: int
    lease_calls_of_large: int
    asked_of_large: int
    at_ceiling: int
    is_conserved: bool


def simulate(schedule: Schedule, world: World) -> Outcome:
    """Run one schedule to its end, in virtual time."""
    with _state_dir() as state_dir, world.open_ledger() as (ledger, put_budget):
        run = Run(schedule, world, state_dir)
        run_virtually(partial(run.main, ledger=ledger, put_budget=put_budget))
        return run.outcome()


@contextlib.contextmanager
def _state_dir() -> Iterator[Path]:
    """Journals are real files; in memory where the machine has such a place."""
    memory = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it
    path = Path(mkdtemp(prefix="simulate-", dir=memory if memory.is_dir() else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)


class Run:
    """The moving parts of one run."""

    def __init__(self, schedule: Schedule, world: World, state_dir: Path) -> None:
        self._schedule = schedule
        self._world = world
        self._state_dir = state_dir
        self._chance = random.Random(f"{schedule.seed}:run")  # noqa: S311 - repeatable
        self._serial = 0
        self._at_ceiling = self._asked_of_large = 0
        self._is_dearer = False
        self._is_over = False
        self._window = Window(START, START)
        self._imagined: set[asyncio.TimerHandle] = set()

    async def _begin(
        self, loop: VirtualLoop, ledger: Ledger, put_budget: Callable[[Budget], None]
    ) -> None:
        schedule = self._schedule
        self._loop = loop
        self._start = START
        if schedule.rolls:
            self._start += timedelta(hours=14, seconds=-schedule.duration_seconds / 2)
        self._card = self._rate_at(dearer=any(e.kind is Kind.DEARER for e in schedule.events))
        self._dearer_at = min(
            (e.at_seconds for e in schedule.events if e.kind is Kind.DEARER), default=None
        )
        ceiling = self._ceiling(MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS)
        limits = {CHILD: schedule.holds * ceiling}
        if schedule.parent_ratio:
            limits[PARENT] = int(limits[CHILD] * schedule.parent_ratio)
        self._budgets = {name: self._budget(name, limit) for name, limit in limits.items()}
        self._traces = Traces()
        self.server = Server(
            ledger,
            Around(
                put_budget=put_budget,
                price=self._price,
                card=self._card,
                now=self._now,
                run_sync=self._world.run_sync,
                report=self._traces.reported,
                is_large=self._is_large,
                terms=LeaseTerms(ttl_seconds=schedule.lease_ttl_seconds, skew_seconds=1.0),
            ),
        )
        self.server.change(list(self._budgets.values()))
        self.truth = Truth(limits)
        self.truth.enter(self._windows())
        self._ids = SequentialIds()
        self._names = Names()
        self.proxies = [
            self._proxy(number) for number in range(schedule.proxies + schedule.idle_proxies)
        ]

    def _now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time())

    def _budget(self, name: str, limit_nusd: int) -> Budget:
        return Budget(
            id=name,
            name=name,
            owner="o",
            tenant=TENANT,
            limit_nusd=limit_nusd,
            period=Period.DAY,
            counts_from=START - timedelta(days=1),
        )

    def _windows(self) -> tuple[WindowId, ...]:
        if self._now() >= self._window.end:
            self._window = self._budgets[CHILD].window(self._now())
        return tuple((name, self._window.start) for name in self._budgets)

    @staticmethod
    def _rate_at(*, dearer: bool) -> RatePerMillion:
        ratio = DEARER_RATIO if dearer else 1
        return RatePerMillion(
            input_nusd=int(INPUT_NUSD * ratio), output_nusd=int(OUTPUT_NUSD * ratio)
        )

    def _price(self, at: datetime) -> RatePerMillion:
        changed = self._dearer_at
        is_dearer = changed is not None and at >= self._start + timedelta(seconds=changed)
        return self._rate_at(dearer=is_dearer)

    def _ceiling(self, input_tokens: int, output_tokens: int) -> int:
        return call_ceiling_nusd(self._card, input_tokens=input_tokens, output_tokens=output_tokens)

    def _proxy(self, number: int) -> Proxy:
        chance, schedule = self._chance, self._schedule
        skew = schedule.skew_seconds * chance.choice((-1, 1)) if number % 2 else 0.0
        return Proxy(
            self._state_dir / f"proxy{number}",
            self._network(number),
            Process(
                clock=LocalClock(
                    self._loop,
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

    def _network(self, number: int) -> Network:
        seed = f"{self._schedule.seed}:net{number}:{self._serial}"
        self._serial += 1
        return Network(
            self.server,
            self._schedule.net,
            random.Random(seed),  # noqa: S311 - repeatable
            clock=self._loop.time,
        )

    async def main(
        self, loop: VirtualLoop, *, ledger: Ledger, put_budget: Callable[[Budget], None]
    ) -> None:
        """Let the traffic run, then let everything come to rest."""
        await self._begin(loop, ledger, put_budget)
        background = [
            asyncio.ensure_future(task)
            for task in (
                self._every(SWEEP_SECONDS, self.server.sweep),
                self._every(POST_SECONDS, self._post),
                self._events(),
                *(self._arrivals(proxy, number) for number, proxy in enumerate(self.proxies)),
            )
        ]
        await asyncio.sleep(self._schedule.duration_seconds)
        self._is_over = True
        await asyncio.sleep(DRAIN_SECONDS)
        self._post()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        for task in background:
            if not task.cancelled() and (wrong := task.exception()):
                raise wrong

    def _post(self) -> None:
        changes = self._traces.settled()
        if changes is not None:
            self.server.post(changes)

    def _is_large(self) -> bool:
        """Whether every budget still holds so many calls that a lease call should be rare."""
        return all(
            self.truth.limits[window[0]] - self.truth.spent_nusd.get(window, 0)
            >= LARGE_HOLDS * self._ceiling(MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS)
            for window in self._windows()
        )

    async def _every(self, seconds: float, do: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            if self._loop.time() >= self.server.down_until:
                with contextlib.suppress(UnavailableError):  # ended in the middle of it
                    do()

    async def _arrivals(self, proxy: Proxy, number: int) -> None:
        """Start calls as clients do, up to the proxy's concurrency."""
        schedule, chance = self._schedule, random.Random(f"{self._schedule.seed}:in{number}")  # noqa: S311 - repeatable
        rate = schedule.traffic.calls_per_second
        if number >= schedule.proxies:
            rate = min(0.2, rate)
        while True:
            await asyncio.sleep(chance.expovariate(rate))
            if self._is_over or number >= len(self.proxies):
                return
            proxy = self.proxies[number]
            draw = self._draw(chance)
            if chance.random() < schedule.traffic.bypass_ratio:
                cost = self._cost(draw, draw.output_tokens)
                self.truth.bypass(self._current(), cost)
                self._traces.bypassed(draw.number, cost_nusd=cost, at=self._now())
            elif proxy.is_up and len(proxy.calls) < schedule.traffic.concurrency:
                task = asyncio.ensure_future(self._call(proxy, draw))
                proxy.calls[draw.number] = task
                task.add_done_callback(lambda _, p=proxy, n=draw.number: p.calls.pop(n, None))  # type: ignore[misc]  # bound now

    def _current(self) -> tuple[WindowId, ...]:
        windows = self._windows()
        self.truth.enter(windows)
        return windows

    def _draw(self, chance: random.Random) -> Draw:
        traffic = self._schedule.traffic
        self._serial += 1
        bound, cap = MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS
        if traffic.varied:
            bound, cap = chance.randint(50, bound), chance.randint(50, cap)
        used_input, output = int(bound * chance.uniform(0.2, 1.0)), heavy_tail(chance, cap)
        at_ceiling = traffic.fixed_cost or chance.random() < traffic.at_ceiling_ratio
        if at_ceiling or self._adversary_has_turned():
            used_input, output = bound, cap
            self._at_ceiling += 1
        return Draw(
            number=self._serial,
            input_bound=bound,
            output_bound=cap,
            input_tokens=used_input,
            output_tokens=output,
            seconds=traffic.median_seconds * chance.lognormvariate(0.0, 0.6),
            is_unknown=chance.random() < traffic.unknown_ratio,
            is_refused=chance.random() < traffic.refused_ratio,
        )

    def _adversary_has_turned(self) -> bool:
        turns_at = self._schedule.traffic.turns_at
        if turns_at is None:
            return False
        spent = sum(self.truth.spent_nusd.get(window, 0) for window in self._windows()[:1])
        return spent >= turns_at * self.truth.limits[CHILD]

    def _cost(self, draw: Draw, output_tokens: int) -> int:
        if draw.is_refused:
            return 0
        return bill_nusd(
            self._price(self._now()), input_tokens=draw.input_tokens, output_tokens=output_tokens
        )

    async def _call(self, proxy: Proxy, draw: Draw) -> None:
        """One call from its arrival to its end."""
        cost = self._cost(draw, draw.output_tokens)
        self._current()
        self._asked_of_large += self._is_large()
        self.truth.ask(
            draw,
            least_nusd=self._ceiling(
                draw.input_bound, min(draw.output_bound, USEFUL_OUTPUT_TOKENS)
            ),
            whole_nusd=self._ceiling(draw.input_bound, draw.output_bound),
            cost_nusd=cost,
        )
        try:
            ticket = await proxy.admit(draw)
        except RefusedError:
            self.truth.deny(draw, for_money=False)
            return
        except asyncio.CancelledError:
            self.truth.abandon(draw.number)
            raise
        if ticket is None:
            held = self.truth.deny(draw, for_money=True)
            if held is not None:
                self._loop.call_later(draw.seconds, self.truth.end_imagined, held, min(held, cost))
            return
        await self._upstream(proxy, ticket, draw)

    async def _upstream(self, proxy: Proxy, ticket: Ticket, draw: Draw) -> None:
        cap = ticket.output_tokens if ticket.output_tokens is not None else draw.output_bound
        output = min(draw.output_tokens, cap)
        cost = self._cost(draw, output)
        started = self._now()
        windows = self._windows_of(proxy, ticket)
        held = self._ceiling(draw.input_bound, cap)
        self.truth.admit(Call(draw=draw, windows=windows, held_nusd=held, cost_nusd=cost))
        if draw.is_unknown:
            self._traces.enforced(draw.number, cost_nusd=cost, at=started, seconds=draw.seconds)
        await asyncio.sleep(draw.seconds)
        self.truth.end(draw.number)
        proxy.settle(ticket, draw, output)

    def _windows_of(self, proxy: Proxy, ticket: Ticket) -> tuple[WindowId, ...]:
        """Return the windows that pay: those of the leases that the hold was taken from."""
        leases = proxy.leases_of(ticket)
        windows = (self.server.lease_windows[lease] for lease in leases)
        return tuple(sorted((window.budget_id, window.start) for window in windows))

    async def _events(self) -> None:
        for event in self._schedule.events:
            await asyncio.sleep(max(0.0, event.at_seconds - self._loop.time()))
            self._happen(event)

    def _happen(self, event: Event) -> None:
        proxy = self.proxies[event.proxy]
        match event.kind:
            case Kind.CRASH:
                self._crash(proxy, event)
            case Kind.STOP:
                if proxy.is_up:
                    proxy.agent.retire()
                    self._loop.call_later(2.0 + event.for_seconds, self._restart, proxy)
            case Kind.FORK:
                self._fork(event.proxy)
            case Kind.PARTITION:
                proxy.network.cut_until = self._loop.time() + 2 * event.for_seconds + 1
            case Kind.JUMP:
                proxy.clock.jump(event.amount)
            case Kind.SERVER_DOWN:
                self.server.ledger.breaks_before_commit = event.keeps_disk
                self.server.down_until = self._loop.time() + event.for_seconds + 0.5
            case Kind.LIMIT:
                self._change_limit(event.amount)
            case Kind.DEARER:
                pass  # announced in the rate card; `_price` reads the time

    def _crash(self, proxy: Proxy, event: Event) -> None:
        if proxy.is_up:
            for number in proxy.crash(keeps_disk=event.keeps_disk):
                self.truth.end(number)
            self._loop.call_later(0.1 + event.for_seconds, proxy.start)

    def _restart(self, proxy: Proxy) -> None:
        if proxy.is_up:
            for number in proxy.crash(keeps_disk=True):
                self.truth.end(number)
            proxy.start()

    def _fork(self, number: int) -> None:
        parent = self.proxies[number]
        if not parent.is_up:
            return
        child = parent.fork(
            network=self._network(number), seed=f"{self._schedule.seed}:fork{number}"
        )
        # Parent and child now serve in turn what the parent served.
        self.proxies.append(child)
        self._loop.call_later(0.2, self._swap, number, len(self.proxies) - 1)

    def _swap(self, one: int, other: int) -> None:
        self.proxies[one], self.proxies[other] = self.proxies[other], self.proxies[one]
        if not self._is_over:
            self._loop.call_later(0.2, self._swap, one, other)

    def _change_limit(self, ratio: float) -> None:
        before = self._budgets[CHILD]
        amounts = self.server.amounts(CHILD)
        after = msgspec.structs.replace(before, limit_nusd=int(before.limit_nusd * ratio))
        self._budgets[CHILD] = after
        self._current()
        promised = amounts.enforced_nusd + amounts.unproven_nusd + amounts.leased_nusd
        self.truth.change_limit(CHILD, after.limit_nusd, promised_nusd=promised)
        self.server.change([after])

    def outcome(self) -> Outcome:
        """Say what it came to."""
        schedule, truth = self._schedule, self.truth
        windows = self._windows()
        amounts = {window[0]: self.server.amounts(window[0]) for window in windows}
        bypassed = {window[0]: truth.bypassed_nusd.get(window, 0) for window in windows}
        spent = {window[0]: truth.spent_nusd.get(window, 0) for window in windows}
        return Outcome(
            seed=schedule.seed,
            weather=schedule.weather.value,
            holds=schedule.holds,
            proxies=schedule.proxies,
            asked=truth.asked,
            admitted=truth.admitted,
            denied=truth.denied,
            falsely_denied=truth.falsely_denied,
            unserved=truth.unserved,
            overspend_nusd=truth.overspend_nusd,
            debt_nusd=sum(
                max(
                    0, amounts[name].total_nusd - bypassed[name] - truth.allowed_nusd[(name, start)]
                )
                for name, start in windows
            ),
            utilization_ratio=self._utilization(spent),
            stranded_ratio=max(
                (_held(amounts[name]) - spent[name]) / max(1, truth.limits[name])
                for name, _ in windows
            ),
            syncs=self.server.counts.syncs,
            lease_calls=self.server.counts.lease_calls,
            lease_calls_of_large=self.server.counts.lease_calls_of_large,
            asked_of_large=self._asked_of_large,
            at_ceiling=self._at_ceiling,
            is_conserved=all(spent[name] <= _held(amounts[name]) for name in amounts),
        )

    def _utilization(self, spent: dict[str, int]) -> float | None:
        changes = any(event.kind is Kind.LIMIT for event in self._schedule.events)
        limits = self.truth.limits
        tightest = min(limits, key=lambda name: limits[name])
        wanted = self.truth.offered_nusd >= 1.2 * limits[tightest]
        if changes or self._schedule.rolls or self._schedule.traffic.bypass_ratio or not wanted:
            return None
        return spent[tightest] / limits[tightest]


def _held(amounts: Amounts) -> int:
    return amounts.enforced_nusd + amounts.unproven_nusd + amounts.leased_nusd
