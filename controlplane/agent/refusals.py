"""What the server said it does not have, and for how long that is taken for an answer."""

from typing import Final

import msgspec

from controlplane.agent.lease import Instant
from controlplane.policy.wire import Standing

QUIET_SECONDS: Final = 2.0
"""After a refusal nothing is asked for in advance for so long."""


class Refused(msgspec.Struct, frozen=True):
    """The server had less than this for us; asking again before it ends would be noise."""

    since: Instant
    ttl_seconds: float
    nusd: int


class Refusals:
    """The last refusal of each budget, until there is a reason to ask again."""

    def __init__(self) -> None:
        self._refused: dict[str, Refused] = {}
        self._freed: dict[str, Instant] = {}
        self._renewed: Instant | None = None

    def add(self, budget_id: str, refused: Refused) -> None:
        """Note a refusal, unless there is a reason to ask again that came after it was asked for."""
        if not self.has_freed_since(budget_id, refused.since):
            self._refused[budget_id] = refused

    def drop(self, budget_id: str) -> None:
        """Forget it: there was something after all."""
        self._refused.pop(budget_id, None)

    def freed(self, budget_id: str, now: Instant) -> None:
        """A call's money goes back to the server: asking makes sense again.

        Also when the answer to what was asked before is still to come.
        """
        self.drop(budget_id)
        self._freed[budget_id] = now

    def renew(self, now: Instant) -> None:
        """Another policy is in force: its budgets may have other limits than those refused by."""
        self._refused.clear()
        self._renewed = now

    def has_freed_since(self, budget_id: str, asked: Instant) -> bool:
        """Whether money of ours went back since then, or the limits are others."""
        reasons = (self._freed.get(budget_id), self._renewed)
        return any(one is not None and asked.seconds_until(one) > 0 for one in reasons)

    def seconds(self, budget_id: str, needed_nusd: int, now: Instant) -> float:
        """Return for how long it makes no sense to ask for so much; 0: it does."""
        refused = self._refused.get(budget_id)
        if refused is None or needed_nusd < refused.nusd:
            return 0.0
        return max(0.0, refused.ttl_seconds - refused.since.seconds_until(now))

    def is_recent(self, budget_id: str, now: Instant) -> bool:
        """Whether the server had nothing a moment ago: then only a call that waits asks again."""
        refused = self._refused.get(budget_id)
        return refused is not None and refused.since.seconds_until(now) < QUIET_SECONDS

    def heard(self, standing: Standing) -> bool:
        """Take what the server says is free; True when it is enough for what it had refused."""
        refused = self._refused.get(standing.budget_id)
        if refused is None or standing.free_nusd < max(1, refused.nusd):
            return False
        self.drop(standing.budget_id)
        return True
