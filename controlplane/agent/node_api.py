"""The node agent's HTTP API: what it is asked, and its answers; `deploy/docs/agent.md` is for users.

Pure but for the agent behind it: a request is (method, path, body), an answer (status, headers,
body). The socket is served by `node_server.py`.
"""

import secrets
from collections.abc import Mapping
from typing import Final

import msgspec

from controlplane.agent.bounds import Bound
from controlplane.agent.clock import seconds_since_boot
from controlplane.agent.health import Outcome, is_failure
from controlplane.agent.http_answer import POLICY_HEADER, refusal_body, refusal_headers
from controlplane.agent.http_request import (
    HttpCall,
    changed_body,
    facts_of,
    operation_of,
    provider_of,
    to_request,
)
from controlplane.agent.outcome import error_type, is_free
from controlplane.agent.runtime import Agent
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request, Ticket
from controlplane.agent.usage import usage_buckets
from controlplane.core.json_errors import UNREADABLE
from controlplane.policy.document import Breaker, Downgrade, PolicyDocument

JSON: Final = {"content-type": "application/json"}
FAILURES: Final = ("429", "5xx", "timeout", "connect")

Answer = tuple[int, Mapping[str, str], bytes]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A call that its front has read itself."""

    facts: dict[str, str]
    bound: Bound
    provider: str
    candidates: dict[str, tuple[tuple[str, ...], ...]]
    """Model → per deployment that may serve it, its names in a rate card."""
    call_id: str | None = None


class AdmitOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/admit`: either the HTTP request as it would be sent, or what a front read of it."""

    path: str = ""
    host: str = ""
    provider: str | None = None
    headers: dict[str, str] = {}
    body: dict[str, object] = {}
    dimensions: dict[str, str] = {}
    asked: Asked | None = None
    request_id: str = ""
    again: bool = False
    """Another attempt of an admitted call: held anew, quotas are not used twice."""


class SettleOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/settle`: how an attempt ended; with `slot`, the whole request has."""

    hold_id: str | None = None
    slot: str | None = None
    http_status: int | None = None
    """Of the upstream's answer; None when there was none."""
    usage: dict[str, object] | None = None
    """The answer's own `usage` object; None when it did not say."""
    buckets: dict[str, int] | None = None
    """The same as exclusive buckets, from a front that has worked them out."""
    read: dict[str, int] | None = None
    """Of a stream that was left before it said its usage: what it read, as buckets."""
    error: str | None = None
    """timeout, connect, cancelled, never_sent or other, when there was no whole answer."""
    response_id: str | None = None
    provider: str | None = None
    model: str | None = None
    deployment: str | None = None
    latency_seconds: float = 0.0


class NodeApi:
    """The routes."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._admit = msgspec.json.Decoder(AdmitOrder)
        self._settle = msgspec.json.Decoder(SettleOrder)

    async def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Answer one request; never raises for what a client can send."""
        place = f"{method} {path.partition('?')[0]}"
        try:
            if place == "POST /v1/admit":
                return await self.admit(self._admit.decode(body))
            if place == "POST /v1/settle":
                return self.settle(self._settle.decode(body))
        except UNREADABLE as wrong:
            return _problem(400, str(wrong))
        reads = {
            "GET /v1/policy": self.policy,
            "GET /health": self.health,
            "GET /metrics": self.metrics,
        }
        return reads[place]() if place in reads else _problem(404, f"{place} is not served here")

    async def admit(self, order: AdmitOrder) -> Answer:
        """Admit one call."""
        await self._agent.ready()  # without a policy nobody knows whose a call is
        request_id = order.request_id or f"req_{secrets.token_hex(12)}"
        call = None if order.asked else _call(order)
        request = (
            _from_asked(order.asked, request_id)
            if order.asked
            else self._request(call or _call(order), order, request_id)
        )
        try:
            if order.again:
                ticket = await self._agent.admit_again(request)
            else:
                ticket = await self._agent.admit(request)
        except RefusedError as refused:
            status = refused.refusal.status
            return status, refusal_headers(refused), refusal_body(refused, request_id=request_id)
        said = _to_wire(ticket, request_id, self._agent)
        if call and (body := changed_body(call, ticket)) is not None:
            said["body"] = body
        return 200, {**JSON, POLICY_HEADER: self._agent.policy}, msgspec.json.encode(said)

    def _request(self, call: HttpCall, order: AdmitOrder, request_id: str) -> Request:
        headers = {name.lower(): value for name, value in order.headers.items()}
        agent = self._agent
        facts = facts_of(
            call, headers, agent.dimension_map, tenant=agent.tenant, known=order.dimensions
        )
        return to_request(call, facts, request_id=request_id)

    def settle(self, order: SettleOrder) -> Answer:
        """End an attempt, and with its slot the request."""
        agent = self._agent
        ending = _ending(order, agent)
        settled = bool(order.hold_id) and agent.settle(order.hold_id or "", ending)
        released = bool(order.slot) and agent.release(order.slot or "", ending)
        if order.deployment:
            self._judge(order.deployment, order)
        return 200, JSON, msgspec.json.encode({"settled": settled, "released": released})

    def _judge(self, name: str, order: SettleOrder) -> None:
        kind = {"timeout": "timeout", "connect": "connect", "never_sent": "connect"}
        is_bad = is_failure(
            FAILURES, status=order.http_status, kind=kind.get(order.error or "", "other")
        )
        outcome = Outcome(
            seconds_since_boot(), is_failure=is_bad, latency_seconds=order.latency_seconds
        )
        self._agent.admission.desk.deployments.ended(name, Breaker(), outcome)

    def policy(self) -> Answer:
        """Say which policy is in force, and what a front must know to ask."""
        agent = self._agent
        applied = agent.puller.applied
        said = {
            "policy": agent.policy,
            "dimension_map": agent.dimension_map,
            "tenant": agent.tenant,
            "models": _other_models(applied.document) if applied else [],
        }
        return 200, JSON, msgspec.json.encode(said)

    def health(self) -> Answer:
        """Say how the agent is: 503 while there is no policy to act on."""
        status = self._agent.status()
        is_ready = self._agent.puller.applied is not None
        said = {"status": "healthy" if is_ready else "unhealthy", **status}
        return 200 if is_ready else 503, JSON, msgspec.json.encode(said)

    def metrics(self) -> Answer:
        """Write what can be graphed and alerted on, in Prometheus' text format."""
        status = self._agent.status()
        refusals = status.pop("refusals")
        lines = [
            f"controlplane_agent_{name} {value}"
            for name, value in status.items()
            if isinstance(value, int | float)
        ]
        if isinstance(refusals, Mapping):
            lines += [
                f'controlplane_agent_refusals_total{{code="{code}"}} {count}'
                for code, count in refusals.items()
            ]
        text = "\n".join(lines) + "\n"
        return 200, {"content-type": "text/plain; version=0.0.4"}, text.encode()


def _call(order: AdmitOrder) -> HttpCall:
    said = order.body.get("model")
    return HttpCall(
        operation=operation_of(order.path.partition("?")[0].rstrip("/")),
        provider=order.provider or provider_of(order.host),
        model=said if isinstance(said, str) else "",
        body=order.body,
        is_stream=order.body.get("stream") is True,
    )


def _from_asked(asked: Asked, request_id: str) -> Request:
    return Request(
        request_id=request_id,
        facts=asked.facts,
        bound=asked.bound,
        candidates=lambda model: asked.candidates.get(model, ((model,),)),
        provider=asked.provider,
        call_id=asked.call_id,
    )


def _to_wire(ticket: Ticket, request_id: str, agent: Agent) -> dict[str, object]:
    said = {
        name: value
        for name in ticket.__struct_fields__
        if (value := getattr(ticket, name)) not in (None, {}, ())
    }
    rule = ticket.failover
    if rule:
        deployments = agent.admission.desk.deployments
        said["deployments"] = deployments.in_order(rule, seconds_since_boot())
        said["failover"] = msgspec.to_builtins(rule)
    return {"request_id": request_id, "policy": agent.policy, **said}


def _ending(order: SettleOrder, agent: Agent) -> Ending:
    status = order.http_status
    is_error = order.error is not None or (status is not None and status >= 400)  # noqa: PLR2004 - HTTP's own line
    usage = usage_buckets(order.usage) if order.buckets is None else order.buckets
    never_sent = order.error in {"never_sent", "connect"}
    if never_sent or (status is not None and is_free(status)):
        usage = {}
    kind = order.error or error_type(status)
    return Ending(
        ended_at=agent.clock.now(),
        usage=usage,
        read_usage=order.read,
        status="error" if is_error else "ok",
        error_type=(kind if kind in _ERROR_TYPES else "other") if is_error else None,
        http_status=status,
        response_id=order.response_id,
        provider=order.provider,
        model=order.model,
        was_sent=not never_sent,
    )


_ERROR_TYPES: Final = frozenset(
    {"rate_limited", "timeout", "server_error", "client_error", "cancelled", "other"}
)


def _other_models(document: PolicyDocument) -> list[str]:
    """Return the models that the policy may put in place of the one asked for."""
    found = set()
    for rule in document.rules:
        if isinstance(rule, Downgrade):
            found.add(rule.to)
        to = getattr(rule, "to", None)
        if isinstance(to, str):
            found.add(to)
        found |= {arm.model for arm in getattr(rule, "arms", {}).values() if arm.model}
    return sorted(found)


def _problem(status: int, detail: str) -> Answer:
    headers = {"content-type": "application/problem+json"}
    return status, headers, msgspec.json.encode({"status": status, "detail": detail})
