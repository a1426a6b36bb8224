"""What goes wrong in a simulated run, when its schedule says so."""

import asyncio

from controlplane.simulate.budget_proxy import Proxy
from controlplane.simulate.budget_schedule import Event, Kind
from controlplane.simulate.budget_stage import Stage


class Fate:
    """Makes the events of the schedule happen."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def run(self) -> None:
        """Let everything happen at its time."""
        stage = self._stage
        for event in stage.schedule.events:
            await asyncio.sleep(max(0.0, event.at_seconds - stage.loop.time()))
            self._happen(event)

    def _happen(self, event: Event) -> None:
        stage = self._stage
        proxy = stage.proxies[event.proxy]
        match event.kind:
            case Kind.CRASH:
                self._crash(proxy, event)
            case Kind.STOP:
                if proxy.is_up:
                    proxy.agent.retire()
                    stage.loop.call_later(2.0 + event.for_seconds, self._restart, proxy)
            case Kind.FORK:
                self._fork(event.proxy)
            case Kind.PARTITION:
                proxy.network.cut_until = stage.loop.time() + 2 * event.for_seconds + 1
            case Kind.JUMP:
                proxy.clock.jump(event.amount)
            case Kind.SERVER_DOWN:
                stage.server.ledger.breaks_before_commit = event.keeps_disk
                stage.server.down_until = stage.loop.time() + event.for_seconds + 0.5
            case Kind.LIMIT:
                stage.change_limit(event.amount)
            case Kind.DEARER:
                pass  # announced in the rate card; `_price` reads the time

    def _crash(self, proxy: Proxy, event: Event) -> None:
        stage = self._stage
        if proxy.is_up:
            for number in proxy.crash(keeps_disk=event.keeps_disk):
                stage.truth.end(number)
            stage.loop.call_later(0.1 + event.for_seconds, proxy.start)

    def _restart(self, proxy: Proxy) -> None:
        stage = self._stage
        if proxy.is_up:
            for number in proxy.crash(keeps_disk=True):
                stage.truth.end(number)
            proxy.start()

    def _fork(self, number: int) -> None:
        stage = self._stage
        parent = stage.proxies[number]
        if not parent.is_up:
            return
        child = parent.fork(
            network=stage.network(number), seed=f"{stage.schedule.seed}:fork{number}"
        )
        # Parent and child now serve in turn what the parent served.
        stage.proxies.append(child)
        stage.loop.call_later(0.2, self._swap, number, len(stage.proxies) - 1)

    def _swap(self, one: int, other: int) -> None:
        stage = self._stage
        stage.proxies[one], stage.proxies[other] = stage.proxies[other], stage.proxies[one]
        if not stage.is_over:
            stage.loop.call_later(0.2, self._swap, one, other)
