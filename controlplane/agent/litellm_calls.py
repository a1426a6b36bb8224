"""The requests on their way through LiteLLM: each ends its hold once, and its place; no import of it."""

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from controlplane.agent.bounds import Bound
from controlplane.agent.clock import seconds_since_boot
from controlplane.agent.embedded import Gate
from controlplane.agent.health import Outcome, is_failure
from controlplane.agent.litellm_request import call_of, mark
from controlplane.agent.meter import now
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import Ticket

MAX_CALLS: Final = 100_000
"""Calls remembered at once; beyond it the oldest is forgotten and its hold ends by age."""
LATE_SECONDS: Final = 2.0
"""How long after a request failed the usage of an answer to it may still be told."""


class Call(msgspec.Struct):
    """One request on its way through LiteLLM."""

    group: str
    """The model group that LiteLLM calls for it; after a fallback another one."""
    facts: Mapping[str, str]
    operation: str
    bound: Bound
    ticket: Ticket
    hold_id: str | None
    is_governed: bool
    point: float
    rules: Ticket
    """What is changed in an attempt: the ticket, or after a fallback what the rules say of it."""
    name: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))
    is_fallback: bool = False
    is_replacing: bool = False
    """A fallback's model is being replaced: LiteLLM is asked who serves the other one."""
    levels: list[str] = msgspec.field(default_factory=list)
    """Functions of LiteLLM that the attempt is in: one API is spoken through another."""
    is_sent: bool = False
    hides_usage: bool = False
    began: float = 0.0
    deployment: str | None = None
    tried: list[str] = msgspec.field(default_factory=list)

    def begins(self, level: str) -> bool:
        """Whether a function of LiteLLM begins an attempt, or is called inside one by another.

        Messages with a model of OpenAI's are a call of `acompletion` within one of
        `anthropic_messages`. A function that is called again is another attempt.
        """
        if level not in self.levels:
            self.levels.append(level)
            return len(self.levels) == 1
        del self.levels[self.levels.index(level) + 1 :]
        return True


class Calls:
    """Every request that is not over, by the name in its metadata."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._calls: dict[str, Call] = {}

    def remember(self, data: dict[str, Any], call: Call) -> None:
        """Name a call in its request, for the hooks to come."""
        mark(data, call.name)
        self._calls[call.name] = call
        if len(self._calls) > MAX_CALLS:
            del self._calls[next(iter(self._calls))]

    def find(self, data: Mapping[str, Any]) -> Call | None:
        """Return the call that a hook's arguments belong to."""
        name = call_of(data)
        return self._calls.get(name) if name else None

    def attempt_ended(self, data: Mapping[str, Any], ending: Ending) -> None:
        """Settle an attempt; another one may follow."""
        call = self.find(data)
        if call is not None:
            self._settle(call, ending)

    def ended(self, data: Mapping[str, Any], ending: Ending) -> None:
        """Settle the last attempt and count the request out."""
        call = self.find(data)
        if call is not None:
            self._settle(call, ending)
            self._let_go(call, ending)
            del self._calls[call.name]

    def failed(self, data: Mapping[str, Any], ending: Ending) -> None:
        """End a request without an answer; it is free if it was never sent.

        An attempt that was not told to have failed may have been served, and its usage be told
        yet: then somebody's check of it has failed.
        """
        call = self.find(data)
        if call is None:
            return
        if call.is_sent and call.hold_id:
            self._let_go(call, ending)
            asyncio.get_running_loop().call_later(LATE_SECONDS, self._forget, call)
            return
        self.ended(data, ending if call.is_sent else never_sent(ending))

    def leave_attempt(self, call: Call) -> None:
        """End the hold of an attempt of which nobody told how it ended, or that was never made."""
        if call.hold_id:
            ending = Ending(ended_at=now())
            self._gate.settle(call.hold_id, ending if call.is_sent else never_sent(ending))
        call.hold_id = None

    def _settle(self, call: Call, ending: Ending) -> None:
        if call.hold_id:
            self._gate.settle(call.hold_id, ending)
            call.hold_id = None
        self._judge(call, ending)

    def _let_go(self, call: Call, ending: Ending) -> None:
        if call.ticket.slot:
            self._gate.release(call.ticket.slot, ending)  # once, however often it is said

    def _forget(self, call: Call) -> None:
        """End a call of which nothing more was told: it may have been served, and billed."""
        if self._calls.pop(call.name, None) is not None and call.hold_id:
            unknown = Ending(ended_at=now(), status="error", error_type="cancelled")
            self._gate.settle(call.hold_id, unknown)

    def _judge(self, call: Call, ending: Ending) -> None:
        """Tell the breaker of a deployment how an attempt at it ended."""
        rule, name = call.rules.failover, call.deployment
        if rule is None or name is None or not call.is_sent:
            return
        call.deployment = None
        kind = "timeout" if ending.error_type == "timeout" else "connect"
        status = None if kind == "timeout" else ending.http_status
        is_bad = ending.status == "error" and is_failure(rule.on, status=status, kind=kind)
        at = seconds_since_boot()
        outcome = Outcome(at, is_failure=is_bad, latency_seconds=at - call.began)
        self._gate.deployments.ended(name, rule.breaker, outcome)


def never_sent(ending: Ending) -> Ending:
    """Return an ending as that of a call which nobody has seen."""
    return msgspec.structs.replace(ending, usage={}, was_sent=False, error_type="cancelled")
