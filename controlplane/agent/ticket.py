"""What a front asks of the agent, and the two answers there are."""

from collections.abc import Callable, Collection, Mapping

import msgspec

from controlplane.agent.bounds import Bound
from controlplane.agent.refusal import Refusal
from controlplane.policy.document import Failover


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent front knows of a call before it is sent."""

    request_id: str
    facts: Mapping[str, str]
    bound: Bound
    candidates: Callable[[str], tuple[tuple[str, ...], ...]]
    """Model group → per deployment that may serve it, its names in a rate card."""
    deployments: Callable[[str, Collection[str]], tuple[tuple[str, ...], ...]] | None = None
    """Model and deployment names → the same, for those of the names that the front can call."""
    provider: str
    call_id: str | None = None


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """An admitted call: what to change in it, the hold to settle, the slot to release.

    `hold_id` None: no money is held. `slot` None: nothing else waits for the end of the request.
    Each attempt has its hold; the slot is of the request, whatever its attempts.
    """

    hold_id: str | None = None
    slot: str | None = None
    model: str | None = None
    output_tokens: int | None = None
    choices: int | None = None
    strip: tuple[str, ...] = ()
    """Features to take out of the request."""
    weights: Mapping[str, int] | None = None
    sticky: str | None = None
    failover: Failover | None = None
    headers: Mapping[str, str] = {}
    attributes: Mapping[str, str] = {}
    arm: str | None = None
    notes: tuple[str, ...] = ()


class RefusedError(Exception):
    """The call must not be sent.

    `body` is what HTTP fronts answer: code, message, request_id, policy_generation, rule and the
    budget with its owner, what is spent, the limit and when it resets.
    """

    def __init__(self, refusal: Refusal, policy: str, *, request_id: str = "") -> None:
        self.refusal = refusal
        self.policy = policy
        self.request_id = request_id
        super().__init__(refusal.reason)

    @property
    def body(self) -> dict[str, object]:
        """The machine-readable answer."""
        return self.refusal.body(request_id=self.request_id, policy=self.policy)
