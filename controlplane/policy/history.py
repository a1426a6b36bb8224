"""A scope's history: signed generations, what nodes say they run, and where both are kept."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from controlplane.policy.rules import PolicyRules
from controlplane.policy.wire import Generation, Nack


class SignedGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """The exact bytes of a document, and the header that signs them."""

    scope: str
    generation: Generation
    body: bytes
    signature: str
    sha256: str
    issued_at: datetime


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself in a sync."""

    scope: str
    node: str
    boot_id: str
    applied: Generation | None = None
    nack: Nack | None = None
    capabilities: tuple[str, ...] = ()


class NodeState(msgspec.Struct, frozen=True):
    """What a node said last, and when by the server's clock."""

    report: NodeReport
    seen_at: datetime


class PolicyStore(Protocol):
    """Where rules, generations and node states are kept."""

    def rules(self, scope: str) -> PolicyRules:
        """Return the rules of a scope; empty ones when nobody wrote any."""
        ...

    def save_rules(self, rules: PolicyRules, *, now: datetime) -> None:
        """Replace the rules of their scope."""
        ...

    def scopes(self) -> list[str]:
        """Return the scopes that have rules or a generation, sorted."""
        ...

    def newest(self, scope: str) -> SignedGeneration | None:
        """Return the newest generation of a scope; None when it never had one."""
        ...

    def history(self, scope: str, *, limit: int) -> Sequence[SignedGeneration]:
        """Return the generations of a scope, newest first."""
        ...

    def add(self, signed: SignedGeneration, *, rules: PolicyRules | None = None) -> None:
        """Keep a generation, and with it the rules it was made of; durable on return.

        Raises:
            ConflictError: the pair is taken: somebody else has published meanwhile; nothing was
                kept.
        """
        ...

    def nodes(self, scope: str | None = None) -> list[NodeState]:
        """Return what each node said last, of one scope or all."""
        ...
