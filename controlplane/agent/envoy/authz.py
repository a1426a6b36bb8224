"""ext_authz: a lease decides whether Envoy forwards a call; the decision is local to this machine.

Envoy can not change a body after this check, so a call that the policy wants changed (a lower
limit, another model) is refused with what to ask for instead, and nothing is cut to fit.
"""

import secrets
from collections.abc import Mapping
from typing import Any, Final

import grpc
import msgspec

from controlplane.agent.envoy import messages_pb2 as wire
from controlplane.agent.envoy.routes import HOLD_HEADER, header_options
from controlplane.agent.http_answer import refusal_body, refusal_headers
from controlplane.agent.http_request import (
    HttpCall,
    facts_of,
    read_call,
    to_request,
    unpacked,
    wants_usage,
)
from controlplane.agent.refusal import Refusal
from controlplane.agent.runtime import Agent
from controlplane.agent.strip import FIELDS
from controlplane.agent.ticket import RefusedError, Ticket

SERVICE: Final = "envoy.service.auth.v3.Authorization"
PERMISSION_DENIED: Final = 7
UNPROCESSABLE: Final = 422
REQUEST_ID: Final = "x-request-id"

Context = grpc.aio.ServicerContext[wire.CheckRequest, wire.CheckResponse]


class Authorization:
    """Answers Envoy's checks."""

    def __init__(self, agent: Agent, *, provider: str | None) -> None:
        self._agent = agent
        self._provider = provider

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return what a server needs to serve this."""
        method = grpc.unary_unary_rpc_method_handler(
            self.check,
            request_deserializer=wire.CheckRequest.FromString,
            response_serializer=wire.CheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Check": method})

    async def check(self, request: wire.CheckRequest, _context: Context) -> wire.CheckResponse:
        """Admit or refuse one call."""
        http = request.attributes.request.http
        headers = dict(http.headers)
        body = http.raw_body or http.body.encode()
        content = unpacked(body, headers.get("content-encoding", ""))
        host = http.host.partition(":")[0]
        call = read_call(
            http.method, host, http.path.partition("?")[0], content=content, provider=self._provider
        )
        if call is None:
            return _let_through({}, [HOLD_HEADER])
        request_id = request_id_of(headers)
        try:
            ticket = await self._admit(call, headers, request_id)
        except RefusedError as refused:
            return _refuse(refused, request_id)
        held = held_headers(ticket, headers)
        return _let_through({**ticket.headers, **held}, [] if held else [HOLD_HEADER])

    async def _admit(self, call: HttpCall, headers: Mapping[str, str], request_id: str) -> Ticket:
        agent = self._agent
        await agent.ready()  # without a policy nobody knows whose a call is
        facts = facts_of(call, headers, agent.dimension_map, tenant=agent.tenant)
        asked = to_request(call, facts, request_id=request_id)
        as_it_is = msgspec.structs.replace(asked.bound, can_shrink=False)
        ticket = await agent.admit(msgspec.structs.replace(asked, bound=as_it_is))
        instead = _instead(ticket, call)
        if instead is None:
            return ticket
        agent.never_sent(ticket.hold_id, ticket.slot)
        refusal = Refusal(
            code="policy_change_needed", reason=instead, status=UNPROCESSABLE, rule=None
        )
        raise agent.admission.refused(refusal, asked)


def _instead(ticket: Ticket, call: HttpCall) -> str | None:
    """Say what to ask for, when the call may not go as it is; None when it may."""
    wishes = []
    if ticket.model:
        wishes.append(f"model {ticket.model!r}")
    if ticket.output_tokens is not None:
        wishes.append(f"at most {ticket.output_tokens} output tokens")
    if any(field in call.body for feature in ticket.strip for field in FIELDS[feature]):
        wishes.append(f"no {', '.join(ticket.strip)}")
    if ticket.choices is not None:
        wishes.append(f"at most {ticket.choices} choices")
    is_chat = call.operation in {"chat", "text_completion"}
    if ticket.hold_id and call.is_stream and is_chat and not wants_usage(call):
        wishes.append("stream_options.include_usage")
    return f"the policy wants this call with {', '.join(wishes)}" if wishes else None


def request_id_of(headers: Mapping[str, str]) -> str:
    """Return the name that Envoy gave a request; where it gives none, one of our own."""
    return headers.get(REQUEST_ID) or f"req_{secrets.token_hex(12)}"


def held_headers(ticket: Ticket, asked: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a held call is given.

    What has to be ended, which never leaves this machine; and an encoding of the answer that can be
    read as it passes, of those that the sender takes.
    """
    if not (ticket.hold_id or ticket.slot):
        return {}
    takes_gzip = "gzip" in asked.get("accept-encoding", "")
    return {
        HOLD_HEADER: f"{ticket.hold_id or ''}/{ticket.slot or ''}",
        "accept-encoding": "gzip" if takes_gzip else "identity",
    }


def _let_through(headers: Mapping[str, str], removed: list[str]) -> wire.CheckResponse:
    ok = wire.OkHttpResponse(headers=header_options(headers), headers_to_remove=removed)
    return wire.CheckResponse(status=wire.Status(code=0), ok_response=ok)


def _refuse(refused: RefusedError, request_id: str) -> wire.CheckResponse:
    denied = wire.DeniedHttpResponse(
        status=wire.HttpStatus(code=refused.refusal.status),
        headers=header_options(refusal_headers(refused)),
        body=refusal_body(refused, request_id=request_id).decode(),
    )
    return wire.CheckResponse(status=wire.Status(code=PERMISSION_DENIED), denied_response=denied)
