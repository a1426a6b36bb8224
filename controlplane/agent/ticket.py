"""What a front asks of the agent, and the two answers there are."""

from collections.abc import Callable, Mapping

import msgspec

from controlplane.agent.admit import Refusal
from controlplane.agent.bounds import Bound


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent front knows of a call before it is sent."""

    request_id: str
    facts: Mapping[str, str]
    bound: Bound
    candidates: Callable[[str], tuple[tuple[str, ...], ...]]
    """Model group → per deployment that may serve it, its names in a rate card."""
    provider: str
    call_id: str | None = None


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """An admitted call: what to change in it, and the hold to settle (None: nothing is held)."""

    hold_id: str | None = None
    model: str | None = None
    output_tokens: int | None = None
    weights: Mapping[str, int] | None = None
    sticky: str | None = None
    notes: tuple[str, ...] = ()


class RefusedError(Exception):
    """The call must not be sent."""

    def __init__(self, refusal: Refusal, policy: str) -> None:
        self.refusal = refusal
        self.policy = policy
        super().__init__(refusal.reason)
