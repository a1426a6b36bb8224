"""The LiteLLM proxy plug-in: `callbacks: [controlplane.agent.litellm_proxy.handler]`.

Written against LiteLLM 1.106 (hook table in `deploy/docs/litellm.md`). A request is admitted in
the pre-call hook; every attempt that the router makes for it, retries and fallbacks included, has
a hold of its own, because each may be billed (algorithms L14).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final

import msgspec
from fastapi import HTTPException  # type: ignore[import-not-found]  # LiteLLM brings it
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import ProxyException
from litellm.proxy.db.exception_handler import PrismaDBExceptionHandler

from controlplane.agent.embedded import EmbeddedAgent, Gate, default_gate
from controlplane.agent.item_reader import ItemReader
from controlplane.agent.litellm_attempts import Attempts
from controlplane.agent.litellm_calls import Call, Calls
from controlplane.agent.litellm_request import (
    change_request,
    changed_bound,
    facts_of,
    failure_ending,
    is_free_of_charge,
    keeps_proxy_errors,
    operation_of,
    provider_of,
    route_point,
    success_ending,
    wants_usage,
)
from controlplane.agent.litellm_start import answer_without_prisma, check_hooks, retire_on_sigterm
from controlplane.agent.log import say
from controlplane.agent.meter import now
from controlplane.agent.refusal import Refusal
from controlplane.agent.settings import load_agent_settings
from controlplane.agent.ticket import RefusedError

POLICY_HEADER: Final = "x-controlplane-policy"
ONE_MODEL: Final = Refusal(
    code="policy_change_needed",
    reason="several models in one request are several calls: ask for one model at a time",
    status=422,
)


class ControlplaneHandler(CustomLogger):  # type: ignore[misc]  # LiteLLM publishes no types here
    """Deny, cap, downgrade, route, throttle and hold, then settle what was used."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate
        self._calls = Calls(gate)
        self._attempts = Attempts(gate, self._calls, _router)
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
        if provider := provider_of(self._attempts.serving(model)):
            facts["provider"] = provider
        request = self._attempts.request(data, facts, operation)
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
        self._calls.remember(
            data,
            Call(
                group=str(facts["model"]),
                facts=facts,
                operation=operation,
                bound=changed_bound(request.bound, ticket),
                ticket=ticket,
                rules=ticket,
                hold_id=ticket.hold_id,
                is_governed=ticket.hold_id is not None,
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
        """Choose the deployment that the policy gives an attempt, of a fallback's model too."""
        del parent_otel_span
        kwargs = request_kwargs or {}
        call = self._calls.find(kwargs)
        if call is None:
            return healthy_deployments
        try:
            return await self._attempts.choose(
                call, model, healthy_deployments, kwargs=kwargs, messages=messages
            )
        except RefusedError as refused:
            raise _refusal(refused, refused.request_id, "") from None

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        """Give a second and every later attempt a hold of its own, at its own model's price."""
        call = self._calls.find(kwargs)
        if call is None or not call.begins(str(call_type)):
            return
        try:
            await self._attempts.begin(call, kwargs)
        except RefusedError as refused:
            raise _refusal(refused, refused.request_id, "") from None

    async def async_post_call_failure_deployment_hook(  # noqa: PLR0917 - LiteLLM's signature
        self,
        request_data: Mapping[str, object],
        exception: Exception,
        call_type: Any,
        fallback_depth: int | None = None,
    ) -> None:
        """Settle one failed attempt."""
        del call_type, fallback_depth
        self._calls.attempt_ended(request_data, failure_ending(exception, now()))

    async def async_log_success_event(  # noqa: PLR0917 - LiteLLM's signature
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Settle with the usage that the upstream reported."""
        del start_time, end_time
        self._calls.ended(kwargs, success_ending(kwargs, response_obj, now()))

    async def async_post_call_failure_hook(  # noqa: PLR0917 - LiteLLM's signature
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Release a request that ended without an answer; free if it was never sent."""
        del user_api_key_dict, traceback_str
        self._calls.failed(request_data, failure_ending(original_exception, now()))

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: AsyncIterator[Any], request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Pass a stream through; one that is left is settled with what it had said by then."""
        del user_api_key_dict
        is_whole, call, reader = False, self._calls.find(request_data), ItemReader()
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
                self._calls.ended(request_data, reader.left(now()))

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
