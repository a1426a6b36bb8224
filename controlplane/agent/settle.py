"""Open holds and the settles that wait for the server; each is sent until it is acknowledged."""

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Final

import msgspec

from controlplane.agent.journal import Acked, Held, Journal, Record, Settled
from controlplane.agent.lease import Instant
from controlplane.agent.log import say
from controlplane.core.instants import from_nanos, to_nanos
from controlplane.core.tokens import INPUT_BUCKETS, OUTPUT_BUCKETS
from controlplane.policy.ceiling import call_ceiling_nusd
from controlplane.policy.document import RatePerMillion
from controlplane.policy.units import BudgetUnit, used_tokens
from controlplane.policy.wire import MAX_SYNC_ITEMS, Settle, SyncReply

RATED_BUCKETS: Final = frozenset(
    {
        *("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h"),
        *("output_text", "output_reasoning"),
    }
)
"""Quantities that a ceiling rate covers whatever their own rate is."""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was admitted: what it may cost, from where, and how to recognise it later."""

    hold_id: str
    leases: dict[str, str]
    held_nusd: int
    amounts: dict[str, int] = {}  # budget id → taken from its lease, where not `held_nusd`
    units: dict[str, BudgetUnit] = {}  # of budgets that are not in USD
    rate: RatePerMillion | None = None  # the ceiling it was held at
    output_tokens: int = 0  # the most that it may write, all choices together
    started: Instant
    provider: str
    model: str
    operation: str = "chat"
    call_id: str | None = None
    dimensions: dict[str, str] = {}

    def held(self, budget_id: str) -> int:
        """Return what is taken from a budget's lease, in its unit."""
        return self.amounts.get(budget_id, self.held_nusd)


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended; `usage` None is unknown, `{}` is refused upstream and free."""

    ended_at: datetime
    usage: dict[str, int] | None = None
    status: str = "ok"
    error_type: str | None = None
    http_status: int | None = None
    response_id: str | None = None
    provider: str | None = None
    model: str | None = None  # as the upstream was asked for it
    was_sent: bool = True
    """False: it never left, so it uses no quota either. Unless it was `cancelled` there was nobody
    to take it, which counts against a canary."""
    read_usage: dict[str, int] | None = None
    """Where `usage` is unknown: what the call read for certain, as the upstream counted it."""


class SettleQueue:
    """What this holder owes the server an answer about."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open: dict[str, Hold] = {}
        self._pending: dict[str, Settle] = {}

    def opened(self, hold: Hold) -> None:
        """Record a hold; it is in the journal before the call is sent."""
        self._journal.append(to_record(hold))
        self._open[hold.hold_id] = hold

    def ended(
        self, hold_id: str, ending: Ending, *, released: Mapping[str, int] | None = None
    ) -> Hold | None:
        """Record how a call ended; None when it is not open: settled already, or not ours.

        Args:
            hold_id: of an open hold.
            ending: what is known of the call.
            released: by budget, what of the hold is back in its lease.
        """
        hold = self._open.pop(hold_id, None)
        if hold is None:
            return None
        settle = to_settle(hold, ending, released=released or {})
        self._pending[hold_id] = settle
        try:
            self._journal.append(Settled(settle))
        except OSError as wrong:  # told all the same; only a crash before would charge it in full
            say("settle_not_journalled", error=wrong.strerror)
        return hold

    def expired(self, now: Instant, max_call_seconds: float) -> list[str]:
        """Return the holds that nothing will end any more, oldest first."""
        return [
            hold.hold_id
            for hold in self._open.values()
            if hold.started.seconds_until(now) > max_call_seconds
        ]

    def batch(self) -> tuple[Settle, ...]:
        """Return the settles to send next, oldest first."""
        return tuple(islice(self._pending.values(), MAX_SYNC_ITEMS))

    def acknowledged(self, reply: SyncReply, closed: tuple[str, ...]) -> None:
        """Forget what the server has made durable."""
        for hold_id in reply.settled:
            self._pending.pop(hold_id, None)
        if reply.settled or closed:
            self._journal.append(Acked(reply.settled, closed))

    def find(self, hold_id: str) -> Hold | None:
        """Return a hold whose call has not ended; None when it has, or is not ours."""
        return self._open.get(hold_id)

    def is_open(self, hold_id: str) -> bool:
        """Whether the hold still waits for its call to end."""
        return hold_id in self._open

    @property
    def unsettled(self) -> int:
        """Number of holds whose call has not ended, as far as we were told."""
        return len(self._open)

    @property
    def pending(self) -> int:
        """Number of settles that the server has not acknowledged."""
        return len(self._pending)

    @property
    def is_busy(self) -> bool:
        """Whether a call of ours may still end and make room."""
        return bool(self._open or self._pending)

    def open_nusd(self) -> dict[str, int]:
        """Return what is held per budget."""
        held: dict[str, int] = {}
        for hold in self._open.values():
            for budget_id in hold.leases:
                held[budget_id] = held.get(budget_id, 0) + hold.held(budget_id)
        return held

    def records(self) -> list[Record]:
        """Return what a compacted journal must still hold."""
        settled: list[Record] = [Settled(settle) for settle in self._pending.values()]
        return settled + [to_record(hold) for hold in self._open.values()]

    def forget_settled(self) -> None:
        """Drop what waits to be sent: for a bench, which has no server."""
        self._pending.clear()

    def forget_all(self) -> None:
        """Drop everything: after a fork it belongs to the parent."""
        self._open.clear()
        self._pending.clear()


def to_record(hold: Hold) -> Held:
    """Cross to the journal."""
    return Held(
        hold_id=hold.hold_id,
        leases=hold.leases,
        held_nusd=hold.held_nusd,
        held=hold.amounts,
        started_at_ns=to_nanos(hold.started.wall),
        provider=hold.provider,
        model=hold.model,
        call_id=hold.call_id,
    )


def overran(hold: Hold, ending: Ending) -> bool:
    """Whether a call used more tokens than its hold was made for: its bound does not hold (L3)."""
    if not ending.usage:
        return False
    tokens = [hold.held(key) for key, unit in hold.units.items() if unit is BudgetUnit.TOKENS]
    if tokens and used_tokens(ending.usage) > min(tokens):
        return True
    is_money = len(hold.units) < len(hold.leases)
    if hold.rate is None or not is_money:
        return False
    return _most_nusd(hold.rate, ending.usage) > hold.held_nusd


def _most_nusd(rate: RatePerMillion, usage: Mapping[str, int]) -> int:
    return call_ceiling_nusd(
        rate,
        input_tokens=sum(usage.get(name, 0) for name in INPUT_BUCKETS),
        output_tokens=sum(usage.get(name, 0) for name in OUTPUT_BUCKETS),
    )


def unused(hold: Hold, ending: Ending) -> dict[str, int]:
    """Return by budget what of its hold a call certainly did not use, in its unit.

    What is said to be used is priced at the ceiling rates, never below the bill. Usage that is not
    known, and usage in other quantities than text tokens, may have cost all of it; but of a stream
    that was left, what it read is sometimes known, and then it can not have cost more than that and
    every token it was allowed to write.
    """
    return {budget_id: _unused(hold, budget_id, ending) for budget_id in hold.leases}


def _unused(hold: Hold, budget_id: str, ending: Ending) -> int:
    held = hold.held(budget_id)
    usage = _most_usage(hold, ending.read_usage) if ending.usage is None else ending.usage
    if usage is None:
        return 0
    if not usage:
        return held if ending.status == "error" else 0
    unit = hold.units.get(budget_id, BudgetUnit.USD)
    if unit is BudgetUnit.TOKENS:
        return max(0, held - used_tokens(usage))
    if unit is BudgetUnit.REQUESTS or hold.rate is None or not usage.keys() <= RATED_BUCKETS:
        return 0
    return max(0, held - _most_nusd(hold.rate, usage))


def _most_usage(hold: Hold, read: Mapping[str, int] | None) -> Mapping[str, int] | None:
    """Return the most that a call used of which is known what it read; None when it is not."""
    if not read or hold.output_tokens <= 0:
        return None
    return {**read, "output_text": hold.output_tokens}


def to_settle(hold: Hold, ending: Ending, *, released: Mapping[str, int]) -> Settle:
    """Cross to the wire."""
    held = {
        budget_id: hold.held(budget_id) - released.get(budget_id, 0) for budget_id in hold.leases
    }
    return Settle(
        hold_id=hold.hold_id,
        leases=hold.leases,
        held_nusd=hold.held_nusd,
        held={key: amount for key, amount in held.items() if amount != hold.held_nusd},
        started_at=hold.started.wall,
        ended_at=max(ending.ended_at, hold.started.wall),
        provider=ending.provider or hold.provider,
        model=ending.model or hold.model,
        operation=hold.operation,
        status=ending.status,
        error_type=ending.error_type,
        http_status=ending.http_status,
        usage=ending.usage,
        response_id=ending.response_id,
        call_id=hold.call_id,
        dimensions=hold.dimensions,
    )


def lost(held: Held, now: datetime) -> Settle:
    """Settle a hold whose process died with it open: what it cost is not known."""
    return Settle(
        hold_id=held.hold_id,
        leases=held.leases,
        held_nusd=held.held_nusd,
        held=held.held,
        started_at=from_nanos(held.started_at_ns),
        ended_at=now,
        provider=held.provider,
        model=held.model,
        status="error",
        error_type="other",
        call_id=held.call_id,
    )
