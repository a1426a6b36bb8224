"""The node agent's HTTP API: what it is asked, and its answers; `deploy/docs/agent.md` is for users.

Pure but for the agent behind it: a request is (method, path, body), an answer (status, headers,
body). The socket is served by `node_server.py`.
"""

import secrets
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

from controlplane.agent.bounds import Bound
from controlplane.agent.clock import seconds_since_boot
from controlplane.agent.health import Outcome, is_failure
from controlplane.agent.http_answer import POLICY_HEADER, refusal_body, refusal_headers
from controlplane.agent.http_request import (
    HttpCall,
    call_of,
    changed_body,
    facts_of,
    is_free_path,
    to_request,
)
from controlplane.agent.outcome import error_type, is_free
from controlplane.agent.runtime import Agent
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request, Ticket
from controlplane.agent.usage import usage_buckets
from controlplane.core.json_errors import UNREADABLE
from controlplane.core.tokens import BUCKET_NAMES, MAX_QUANTITY
from controlplane.policy.document import Breaker, Downgrade, Failover, PolicyDocument

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
    hold: bool = True
    """False, of another attempt at another model: say what the rules change in it, hold nothing."""


Bucket = Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(BUCKET_NAMES)})$")]
Quantity = Annotated[int, msgspec.Meta(ge=0, le=MAX_QUANTITY)]
Buckets = dict[Bucket, Quantity]
Error = Literal[
    "timeout",
    "connect",
    "cancelled",
    "never_sent",
    "other",
    "rate_limited",
    "server_error",
    "client_error",
]


class SettleOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/settle`: how an attempt ended; with `slot`, the whole request has."""

    hold_id: str | None = None
    slot: str | None = None
    http_status: Annotated[int, msgspec.Meta(ge=100, le=599)] | None = None
    """Of the upstream's answer; None when there was none."""
    usage: dict[str, object] | None = None
    """The answer's own `usage` object; None when it did not say."""
    buckets: Buckets | None = None
    """The same as exclusive buckets, from a front that has worked them out."""
    read: Buckets | None = None
    """Of a stream that was left before it said its usage: what it read, as buckets."""
    error: Error | None = None
    """timeout, connect, cancelled, never_sent or other, when there was no whole answer; else the
    name of the error."""
    response_id: str | None = None
    provider: str | None = None
    model: str | None = None
    deployment: str | None = None
    latency_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class _Said(msgspec.Struct, frozen=True):
    """What an answer may have admitted."""

    hold_id: str | None = None
    slot: str | None = None


class NodeApi:
    """The routes."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._admit = msgspec.json.Decoder(AdmitOrder)
        self._settle = msgspec.json.Decoder(SettleOrder)
        self._said = msgspec.json.Decoder(_Said)

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
        return reads[place]() if place in reads else _not_served(place)

    def unheard(self, content: bytes) -> None:
        """Take back what an answer admitted whose sender had left before it read it."""
        try:
            said = self._said.decode(content)
        except UNREADABLE:
            return  # it admitted nothing
        self._agent.never_sent(said.hold_id, said.slot)

    async def admit(self, order: AdmitOrder) -> Answer:
        """Admit one call."""
        await self._agent.ready()  # without a policy nobody knows whose a call is
        request_id = order.request_id or f"req_{secrets.token_hex(12)}"
        if is_free_path(order.path):
            return self._ticket(Ticket(), request_id, None)
        call = None if order.asked else _call(order)
        request = (
            _from_asked(order.asked, request_id)
            if order.asked
            else self._request(call or _call(order), order, request_id)
        )
        try:
            if not order.hold:
                ticket = self._agent.look_again(request)
            elif order.again:
                ticket = await self._agent.admit_again(request)
            else:
                ticket = await self._agent.admit(request)
        except RefusedError as refused:
            status = refused.refusal.status
            return status, refusal_headers(refused), refusal_body(refused, request_id=request_id)
        return self._ticket(ticket, request_id, call)

    def _ticket(self, ticket: Ticket, request_id: str, call: HttpCall | None) -> Answer:
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
        """Count what a deployment did, by the rule that has it in its order."""
        deployments = self._agent.admission.desk.deployments
        if order.error in {"cancelled", "never_sent"}:
            deployments.left(name)
            return
        applied = self._agent.puller.applied
        rules = applied.document.rules if applied else ()
        rule = next((one for one in rules if isinstance(one, Failover) and name in one.order), None)
        is_bad = is_failure(
            rule.on if rule else FAILURES, status=order.http_status, kind=order.error or "other"
        )
        outcome = Outcome(
            seconds_since_boot(), is_failure=is_bad, latency_seconds=order.latency_seconds
        )
        deployments.ended(name, rule.breaker if rule else Breaker(), outcome)

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
        """Say how the agent is: 503 while there is no policy to act on, degraded where the server and we differ."""
        status = self._agent.status()
        is_ready = self._agent.puller.applied is not None
        healthy = "degraded" if self._agent.is_degraded else "healthy"
        said = {"status": healthy if is_ready else "unhealthy", **status}
        return 200 if is_ready else 503, JSON, msgspec.json.encode(said)

    def metrics(self) -> Answer:
        """Write what can be graphed and alerted on, in Prometheus' text format."""
        status = self._agent.status()
        refusals = status.pop("refusals")
        lines = [
            f"controlplane_agent_{name} {+value}"  # a flag is 0 or 1
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
    return call_of(order.host, order.path, body=order.body, provider=order.provider)


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
        deployments, at = agent.admission.desk.deployments, seconds_since_boot()
        order = deployments.in_order(rule, at)
        deployments.sent(order[0], at)  # past its pause it is the one probe
        said["deployments"] = order
        said["failover"] = msgspec.to_builtins(rule)
    return {"request_id": request_id, "policy": agent.policy, **said}


def _ending(order: SettleOrder, agent: Agent) -> Ending:
    status = order.http_status
    is_error = order.error is not None or (status is not None and status >= 400)  # noqa: PLR2004 - HTTP's own line
    usage = usage_buckets(order.usage) if order.buckets is None else order.buckets
    never_sent = order.error in {"never_sent", "connect"}
    if never_sent or (status is not None and is_free(status)):
        usage = {}
    kind = "cancelled" if order.error == "never_sent" else order.error or error_type(status)
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


METHODS: Final = {
    "/v1/admit": "POST",
    "/v1/settle": "POST",
    "/v1/policy": "GET",
    "/health": "GET",
    "/metrics": "GET",
}


def _not_served(place: str) -> Answer:
    allowed = METHODS.get(place.partition(" ")[2])
    if allowed is None:
        return _problem(404, f"{place} is not served here")
    return _problem(405, f"{place} is not served here, {allowed} is", allow=allowed)


def _problem(status: int, detail: str, **more: str) -> Answer:
    headers = {"content-type": "application/problem+json", **more}
    return status, headers, msgspec.json.encode({"status": status, "detail": detail})
