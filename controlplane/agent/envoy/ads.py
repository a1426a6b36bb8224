"""ADS, state of the world, for route configurations: push what is in force, hear what is refused.

Envoy acknowledges a version by asking on from it, and refuses one by asking on from the version
before with the reason; it then goes on with what it had (xDS protocol, "ACK/NACK").
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from controlplane.agent.envoy import messages_pb2 as wire
from controlplane.agent.envoy.routes import routes_of
from controlplane.agent.log import say
from controlplane.agent.runtime import Agent
from controlplane.policy.document import PolicyDocument
from controlplane.policy.wire import Generation

ROUTE_TYPE: Final = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"

Context = grpc.aio.ServicerContext[wire.DiscoveryRequest, wire.DiscoveryResponse]


class Proxies:
    """What the Envoys of this machine said of the routes they were sent."""

    def __init__(self) -> None:
        self.applied: dict[str, str] = {}
        self.refused: dict[str, str] = {}


class RouteDiscovery:
    """Serves every Envoy that asks; pushes when the policy changes."""

    def __init__(self, agent: Agent, *, cluster: str) -> None:
        self._agent = agent
        self._cluster = cluster
        self._streams: set[asyncio.Event] = set()
        self.proxies = Proxies()
        agent.on_change(self.changed)

    def changed(self) -> None:
        """Push to every Envoy; called in the agent's loop when a policy was applied."""
        for changed in self._streams:
            changed.set()

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return what a server needs to serve this."""
        method = grpc.stream_stream_rpc_method_handler(
            self.stream,
            request_deserializer=wire.DiscoveryRequest.FromString,
            response_serializer=wire.DiscoveryResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"StreamAggregatedResources": method})

    async def stream(
        self, requests: AsyncIterator[wire.DiscoveryRequest], _context: Context
    ) -> AsyncIterator[wire.DiscoveryResponse]:
        """Talk with one Envoy until it leaves."""
        changed = asyncio.Event()
        conversation = _Conversation(
            self._agent, changed, cluster=self._cluster, proxies=self.proxies
        )
        self._streams.add(changed)
        listening = asyncio.create_task(conversation.listen(requests))
        listening.add_done_callback(lambda _: changed.set())
        try:
            while not listening.done():
                await changed.wait()
                changed.clear()
                response = conversation.due()
                if response is not None:
                    yield response
        finally:
            self._streams.discard(changed)
            listening.cancel()


class _Conversation:
    """One Envoy: which routes it wants, which version it was sent, what it said of it."""

    def __init__(
        self, agent: Agent, changed: asyncio.Event, *, cluster: str, proxies: Proxies
    ) -> None:
        self._agent = agent
        self._cluster = cluster
        self._proxies = proxies
        self._changed = changed
        self._names: list[str] = []
        self._sent: str | None = None
        self._nonce = 0
        self._node = "?"

    async def listen(self, requests: AsyncIterator[wire.DiscoveryRequest]) -> None:
        async for request in requests:
            self._node = request.node.id or self._node
            if request.type_url != ROUTE_TYPE:
                say("envoy_asks_for_more_than_routes", type_url=request.type_url)
                continue
            if request.response_nonce and request.response_nonce != str(self._nonce):
                continue  # of a version that was overtaken
            if request.HasField("error_detail"):
                self._refused(request.error_detail.message)
            elif request.response_nonce and self._sent:
                self._proxies.applied[self._node] = self._sent
                self._proxies.refused.pop(self._node, None)
            if list(request.resource_names) != self._names:
                self._names, self._sent = list(request.resource_names), None
            self._changed.set()

    def _refused(self, reason: str) -> None:
        self._proxies.refused[self._node] = reason
        say("envoy_refused_routes", node=self._node, policy=self._sent, reason=reason[:500])
        if self._sent:
            epoch, _, gen = self._sent.partition(".")
            self._agent.refused_by_front(Generation(int(epoch), int(gen)), f"envoy: {reason}")

    def due(self) -> wire.DiscoveryResponse | None:
        """Return what this Envoy does not have yet; None when there is nothing to say."""
        applied = self._agent.puller.applied
        document: PolicyDocument | None = applied.document if applied else None
        if document is None or not self._names or self._agent.policy == self._sent:
            return None
        self._sent = self._agent.policy
        self._nonce += 1
        response = wire.DiscoveryResponse(
            version_info=self._sent, type_url=ROUTE_TYPE, nonce=str(self._nonce)
        )
        for name in self._names:
            resource = response.resources.add(type_url=ROUTE_TYPE)
            rendered = routes_of(document, name=name, cluster=self._cluster)
            resource.value = rendered.SerializeToString()
        return response
