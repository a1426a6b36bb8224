"""ext_proc before the upstream: admits a call and sends it on as the policy wants it.

What ext_authz can not do: Envoy holds the body until this has answered and then sends the body
that came back, so that a lower limit, another model, fewer choices and the usage of a stream are
put in rather than asked for, and a hold can be cut to what fits. When the client leaves just as
this answers nobody knows whether the call was sent: its hold ends by age, charged in full.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from controlplane.agent.envoy import messages_pb2 as wire
from controlplane.agent.envoy.authz import held_headers, request_id_of
from controlplane.agent.envoy.routes import HOLD_HEADER
from controlplane.agent.http_answer import refusal_body, refusal_headers
from controlplane.agent.http_request import (
    HttpCall,
    changed_body,
    facts_of,
    read_call,
    to_request,
    unpacked,
)
from controlplane.agent.runtime import Agent
from controlplane.agent.ticket import RefusedError, Ticket

OVERWRITE: Final = 2


class CallChanger:
    """One request of one Envoy: its headers, then its whole body."""

    def __init__(self, agent: Agent, *, provider: str | None) -> None:
        self._agent = agent
        self._provider = provider
        self._headers: Mapping[str, str] = {}

    async def answer(
        self, kind: str, request: wire.ProcessingRequest, headers: Mapping[str, str]
    ) -> wire.ProcessingResponse:
        """Answer one message of Envoy's; `headers` are those of the request's head."""
        if kind == "request_headers":
            self._headers = headers
            response = wire.ProcessingResponse()
            change = response.request_headers.response
            change.header_mutation.remove_headers.append(HOLD_HEADER)  # only we say what is held
            if request.request_headers.end_of_stream:  # no body will follow
                return await self._admitted(b"", response, change)
            return response
        if kind == "request_body":
            response = wire.ProcessingResponse()
            response.request_body.SetInParent()
            content = request.request_body.body
            return await self._admitted(content, response, response.request_body.response)
        response = wire.ProcessingResponse()
        getattr(response, kind).SetInParent()
        return response

    async def _admitted(
        self, content: bytes, response: wire.ProcessingResponse, change: wire.CommonResponse
    ) -> wire.ProcessingResponse:
        """Admit what may be billed, and write into `change` how it goes on; or answer it."""
        headers = self._headers
        host = headers.get(":authority", "").partition(":")[0]
        path = headers.get(":path", "").partition("?")[0]
        plain = unpacked(content, headers.get("content-encoding", ""))
        call = read_call(
            headers.get(":method", ""), host, path, content=plain, provider=self._provider
        )
        if call is None:
            return response
        request_id = request_id_of(headers)
        try:
            ticket = await self._admit(call, request_id)
        except RefusedError as refused:
            return _refuse(refused, request_id)
        try:
            self._write(change, call, ticket)
        except BaseException:  # an answer that can not be written lets nothing through
            self._agent.never_sent(ticket.hold_id, ticket.slot)
            raise
        return response

    async def _admit(self, call: HttpCall, request_id: str) -> Ticket:
        agent = self._agent
        await agent.ready()  # without a policy nobody knows whose a call is
        facts = facts_of(call, self._headers, agent.dimension_map, tenant=agent.tenant)
        return await agent.admit(to_request(call, facts, request_id=request_id))

    def _write(self, change: wire.CommonResponse, call: HttpCall, ticket: Ticket) -> None:
        added = {**ticket.headers, **held_headers(ticket, self._headers)}
        body = changed_body(call, ticket)
        if body is not None:
            content = msgspec.json.encode(body)
            change.body_mutation.body = content
            added["content-length"] = str(len(content))  # Envoy does not count it anew
            change.header_mutation.remove_headers.append("content-encoding")
        change.header_mutation.set_headers.extend(_options(added))


def _refuse(refused: RefusedError, request_id: str) -> wire.ProcessingResponse:
    response = wire.ProcessingResponse()
    answer = response.immediate_response
    answer.status.code = refused.refusal.status
    answer.headers.set_headers.extend(_options(refusal_headers(refused)))
    answer.body = refusal_body(refused, request_id=request_id)
    return response


def _options(headers: Mapping[str, str]) -> list[wire.HeaderValueOption]:
    """Write headers as ext_proc reads them: raw."""
    return [
        wire.HeaderValueOption(
            header=wire.HeaderValue(key=name, raw_value=value.encode("latin-1", "replace")),
            append_action=OVERWRITE,
        )
        for name, value in headers.items()
    ]
