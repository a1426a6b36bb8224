"""What this process did since it started: how a roll-out sees that a policy does harm."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec

from controlplane.agent.refusal import Refusal
from controlplane.policy.velocity import AUTOMATIC
from controlplane.policy.wire import MAX_SYNC_ITEMS, CallCounts, RefusedCalls

MAX_KINDS: Final = MAX_SYNC_ITEMS
"""Kinds of refusals counted apart within an hour; further ones are in the total only."""

_Kind = tuple[datetime, str, str, str, str]


class Tally:
    """Counters; the holder's lock guards them."""

    def __init__(self) -> None:
        self.admitted = 0
        self.refused = 0
        self.errors = 0
        self._kinds: dict[_Kind, RefusedCalls] = {}
        self._unsaid: set[_Kind] = set()

    def counts(self) -> CallCounts:
        """Return what a sync says."""
        return CallCounts(admitted=self.admitted, refused=self.refused, errors=self.errors)

    def refuse(self, refusal: Refusal, *, tenant: str, now: datetime) -> None:
        """Count a refused call, by what refused it: its budget, else its rule.

        What a quota refused that began by itself speaks against its subject, not against the rules
        that a roll-out tries on this node.
        """
        self.refused += not (refusal.rule or "").startswith(AUTOMATIC)
        budget_id = refusal.budget.id if refusal.budget else ""
        hour = now.replace(minute=0, second=0, microsecond=0)
        kind = (hour, refusal.code, budget_id, refusal.rule or "", "" if budget_id else tenant)
        known = self._kinds.get(kind)
        if known is None:
            if len(self._kinds) >= MAX_KINDS:
                return
            known = RefusedCalls(
                hour=hour,
                code=kind[1],
                budget_id=kind[2],
                rule=kind[3],
                tenant=kind[4],
                calls=0,
                last_at=now,
            )
        self._kinds[kind] = msgspec.structs.replace(known, calls=known.calls + 1, last_at=now)
        self._unsaid.add(kind)

    def unsaid(self) -> tuple[RefusedCalls, ...]:
        """Return the counts that the server does not have."""
        return tuple(self._kinds[kind] for kind in sorted(self._unsaid))

    def said(self, counts: Iterable[RefusedCalls]) -> None:
        """Note what the server has; an hour that is over and said is forgotten."""
        newest = max((kind[0] for kind in self._kinds), default=None)
        for count in counts:
            kind = (count.hour, count.code, count.budget_id, count.rule, count.tenant)
            if self._kinds.get(kind) == count:
                self._unsaid.discard(kind)
        for kind in [one for one in self._kinds if one[0] != newest and one not in self._unsaid]:
            del self._kinds[kind]
