"""A lease: a holder's slice of a budget window. Every state and transition is in this file.

            settle            settle
            ┌─┐               ┌─┐
            ▼ │    return     ▼ │
 grant ─▶ GRANTED ────────▶ RETURNED          open money is in `leased`
             │ expire           │ expire
             ▼      return      ▼
          EXPIRED ───────▶ PROVEN             open money is in `unproven`
            ▲ │               ▲ │
            └─┘               └─┘
            settle            settle

`open_nusd` is what is neither settled nor given back. Expiry moves it from `leased` to `unproven`
and frees nothing: only the holder's own settles and return do, at any later time (L2). What is
open can only shrink, so no money is freed or granted twice.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from controlplane.budgets.ledger import Amounts, WindowKey


class LeaseState(StrEnum):
    """Where a lease is."""

    GRANTED = "granted"
    RETURNED = "returned"
    EXPIRED = "expired"
    PROVEN = "proven"


class LeaseEvent(StrEnum):
    """What can happen to it."""

    SETTLE = "settle"
    RETURN = "return"
    EXPIRE = "expire"


TRANSITIONS: Final[Mapping[tuple[LeaseState, LeaseEvent], LeaseState]] = {
    (LeaseState.GRANTED, LeaseEvent.SETTLE): LeaseState.GRANTED,
    (LeaseState.GRANTED, LeaseEvent.RETURN): LeaseState.RETURNED,
    (LeaseState.GRANTED, LeaseEvent.EXPIRE): LeaseState.EXPIRED,
    (LeaseState.RETURNED, LeaseEvent.SETTLE): LeaseState.RETURNED,
    (LeaseState.RETURNED, LeaseEvent.EXPIRE): LeaseState.PROVEN,
    (LeaseState.EXPIRED, LeaseEvent.SETTLE): LeaseState.EXPIRED,
    (LeaseState.EXPIRED, LeaseEvent.RETURN): LeaseState.PROVEN,
    (LeaseState.PROVEN, LeaseEvent.SETTLE): LeaseState.PROVEN,
}
"""What is not here changes nothing: a repeated return, an expiry of what has expired."""

CHARGED_AS_LEASED: Final = frozenset({LeaseState.GRANTED, LeaseState.RETURNED})
SMALL_HOLDS: Final = 10
"""With less than so many calls' holds left for each of several holders, nothing is leased ahead."""
IN_HAND: Final = frozenset({LeaseState.GRANTED, LeaseState.EXPIRED})
"""Its holder has not given it back."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A slice of one window, owned by one holder."""

    id: str
    window: WindowKey
    holder: str
    amount_nusd: int
    open_nusd: int
    state: LeaseState
    granted_at: datetime
    expires_at: datetime
    """The holder takes no new hold from it after this."""
    sweep_at: datetime
    """When what is open becomes unproven unless the holder is heard of."""


class Step(msgspec.Struct, frozen=True):
    """A lease after an event, and what that does to its window."""

    lease: Lease
    change: Amounts


def granted(lease: Lease) -> Step:
    """Open a lease: its whole amount moves from free to leased."""
    return Step(lease, Amounts(leased_nusd=lease.amount_nusd))


def settled(lease: Lease, held_nusd: int, charge: Amounts) -> Step:
    """Replace a hold by what its call is charged.

    A hold larger than what is open (a holder that counts wrongly) takes what there is; the charge
    stands in full, because the money is spent.
    """
    taken = min(held_nusd, lease.open_nusd)
    after = _after(lease, LeaseEvent.SETTLE) or lease.state
    return Step(
        msgspec.structs.replace(lease, open_nusd=lease.open_nusd - taken, state=after),
        _out_of(lease, taken) + charge,
    )


def returned(lease: Lease, unspent_nusd: int, *, sweep_at: datetime) -> Step | None:
    """Give back what was never held; None when it was given back before."""
    after = _after(lease, LeaseEvent.RETURN)
    if after is None:
        return None
    freed = min(unspent_nusd, lease.open_nusd)
    return Step(
        msgspec.structs.replace(
            lease, open_nusd=lease.open_nusd - freed, state=after, sweep_at=sweep_at
        ),
        _out_of(lease, freed),
    )


def expired(lease: Lease) -> Step | None:
    """Charge what is open in full; None when it is charged already."""
    after = _after(lease, LeaseEvent.EXPIRE)
    if after is None:
        return None
    change = Amounts(leased_nusd=-lease.open_nusd, unproven_nusd=lease.open_nusd)
    return Step(msgspec.structs.replace(lease, state=after), change)


def lease_amount(*, want_nusd: int, need_nusd: int, free_nusd: int, holders: int) -> int:
    """Size a lease: what is wanted, at least the call at hand, tapering as the window empties.

    `clamp(want, need, free / 2N)`, so that the last money is not parked with one of N holders.
    With so little left that each of several holders could take but a few calls, a lease is for the
    calls at hand alone (L10); a lone holder takes its share and serves from it.
    When even the call at hand does not fit, all that is free: the call may be cut to it.
    """
    if holders > 1 and free_nusd < SMALL_HOLDS * holders * need_nusd:
        return min(free_nusd, need_nusd)
    share = free_nusd // (2 * max(1, holders))
    return min(free_nusd, max(need_nusd, min(want_nusd, share)))


def escrow_amount(escrow_nusd: int, *, free_nusd: int, holders: int) -> int:
    """Size a lease for a partition: all of it or nothing, and nothing of the last money.

    It is not spent as long as its holder can ask, so it must not be what others lack.
    """
    return escrow_nusd if escrow_nusd <= free_nusd // (2 * max(1, holders)) else 0


def _after(lease: Lease, event: LeaseEvent) -> LeaseState | None:
    return TRANSITIONS.get((lease.state, event))


def _out_of(lease: Lease, nusd: int) -> Amounts:
    """Take money out of the account that the lease's state charges."""
    if lease.state in CHARGED_AS_LEASED:
        return Amounts(leased_nusd=-nusd)
    return Amounts(unproven_nusd=-nusd)
