"""The clients of a simulated run: when they call, for how much, and what becomes of each call."""

import asyncio
import random
from collections import Counter

from controlplane.agent.admit import USEFUL_OUTPUT_TOKENS
from controlplane.agent.ticket import RefusedError, Ticket
from controlplane.simulate.budget_causes import Cause, cause_of
from controlplane.simulate.budget_proxy import Proxy
from controlplane.simulate.budget_schedule import MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS
from controlplane.simulate.budget_stage import CHILD, START, Stage
from controlplane.simulate.budget_traces import Traced
from controlplane.simulate.budget_truth import Call, Draw, WindowId, bill_nusd, heavy_tail


class Clients:
    """Everybody who calls through the proxies, and some who do not."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.at_ceiling = self.asked_of_large = 0
        self.causes: Counter[Cause] = Counter()
        """Of the refusals of calls that would have fit."""

    async def arrivals(self, proxy: Proxy, number: int) -> None:
        """Start calls as clients do, up to the proxy's concurrency."""
        stage = self._stage
        schedule, chance = stage.schedule, random.Random(f"{stage.schedule.seed}:in{number}")  # noqa: S311 - repeatable
        rate = schedule.traffic.calls_per_second
        if number >= schedule.proxies:
            rate = min(0.2, rate)
        while True:
            await asyncio.sleep(chance.expovariate(rate))
            if stage.is_over or number >= len(stage.proxies):
                return
            proxy = stage.proxies[number]
            draw = self._draw(chance)
            if chance.random() < schedule.traffic.bypass_ratio:
                stage.truth.bypass(stage.current(), self._cost(draw, draw.output_tokens))
                stage.traces.bypassed(self._traced(draw, draw.output_tokens), at=stage.now())
            elif proxy.is_up and len(proxy.calls) < schedule.traffic.concurrency:
                task = asyncio.ensure_future(self._call(proxy, draw))
                proxy.calls[draw.number] = task
                task.add_done_callback(lambda _, p=proxy, n=draw.number: p.calls.pop(n, None))  # type: ignore[misc]  # bound now

    def _draw(self, chance: random.Random) -> Draw:
        stage = self._stage
        traffic = stage.schedule.traffic
        bound, cap = MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS
        if traffic.varied:
            bound, cap = chance.randint(50, bound), chance.randint(50, cap)
        used_input, output = int(bound * chance.uniform(0.2, 1.0)), heavy_tail(chance, cap)
        at_ceiling = traffic.fixed_cost or chance.random() < traffic.at_ceiling_ratio
        if at_ceiling or self._adversary_has_turned():
            used_input, output = bound, cap
            self.at_ceiling += 1
        return Draw(
            number=stage.next_number(),
            input_bound=bound,
            output_bound=cap,
            input_tokens=used_input,
            output_tokens=output,
            seconds=traffic.median_seconds * chance.lognormvariate(0.0, 0.6),
            is_unknown=chance.random() < traffic.unknown_ratio,
            is_refused=chance.random() < traffic.refused_ratio,
        )

    def _adversary_has_turned(self) -> bool:
        stage = self._stage
        turns_at = stage.schedule.traffic.turns_at
        if turns_at is None:
            return False
        spent = sum(stage.truth.spent_nusd.get(window, 0) for window in stage.windows()[:1])
        return spent >= turns_at * stage.truth.limits[CHILD]

    def _cost(self, draw: Draw, output_tokens: int) -> int:
        stage = self._stage
        if draw.is_refused:
            return 0
        return stage.cost(draw.input_tokens, output_tokens)

    def _traced(self, draw: Draw, output_tokens: int) -> Traced:
        """What the trace of a call says."""
        rate = self._stage.price(self._stage.now())
        used = {"input_tokens": draw.input_tokens, "output_tokens": output_tokens}
        return Traced(
            number=draw.number,
            cost_nusd=bill_nusd(rate, **used),
            is_refused=draw.is_refused,
            **used,
        )

    async def _call(self, proxy: Proxy, draw: Draw) -> None:
        """One call from its arrival to its end."""
        stage = self._stage
        cost = self._cost(draw, draw.output_tokens)
        stage.current()
        self.asked_of_large += stage.is_large()
        least = stage.ceiling(draw.input_bound, min(draw.output_bound, USEFUL_OUTPUT_TOKENS))
        stage.truth.ask(
            draw,
            least_nusd=least,
            whole_nusd=stage.ceiling(draw.input_bound, draw.output_bound),
            cost_nusd=cost,
        )
        was_cut_off = stage.is_cut_off(proxy)
        try:
            ticket = await proxy.admit(draw)
        except RefusedError:
            stage.truth.deny(draw, for_money=False)
            return
        except asyncio.CancelledError:
            stage.truth.abandon(draw.number)
            raise
        if ticket is None:
            is_cut_off = was_cut_off or stage.is_cut_off(proxy)
            held = stage.truth.deny(draw, for_money=True, is_cut_off=is_cut_off)
            if held is not None:
                if not is_cut_off:
                    self.causes[cause_of(stage, proxy.agent.holder, least_nusd=least)] += 1
                stage.loop.call_later(draw.seconds, stage.truth.end_imagined, held, min(held, cost))
            return
        await self._upstream(proxy, ticket, draw)

    async def _upstream(self, proxy: Proxy, ticket: Ticket, draw: Draw) -> None:
        stage = self._stage
        cap = ticket.output_tokens if ticket.output_tokens is not None else draw.output_bound
        output = min(draw.output_tokens, cap)
        cost = self._cost(draw, output)
        started = stage.now()
        windows = self._windows_of(proxy, ticket)
        held = stage.ceiling(draw.input_bound, cap)
        stage.truth.admit(Call(draw=draw, windows=windows, held_nusd=held, cost_nusd=cost))
        if draw.is_unknown:
            said = self._traced(draw, output)
            stage.traces.enforced(said, at=started, seconds=draw.seconds)
        await asyncio.sleep(draw.seconds)
        stage.truth.end(draw.number)
        proxy.settle(ticket, draw, output)

    def _windows_of(self, proxy: Proxy, ticket: Ticket) -> tuple[WindowId, ...]:
        """Return the windows that pay: those of the leases that the hold was taken from."""
        stage = self._stage
        leases = proxy.leases_of(ticket)
        windows = (stage.server.lease_windows[lease] for lease in leases)
        if stage.schedule.rolling:
            return tuple(sorted((window.budget_id, START) for window in windows))
        return tuple(sorted((window.budget_id, window.start) for window in windows))
