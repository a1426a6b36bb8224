"""One proxy of a simulated run: the shipped agent, what asks it, and how it dies."""

import asyncio
import copy
import random
from collections.abc import Callable
from pathlib import Path

import msgspec

from controlplane.agent.bounds import Bound
from controlplane.agent.runtime import Agent, Surroundings
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request, Ticket
from controlplane.core.ids import IdFactory
from controlplane.simulate.budget_loop import LocalClock
from controlplane.simulate.budget_network import Network, Wire
from controlplane.simulate.budget_server import MODEL, TENANT
from controlplane.simulate.budget_truth import Draw

FOR_MONEY = frozenset({"budget_exhausted"})
PROVIDER = "p"
Fork = Callable[[Agent, Agent], None]


def drop_what_is_the_parents(_parent: Agent, child: Agent) -> None:
    """Do what the agent does in a child process."""
    child.forked()


class Names:
    """The machine of simulated processes: numbered names, and who of them lives."""

    def __init__(self) -> None:
        self._serial = 0
        self.living: set[str] = set()
        self.lost_boots: set[str] = set()

    def name_holder(self) -> str:
        """Name another process."""
        self._serial += 1
        name = f"sim:{self._serial}:0:0"
        self.living.add(name)
        return name

    def lives(self, holder: str) -> bool:
        """Whether it still runs."""
        return holder in self.living

    def same_boot(self, holder: str) -> bool:
        """Whether its journal is whole."""
        return holder not in self.lost_boots


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What a test may put something faulty in the place of."""

    make_agent: Callable[..., Agent] = Agent
    after_fork: Fork = drop_what_is_the_parents


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is started with."""

    clock: LocalClock
    ids: IdFactory
    names: Names
    seed: str
    parts: Parts


class Proxy:
    """A process that admits calls through an agent; it can end and begin again."""

    def __init__(self, state_dir: Path, network: Network, process: Process) -> None:
        self.network = network
        self.clock = process.clock
        self._process = process
        self._state_dir = state_dir
        self.calls: dict[int, asyncio.Task[None]] = {}
        self.is_up = True
        self.agent = self._new_agent()

    def _new_agent(self) -> Agent:
        settings = AgentSettings(
            server_url="http://server",
            api_key="k",
            policy_keys={"k": "x"},
            node="n",
            state_dir=self._state_dir,
        )
        return self._process.parts.make_agent(
            settings,
            clock=self.clock,
            ids=self._process.ids,
            verify=lambda _body, _header: None,
            surroundings=Surroundings(
                machine=self._process.names,
                client=Wire,
                transport=self.network,
                jitter=random.Random(self._process.seed),  # noqa: S311 - repeatable
            ),
        )

    async def admit(self, draw: Draw) -> Ticket | None:
        """Ask the agent; None when it refuses for money.

        Raises:
            RefusedError: it refuses for another reason.
        """
        request = Request(
            request_id="r",
            facts={"tenant": TENANT, "model": MODEL, "operation": "chat", "provider": PROVIDER},
            bound=Bound(
                operation="chat", input_tokens=draw.input_bound, output_tokens=draw.output_bound
            ),
            candidates=lambda group: ((group,),),
            provider=PROVIDER,
            call_id=f"call{draw.number}",
        )
        try:
            return await self.agent.admit(request)
        except RefusedError as refused:
            if refused.refusal.code in FOR_MONEY:
                return None
            raise

    def settle(self, ticket: Ticket, draw: Draw, output_tokens: int) -> None:
        """Tell the agent how a call ended."""
        usage: dict[str, int] | None
        usage = {"input_uncached": draw.input_tokens, "output_text": output_tokens}
        if draw.is_unknown:
            usage = None
        if draw.is_refused:
            usage = {}
        ending = Ending(
            ended_at=self.clock.now(),
            usage=usage,
            status="error" if draw.is_refused or draw.is_unknown else "ok",
            response_id=f"response{draw.number}",
        )
        if ticket.hold_id is not None:
            self.agent.settle(ticket.hold_id, ending)

    def crash(self, *, keeps_disk: bool) -> list[int]:
        """End at once; returns the numbers of the calls that were under way."""
        self.is_up = False
        self._process.names.living.discard(self.agent.holder.name)
        for task in self.agent.tasks:
            task.cancel()
        numbers = list(self.calls)
        for call in self.calls.values():
            call.cancel()
        self.calls.clear()
        if not keeps_disk:
            for path in self._state_dir.iterdir():
                path.unlink()
        return numbers

    def start(self) -> None:
        """Begin again, as another holder in the same state directory."""
        self.agent = self._new_agent()
        self.is_up = True

    def leases_of(self, ticket: Ticket) -> tuple[str, ...]:
        """Return the leases that an admitted call is held against."""
        hold = self.agent.holder.queue.find(ticket.hold_id or "")
        return tuple(hold.leases.values()) if hold else ()

    def fork(self, *, network: Network, seed: str) -> "Proxy":
        """Return what the child of this process is."""
        process = msgspec.structs.replace(self._process, seed=seed)
        child = Proxy(self._state_dir, network, process)
        # The child begins with the parent's memory; what the agent does in a child comes after.
        child.agent.holder.book = copy.deepcopy(self.agent.holder.book)
        self._process.parts.after_fork(self.agent, child.agent)
        return child
