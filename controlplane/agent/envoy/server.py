"""One gRPC server for the Envoys of this machine: routes, admission, usage."""

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Final

import grpc

from controlplane.agent.envoy.ads import RouteDiscovery
from controlplane.agent.envoy.authz import Authorization
from controlplane.agent.envoy.usage import CallProcessor
from controlplane.agent.log import say
from controlplane.agent.node_server import OWNER_ONLY
from controlplane.agent.runtime import Agent

MAX_MESSAGE_BYTES: Final = 64 * 2**20
"""Above the bodies that Envoy keeps (`per_connection_buffer_limit_bytes`): it answers those 413."""


@contextlib.asynccontextmanager
async def serve_envoy(agent: Agent) -> AsyncIterator[int]:
    """Serve until left; gives the port, or 0 for a Unix socket.

    Raises:
        RuntimeError: the address is taken.
    """
    settings = agent.settings
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    server.add_generic_rpc_handlers(
        (
            RouteDiscovery(agent, cluster=settings.envoy_cluster).handler(),
            Authorization(agent, provider=settings.envoy_provider or None).handler(),
            CallProcessor(agent, provider=settings.envoy_provider or None).handler(),
        )
    )
    before = os.umask(OWNER_ONLY)
    try:
        port = server.add_insecure_port(settings.envoy_address)
        await server.start()
    finally:
        os.umask(before)
    say("envoy_server_serving", address=settings.envoy_address, port=port)
    try:
        yield port
    finally:
        await server.stop(grace=1.0)
