"""`controlplane agent`: keep policy and leases current on one machine, and say so."""

import asyncio
import contextlib
import secrets
import signal
import time
from pathlib import Path

from controlplane.agent.clock import AgentClock
from controlplane.agent.keyring import AgentKeys
from controlplane.agent.log import say
from controlplane.agent.node_api import NodeApi
from controlplane.agent.node_server import serve_socket
from controlplane.agent.runtime import HERE, Agent, Surroundings
from controlplane.agent.settings import AgentSettings, load_agent_settings
from controlplane.core.ids import ULID_RANDOM_BITS, ulid
from controlplane.policy.bundle import Verifier


class AgentIds:
    """Ids as ULIDs; the composition root's source is not at hand inside a proxy."""

    def new(self, prefix: str) -> str:
        """Return `<prefix>_<26 characters>`, sortable by creation time."""
        return ulid(prefix, time.time_ns() // 1_000_000, secrets.randbits(ULID_RANDOM_BITS))


def build_agent(settings: AgentSettings, *, surroundings: Surroundings = HERE) -> Agent:
    """Put an agent together from this machine's clock, ids and pinned keys."""
    keys = AgentKeys(settings) if settings.policy_root else None
    return Agent(
        settings,
        clock=AgentClock(),
        ids=AgentIds(),
        verify=keys.verify if keys else Verifier(settings.policy_keys).verify,
        keys=keys,
        surroundings=surroundings,
    )


def run(config: Path | None = None) -> None:
    """Pull, verify, persist and acknowledge policy until SIGTERM or SIGINT.

    Args:
        config: TOML file with `AgentSettings`; the environment goes before it.

    Raises:
        ConfigError: a setting is wrong.
    """
    asyncio.run(_serve(build_agent(load_agent_settings(config=config))))


async def _serve(agent: Agent) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    say("agent_started", server=agent.settings.server_url, scope=agent.settings.scope)
    async with contextlib.AsyncExitStack() as serving:
        if agent.settings.socket:
            api = NodeApi(agent)
            await serving.enter_async_context(serve_socket(agent.settings.socket, api))
        if agent.settings.envoy_address:
            # gRPC is an extra: an agent without Envoy does not have it.
            from controlplane.agent.envoy.server import serve_envoy  # noqa: PLC0415

            await serving.enter_async_context(serve_envoy(agent))
        await agent.ready()
        say("agent_status", **agent.status())
        await stop.wait()
    await agent.stop()
    say("agent_stopped")
