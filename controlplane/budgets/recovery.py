"""A ledger that was put back to an earlier moment, or goes on at another server (algorithms L6).

Grants since then are lost, and their holders go on spending. So nothing is granted until the last of
those leases, and the last call held against one, must have ended; holders settle what they held
meanwhile, against leases that the ledger may not know.
"""

import msgspec


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """How far a ledger has come."""

    timeline: str
    """Of a database that counts its promotions and restores; empty where it does not."""
    seq: int
    """Of its newest entry."""


def is_another(kept: Mark | None, found: Mark) -> bool:
    """Whether a ledger is not the continuation of what it was when `kept` was noted."""
    if kept is None:
        return False
    return found.timeline != kept.timeline or found.seq < kept.seq
