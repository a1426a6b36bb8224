"""ext_proc: admits calls on their way in, and settles the holds from the answers on their way out.

Envoy asks with one filter that it waits for (`change.py`), and tells with a second one in
observability mode: of that it sends copies and waits for nothing. A call is settled when its
answer is whole: Envoy keeps its side open for seconds after that. A stream that ends before the
answer does (the client left) settles as unknown, charged in full until a trace proves less.

Envoy answers itself, with 503, when the connection broke after the call was sent: the model may
have run, and be billed. Only a few of its reasons say that nothing was sent.
"""

import zlib
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import msgspec

from controlplane.agent.envoy import messages_pb2 as wire
from controlplane.agent.envoy.change import CallChanger
from controlplane.agent.envoy.routes import HOLD_HEADER
from controlplane.agent.http_answer import UsageReader, broken, ending_of
from controlplane.agent.inflate import Inflate
from controlplane.agent.outcome import SERVER_ERRORS
from controlplane.agent.runtime import Agent
from controlplane.agent.settle import Ending

SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
ATTRIBUTES: Final = "envoy.filters.http.ext_proc"
CODE_DETAILS: Final = "response.code_details"
VIA_UPSTREAM: Final = "via_upstream"
SERVICE_TIME: Final = "x-envoy-upstream-service-time"
"""On answers of the upstream, and on no other."""
NEVER_SENT: Final = (
    *("no_healthy_upstream", "cluster_not_found", "maintenance_mode"),
    *("connection_failure", "connection_timeout", "overflow"),
)
"""In `response.code_details` of Envoy's own answers: before a byte of the request was sent."""

Context = grpc.aio.ServicerContext[wire.ProcessingRequest, wire.ProcessingResponse]


class CallProcessor:
    """Serves both filters; which one asks shows in what it sends."""

    def __init__(self, agent: Agent, *, provider: str | None) -> None:
        self._agent = agent
        self._provider = provider

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return what a server needs to serve this."""
        method = grpc.stream_stream_rpc_method_handler(
            self.process,
            request_deserializer=wire.ProcessingRequest.FromString,
            response_serializer=wire.ProcessingResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Process": method})

    async def process(
        self, requests: AsyncIterator[wire.ProcessingRequest], _context: Context
    ) -> AsyncIterator[wire.ProcessingResponse]:
        """Follow one call: from its request's headers to its body, or to its answer's end."""
        watched, changer = _Watched(), CallChanger(self._agent, provider=self._provider)
        try:
            async for request in requests:
                kind = request.WhichOneof("request") or ""
                if request.observability_mode:
                    watched.take(kind, request)
                    if watched.is_whole:
                        self._settle(watched)
                elif kind:
                    headers = headers_of(request.request_headers)
                    yield await changer.answer(kind, request, headers)
        finally:
            self._settle(watched)

    def _settle(self, watched: "_Watched") -> None:
        ending = watched.ending(self._agent)
        if watched.hold_id:
            self._agent.settle(watched.hold_id, ending)
        if watched.slot:
            self._agent.release(watched.slot, ending)
        watched.hold_id = watched.slot = ""


class _Watched:
    """One call as Envoy tells of it."""

    def __init__(self) -> None:
        self.hold_id = ""
        self.slot = ""
        self.is_whole = False
        self._status: int | None = None
        self._details = ""
        self._reader = UsageReader(is_events=False)
        self._is_events = False
        self._inflate: Inflate | None = None

    def take(self, kind: str, request: wire.ProcessingRequest) -> None:
        if kind == "request_headers":
            held = headers_of(request.request_headers).get(HOLD_HEADER, "")
            self.hold_id, _, self.slot = held.partition("/")
        elif not (self.hold_id or self.slot):
            return  # nothing waits for it
        elif kind == "response_headers":
            self._answered(request.response_headers, _details_of(request))
        elif kind == "response_body":
            self._read(request.response_body.body)
            if request.response_body.end_of_stream:
                self._end()
        elif kind == "response_trailers":
            self._end()

    def _answered(self, said: wire.HttpHeaders, details: str) -> None:
        headers = headers_of(said)
        status = headers.get(":status", "")
        self._status = int(status) if status.isdigit() else None
        self._details = details or (VIA_UPSTREAM if SERVICE_TIME in headers else "")
        self._is_events = headers.get("content-type", "").startswith("text/event-stream")
        self._reader = UsageReader(is_events=self._is_events)
        if headers.get("content-encoding") in {"gzip", "deflate"}:
            self._inflate = Inflate()
        if said.end_of_stream:
            self._end()

    def _read(self, data: bytes) -> None:
        try:
            for piece in self._inflate.pieces(data) if self._inflate else (data,):
                if self._inflate and self._inflate.is_long:
                    self._reader.lose()
                if self._reader.is_lost:
                    return
                self._reader.feed(piece)
        except zlib.error:
            self._reader.lose()  # not what its head says

    def _end(self) -> None:
        self._reader.end()
        self.is_whole = True

    def ending(self, agent: Agent) -> Ending:
        now = agent.clock.now()
        if self._status is None:
            return broken(now, was_sent=True, kind="other")
        if not self.is_whole and not self._is_events:
            self._reader.end()  # Envoy may end without a word; an object that closes is whole
            self.is_whole = self._reader.usage() is not None
        ending = ending_of(self._status, self._reader, ended_at=now, is_whole=self.is_whole)
        if self._details == VIA_UPSTREAM or self._status not in SERVER_ERRORS:
            return ending
        if any(reason in self._details for reason in NEVER_SENT):
            return msgspec.structs.replace(
                ending, usage={}, was_sent=False
            )  # an error all the same
        return msgspec.structs.replace(ending, usage=None)


def _details_of(request: wire.ProcessingRequest) -> str:
    """Return why Envoy answers so, where its filter is told to say it."""
    said = request.attributes.get(ATTRIBUTES)
    return said.fields[CODE_DETAILS].string_value if said else ""


def headers_of(said: wire.HttpHeaders) -> dict[str, str]:
    """Return headers by their lower-case names."""
    return {
        header.key.lower(): header.value or header.raw_value.decode("latin-1")
        for header in said.headers.headers
    }
