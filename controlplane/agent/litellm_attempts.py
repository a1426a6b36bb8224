"""What each attempt of LiteLLM's router is: where it goes, what is changed in it, what it holds.

The router makes retries and fallbacks of its own. Each begins from the request as it was after the
pre-call hook, so what a fallback's own rules change in it is changed anew in every attempt.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from controlplane.agent.bounds import bound_request
from controlplane.agent.clock import seconds_since_boot
from controlplane.agent.embedded import Gate
from controlplane.agent.litellm_calls import Call, Calls
from controlplane.agent.litellm_request import (
    change_request,
    deployment_names,
    first_of,
    govern,
    group_of,
    names_of,
    pick,
    provider_of,
    rate_names,
    route_point,
    sent_fields,
    wants_usage,
)
from controlplane.agent.refusal import Refusal
from controlplane.agent.ticket import RefusedError, Request

CHANGE_NEEDED: Final = Refusal(
    code="policy_change_needed",
    reason="the policy puts another model in the place of this fallback, and LiteLLM has chosen "
    "its deployment by id or without asking",
    status=422,
)
LEAST_OUTPUT_TOKENS: Final = 16
"""What LiteLLM sends to OpenAI's responses at least, and speaks other APIs through them."""
Names = tuple[tuple[str, ...], ...]


class Attempts:
    """The attempts of every call.

    Args:
        gate: the agent.
        calls: the calls under way.
        router: LiteLLM's; it exists only after the proxy has read its configuration.
    """

    def __init__(self, gate: Gate, calls: Calls, router: Callable[[], Any]) -> None:
        self._gate = gate
        self._calls = calls
        self._router = router

    def request(
        self,
        data: Mapping[str, Any],
        facts: Mapping[str, str],
        operation: str,
        *,
        upstream: str | None = None,
    ) -> Request:
        """Return what the agent is asked; of a later attempt `upstream` is the model it calls."""
        call_id = data.get("litellm_call_id")
        # A later attempt carries what LiteLLM added; its fields were looked at the first time.
        bound = bound_request(operation, data, sent_fields=() if upstream else sent_fields(data))
        return Request(
            request_id=str(call_id or f"req_{secrets.token_hex(12)}"),  # a file has none
            facts=facts,
            bound=msgspec.structs.replace(bound, least_output_tokens=LEAST_OUTPUT_TOKENS),
            candidates=lambda group: (
                (rate_names(upstream, group),) if upstream else self.serving(group)
            ),
            provider=facts.get("provider", ""),
            call_id=str(call_id) if call_id else None,
        )

    def serving(self, group: str) -> Names:
        """Return the rate-card names of every deployment of a model group."""
        router = self._router()
        if router is None:
            return (rate_names("", group),)
        # The index is O(1) and copies nothing; aliases and wildcards take the slow way.
        indices = getattr(router, "model_name_to_deployment_indices", {}).get(group)
        if indices:
            return deployment_names([router.model_list[at] for at in indices], group)
        return deployment_names(router.get_model_list(model_name=group) or (), group)

    async def choose(
        self,
        call: Call,
        model: str,
        healthy: list[Any],
        *,
        kwargs: dict[str, Any],
        messages: list[Any] | None,
    ) -> list[Any]:
        """Return the deployments that the policy lets an attempt go to.

        Raises:
            RefusedError: a rule closes the model that LiteLLM falls back to.
        """
        group = group_of(kwargs) or model
        if self._is_another(call, group) and not call.is_replacing:
            said = {**kwargs, "messages": messages} if messages else kwargs
            await self._turn(call, said, group)
        if call.is_fallback and call.rules.model and not call.is_replacing:
            return await self._instead(call, call.rules.model, kwargs=kwargs, messages=messages)
        return self._routed(call, healthy)

    async def _instead(
        self, call: Call, model: str, *, kwargs: dict[str, Any], messages: list[Any] | None
    ) -> list[Any]:
        """Return the deployments of the model that a rule puts in the place of a fallback's.

        LiteLLM works out which are healthy, and asks us again which of them it shall be.
        """
        call.is_replacing = True
        try:
            found = await self._router().async_get_healthy_deployments(
                model=model, request_kwargs=kwargs, messages=messages
            )
        finally:
            call.is_replacing = False
        return found if isinstance(found, list) else [found]

    def _routed(self, call: Call, healthy: list[Any]) -> list[Any]:
        rules, chosen, deployments = call.rules, healthy, self._gate.deployments
        if rules.weights and not call.tried:
            chosen = list(pick(healthy, rules.weights, point=call.point))
        rule, at = rules.failover, seconds_since_boot()
        call.deployment = None
        if rule and not (len(chosen) == 1 and not self._is_left_alone(chosen[0], at)):
            order = deployments.in_order(rule, at)
            fresh = [name for name in order if name not in call.tried]
            found = first_of(healthy, fresh or order)
            chosen = [found[1]] if found else chosen
        if rule and len(chosen) == 1:
            ours = [name for name in names_of(chosen[0]) if name in rule.order]
            call.deployment = ours[0] if ours else None
        return chosen

    def _is_left_alone(self, deployment: Mapping[str, object], at: float) -> bool:
        return any(self._gate.deployments.is_open(name, at) for name in names_of(deployment))

    async def begin(self, call: Call, kwargs: dict[str, Any]) -> None:
        """Make an attempt what the policy wants, and hold what it may cost.

        Raises:
            RefusedError: with the answer for the sender.
        """
        group = group_of(kwargs) or call.group
        if self._is_another(call, group):
            await self._turn(call, kwargs, group)
            if call.rules.model:
                asked = str(kwargs.get("litellm_call_id") or "")
                raise RefusedError(CHANGE_NEEDED, self._gate.policy, request_id=asked)
        call.began = seconds_since_boot()
        if call.rules.headers:
            kwargs["extra_headers"] = {**(kwargs.get("extra_headers") or {}), **call.rules.headers}
        if call.deployment is not None:
            call.tried.append(call.deployment)
            self._gate.deployments.sent(call.deployment, call.began)
        if call.is_fallback:
            change_request(kwargs, call.rules, call.operation)
            await self._hold_again(call, kwargs, self._facts_of_fallback(call, kwargs))
        elif call.is_governed and (call.is_sent or call.hold_id is None):
            await self._hold_again(call, kwargs, call.facts)
        call.is_sent = True

    def _is_another(self, call: Call, group: str) -> bool:
        return group not in {call.group, self._alias_of(call.group)}

    def _alias_of(self, group: str) -> str:
        """Return the group that LiteLLM calls for a name of the operator's."""
        found = getattr(self._router(), "model_group_alias", None) or {}
        alias = found.get(group, group)
        return str(alias.get("model", group) if isinstance(alias, Mapping) else alias)

    async def _turn(self, call: Call, said: Mapping[str, Any], group: str) -> None:
        """Ask what the rules make of a fallback; it is no way around a rule on its model.

        Raises:
            RefusedError: a rule closes the model.
        """
        facts = {name: value for name, value in call.facts.items() if name != "provider"}
        provider = provider_of(self.serving(group))
        facts |= {"model": group, **({"provider": provider} if provider else {})}
        request = self.request(said, facts, call.operation)
        if not any(said.get(field) for field in ("messages", "input", "prompt")):
            request = msgspec.structs.replace(request, bound=call.bound)  # LiteLLM holds it back
        call.rules = await self._gate.look_again(request)
        call.group, call.facts, call.is_fallback, call.tried = group, facts, True, []
        call.point = route_point(call.rules.sticky) if call.rules.weights else 0.0

    @staticmethod
    def _facts_of_fallback(call: Call, kwargs: Mapping[str, Any]) -> dict[str, str]:
        """Return whose an attempt is: its deployment's provider is known by now."""
        model = call.rules.model or call.group
        provider = provider_of((rate_names(str(kwargs["model"]), model),))
        return {**call.facts, "model": model, **({"provider": provider} if provider else {})}

    async def _hold_again(
        self, call: Call, kwargs: dict[str, Any], facts: Mapping[str, str]
    ) -> None:
        self._calls.leave_attempt(call)
        request = self.request(kwargs, facts, call.operation, upstream=str(kwargs["model"]))
        ticket = await self._gate.admit_again(request)
        call.hold_id = ticket.hold_id
        call.is_governed = call.is_governed or ticket.hold_id is not None
        if call.hold_id:
            asked = wants_usage(kwargs)
            govern(kwargs, call.operation)
            call.hides_usage = call.hides_usage or (wants_usage(kwargs) and not asked)
