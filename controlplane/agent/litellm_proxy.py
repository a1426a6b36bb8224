"""The LiteLLM proxy plug-in: `callbacks: [controlplane.agent.litellm_proxy.handler]`.

Written against LiteLLM 1.106 (hook table in `deploy/docs/litellm.md`). A request is admitted in
the pre-call hook; every attempt that the router makes for it, retries and fallbacks included, has
a hold of its own, because each may be billed (algorithms L14).
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final

import msgspec
from fastapi import HTTPException  # type: ignore[import-not-found]  # LiteLLM brings it
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import ProxyException
from litellm.proxy.db.exception_handler import PrismaDBExceptionHandler

from controlplane.agent.bounds import bound_request
from controlplane.agent.clock import seconds_since_boot
from controlplane.agent.embedded import EmbeddedAgent, Gate, default_gate
from controlplane.agent.health import Deployments, Outcome, is_failure
from controlplane.agent.item_reader import ItemReader
from controlplane.agent.litellm_request import (
    call_of,
    change_request,
    deployment_names,
    facts_of,
    failure_ending,
    first_of,
    govern,
    group_of,
    is_free_of_charge,
    keeps_proxy_errors,
    mark,
    names_of,
    operation_of,
    pick,
    provider_of,
    rate_names,
    route_point,
    sent_fields,
    success_ending,
    wants_usage,
)
from controlplane.agent.litellm_start import answer_without_prisma, check_hooks, retire_on_sigterm
from controlplane.agent.log import say
from controlplane.agent.meter import now
from controlplane.agent.refusal import Refusal
from controlplane.agent.settings import load_agent_settings
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request, Ticket

POLICY_HEADER: Final = "x-controlplane-policy"
MAX_CALLS: Final = 100_000
"""Calls remembered at once; beyond it the oldest is forgotten and its hold ends by age."""
LATE_SECONDS: Final = 2.0
"""How long after a request failed the usage of an answer to it may still be told."""


ONE_MODEL: Final = Refusal(
    code="policy_change_needed",
    reason="several models in one request are several calls: ask for one model at a time",
    status=422,
)


class Call(msgspec.Struct):
    """One request on its way through LiteLLM."""

    name: str
    group: str
    facts: Mapping[str, str]
    operation: str
    hold_id: str | None
    is_governed: bool
    ticket: Ticket
    point: float
    levels: list[str] = msgspec.field(default_factory=list)
    """Functions of LiteLLM that the attempt is in: one API is spoken through another."""
    is_sent: bool = False
    hides_usage: bool = False
    began: float = 0.0
    deployment: str | None = None
    tried: list[str] = msgspec.field(default_factory=list)


class ControlplaneHandler(CustomLogger):  # type: ignore[misc]  # LiteLLM publishes no types here
    """Deny, cap, downgrade, route, throttle and hold, then settle what was used."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate
        self._calls: dict[str, Call] = {}
        check_hooks(type(self), CustomLogger)
        answer_without_prisma(PrismaDBExceptionHandler)

    async def async_pre_call_hook(  # noqa: PLR0917 - LiteLLM's signature
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Admit the request and change it as the policy says; 429 with our body otherwise."""
        del cache
        if is_free_of_charge(call_type):
            return data
        await self.gate.ready_async()
        facts = facts_of(data, user_api_key_dict, self.gate.dimension_map, tenant=self.gate.tenant)
        operation = operation_of(call_type)
        model = str(data.get("model", ""))
        facts |= {"model": model, "operation": operation}
        if provider := provider_of(self._serving(model)):
            facts["provider"] = provider
        request = self._request(data, facts, operation)
        if call_type == "acompletion" and "," in model:  # LiteLLM would call every one of them
            several = RefusedError(ONE_MODEL, self.gate.policy)
            raise _refusal(several, request.request_id, call_type)
        try:
            ticket = await self.gate.admit(request)
        except RefusedError as refused:
            raise _refusal(refused, request.request_id, call_type) from None
        if ticket.model:
            data["model"] = ticket.model
            facts["model"] = ticket.model
        asked = wants_usage(data)
        change_request(data, ticket, operation)
        self._remember(
            data,
            Call(
                name=secrets.token_hex(8),
                group=str(facts["model"]),
                facts=facts,
                operation=operation,
                hold_id=ticket.hold_id,
                is_governed=ticket.hold_id is not None,
                ticket=ticket,
                hides_usage=wants_usage(data) and not asked,
                point=route_point(ticket.sticky) if ticket.weights else 0.0,
            ),
        )
        return data

    async def async_filter_deployments(  # noqa: PLR0917 - LiteLLM's signature
        self,
        model: str,
        healthy_deployments: list[Any],
        messages: list[Any] | None,
        request_kwargs: dict[str, Any] | None = None,
        parent_otel_span: Any = None,
    ) -> list[Any]:
        """Choose the deployment that a weighted route gives this request."""
        del model, messages, parent_otel_span
        call = self._find(request_kwargs or {})
        if call is None:
            return healthy_deployments
        ticket, chosen = call.ticket, healthy_deployments
        if ticket.weights and not call.tried:
            chosen = list(pick(healthy_deployments, ticket.weights, point=call.point))
        rule, at = ticket.failover, seconds_since_boot()
        call.deployment = None
        if rule and not (len(chosen) == 1 and not self._is_left_alone(chosen[0], at)):
            order = self._deployments.in_order(rule, at)
            fresh = [name for name in order if name not in call.tried]
            found = first_of(healthy_deployments, fresh or order)
            chosen = [found[1]] if found else chosen
        if rule and len(chosen) == 1:
            ours = [name for name in names_of(chosen[0]) if name in rule.order]
            call.deployment = ours[0] if ours else None
        return chosen

    @property
    def _deployments(self) -> Deployments:
        return self.gate.deployments

    def _is_left_alone(self, deployment: Mapping[str, object], at: float) -> bool:
        return any(self._deployments.is_open(name, at) for name in names_of(deployment))

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        """Give a second and every later attempt a hold of its own, at its own model's price."""
        call = self._find(kwargs)
        if call is None or not _begins(call, str(call_type)):
            return
        call.began = seconds_since_boot()
        if call.ticket.headers:
            kwargs["extra_headers"] = {**(kwargs.get("extra_headers") or {}), **call.ticket.headers}
        if call.deployment is not None:
            call.tried.append(call.deployment)
            self._deployments.sent(call.deployment, call.began)
        group = group_of(kwargs) or call.group
        if group not in {call.group, _alias_of(call.group)}:
            await self._fall_back(call, kwargs, group)
        elif call.is_governed and (call.is_sent or call.hold_id is None):
            await self._hold_again(call, kwargs, call.facts)
        call.is_sent = True

    async def _fall_back(self, call: Call, kwargs: dict[str, Any], group: str) -> None:
        """Ask for another model's budgets; it is no way around a rule on its model."""
        provider = provider_of((rate_names(str(kwargs["model"]), group),))
        facts = {**call.facts, "model": group, **({"provider": provider} if provider else {})}
        await self._hold_again(call, kwargs, facts)
        call.group, call.facts = group, facts

    async def _hold_again(
        self, call: Call, kwargs: dict[str, Any], facts: Mapping[str, str]
    ) -> None:
        if call.hold_id:  # nobody told us how the attempt before ended, or it was never made
            ending = Ending(ended_at=now())
            self.gate.settle(call.hold_id, ending if call.is_sent else _never_sent(ending))
        call.hold_id = None
        request = self._request(kwargs, facts, call.operation, upstream=str(kwargs["model"]))
        try:
            ticket = await self.gate.admit_again(request)
        except RefusedError as refused:
            raise _refusal(refused, request.request_id, "") from None
        call.hold_id = ticket.hold_id
        call.is_governed = call.is_governed or ticket.hold_id is not None
        if call.hold_id:
            asked = wants_usage(kwargs)
            govern(kwargs, call.operation)
            call.hides_usage = call.hides_usage or (wants_usage(kwargs) and not asked)

    async def async_post_call_failure_deployment_hook(  # noqa: PLR0917 - LiteLLM's signature
        self,
        request_data: Mapping[str, object],
        exception: Exception,
        call_type: Any,
        fallback_depth: int | None = None,
    ) -> None:
        """Settle one failed attempt."""
        del call_type, fallback_depth
        self._end(request_data, failure_ending(exception, now()), is_last=False)

    async def async_log_success_event(  # noqa: PLR0917 - LiteLLM's signature
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Settle with the usage that the upstream reported."""
        del start_time, end_time
        self._end(kwargs, success_ending(kwargs, response_obj, now()))

    async def async_post_call_failure_hook(  # noqa: PLR0917 - LiteLLM's signature
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Release a request that ended without an answer; free if it was never sent."""
        del user_api_key_dict, traceback_str
        call = self._find(request_data)
        if call is None:
            return
        ending = failure_ending(original_exception, now())
        if call.is_sent and call.hold_id:  # not the attempt failed, but somebody's check of it
            self._let_go(call, ending)
            asyncio.get_running_loop().call_later(LATE_SECONDS, self._forget, call)
            return
        self._end(request_data, ending if call.is_sent else _never_sent(ending))

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: AsyncIterator[Any], request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Pass a stream through; one that is left is settled with what it had said by then."""
        del user_api_key_dict
        is_whole, call, reader = False, self._find(request_data), ItemReader()
        hides = call is not None and call.hides_usage
        try:
            async for item in response:
                reader.note(item)
                if hides and not getattr(item, "choices", True):
                    continue  # the usage alone: asked for by us, not by the client
                yield item
            is_whole = True
        finally:
            if not is_whole:
                self._end(request_data, reader.left(now()))

    async def async_post_call_response_headers_hook(  # noqa: PLR0917 - LiteLLM's signature
        self,
        data: dict[str, Any],
        user_api_key_dict: Any,
        response: Any,
        request_headers: dict[str, str] | None = None,
        litellm_call_info: dict[str, Any] | None = None,
    ) -> dict[str, str]:
        """Tell the client under which generation it was served or refused."""
        del data, user_api_key_dict, response, request_headers, litellm_call_info
        return {POLICY_HEADER: self.gate.policy}

    def _request(
        self,
        data: Mapping[str, Any],
        facts: Mapping[str, str],
        operation: str,
        *,
        upstream: str | None = None,
    ) -> Request:
        call_id = data.get("litellm_call_id")
        return Request(
            request_id=str(call_id or f"req_{secrets.token_hex(12)}"),  # a file has none
            facts=facts,
            # A later attempt carries what LiteLLM added; its fields were looked at the first time.
            bound=bound_request(operation, data, sent_fields=() if upstream else sent_fields(data)),
            candidates=lambda group: (
                (rate_names(upstream, group),) if upstream else self._serving(group)
            ),
            provider=facts.get("provider", ""),
            call_id=str(call_id) if call_id else None,
        )

    def _serving(self, group: str) -> tuple[tuple[str, ...], ...]:
        """Return the rate-card names of every deployment of a model group."""
        router = _router()
        if router is None:
            return (rate_names("", group),)
        # The index is O(1) and copies nothing; aliases and wildcards take the slow way.
        indices = getattr(router, "model_name_to_deployment_indices", {}).get(group)
        if indices:
            return deployment_names([router.model_list[at] for at in indices], group)
        return deployment_names(router.get_model_list(model_name=group) or (), group)

    def _remember(self, data: dict[str, Any], call: Call) -> None:
        mark(data, call.name)
        self._calls[call.name] = call
        if len(self._calls) > MAX_CALLS:
            del self._calls[next(iter(self._calls))]

    def _find(self, data: Mapping[str, Any]) -> Call | None:
        name = call_of(data)
        return self._calls.get(name) if name else None

    def _end(self, data: Mapping[str, Any], ending: Ending, *, is_last: bool = True) -> None:
        name = call_of(data)
        call = self._calls.get(name) if name else None
        if name is None or call is None:
            return
        if call.hold_id:
            self.gate.settle(call.hold_id, ending)
            call.hold_id = None
        self._judge(call, ending)
        if is_last:
            self._let_go(call, ending)
            del self._calls[name]

    def _let_go(self, call: Call, ending: Ending) -> None:
        if call.ticket.slot:
            self.gate.release(call.ticket.slot, ending)  # once, however often it is said

    def _forget(self, call: Call) -> None:
        """End a call of which nothing more was told: it may have been served, and billed."""
        if self._calls.pop(call.name, None) is not None and call.hold_id:
            unknown = Ending(ended_at=now(), status="error", error_type="cancelled")
            self.gate.settle(call.hold_id, unknown)

    def _judge(self, call: Call, ending: Ending) -> None:
        """Tell the breaker of a deployment how an attempt at it ended."""
        rule, name = call.ticket.failover, call.deployment
        if rule is None or name is None or not call.is_sent:
            return
        call.deployment = None
        kind = "timeout" if ending.error_type == "timeout" else "connect"
        status = None if kind == "timeout" else ending.http_status
        is_bad = ending.status == "error" and is_failure(rule.on, status=status, kind=kind)
        at = seconds_since_boot()
        outcome = Outcome(at, is_failure=is_bad, latency_seconds=at - call.began)
        self._deployments.ended(name, rule.breaker, outcome)


def _begins(call: Call, level: str) -> bool:
    """Whether a function of LiteLLM begins an attempt, or is called inside one by another.

    Messages with a model of OpenAI's are a call of `acompletion` within one of
    `anthropic_messages`. A function that is called again is another attempt.
    """
    if level not in call.levels:
        call.levels.append(level)
        return len(call.levels) == 1
    del call.levels[call.levels.index(level) + 1 :]
    return True


def _alias_of(group: str) -> str:
    """Return the group that LiteLLM calls for a name of the operator's."""
    found = getattr(_router(), "model_group_alias", None) or {}
    alias = found.get(group, group)
    return str(alias.get("model", group) if isinstance(alias, Mapping) else alias)


def _never_sent(ending: Ending) -> Ending:
    return msgspec.structs.replace(ending, usage={}, was_sent=False, error_type="cancelled")


def _refusal(refused: RefusedError, request_id: str, call_type: str) -> Exception:
    """Word a refusal as the exception whose body LiteLLM keeps on this route (ADR 066)."""
    refusal = refused.refusal
    headers = {POLICY_HEADER: refused.policy, "x-should-retry": "false"}
    if refusal.retry_after_seconds is not None:
        headers["retry-after"] = str(refusal.retry_after_seconds)
    body = refusal.body(request_id=request_id, policy=refused.policy)
    if keeps_proxy_errors(call_type):
        kept: Exception = ProxyException(
            message=refusal.reason,
            type="rate_limit_error",
            param=None,
            code=refusal.status,
            headers=headers,
            provider_specific_fields=body,
        )
        return kept
    found: Exception = HTTPException(refusal.status, detail=body, headers=headers)
    found.message = msgspec.json.encode(body).decode()  # type: ignore[attr-defined]  # all that images and rerank pass on
    return found


def _router() -> Any:
    """Return the proxy's router; it exists only after the proxy has read its configuration."""
    from litellm.proxy import proxy_server  # noqa: PLC0415 - a cycle: the proxy imports us

    return proxy_server.llm_router


def _load() -> ControlplaneHandler:
    settings = load_agent_settings()
    gate = default_gate()
    if isinstance(gate, EmbeddedAgent):
        retire_on_sigterm(gate.agent)
    say("litellm_plugin_loaded", server=settings.server_url, scope=settings.scope)
    return ControlplaneHandler(gate)


handler = _load()
