"""A scope's history: signed generations, what nodes say they run, and where both are kept."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from controlplane.policy.keyset import SignedKeySet
from controlplane.policy.rollout import Rollout
from controlplane.policy.rules import PolicyRules
from controlplane.policy.wire import CallCounts, Generation, Nack


class Cause(StrEnum):
    """Why a generation was published."""

    RULES = "rules"
    BUDGETS = "budgets"
    """A budget, a price or a window has changed; the rules are as before."""
    ROLLBACK = "rollback"
    REVERT = "revert"
    EPOCH = "epoch"
    CANARY = "canary"
    VELOCITY = "velocity"
    """A quota of a key or a user began or ended by itself, or was ended by hand."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Who made a generation, and what for."""

    author: str = ""
    author_id: str = ""
    message: str = ""
    cause: Cause = Cause.BUDGETS


class SignedGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """The exact bytes of a document, the header that signs them, and where they come from."""

    scope: str
    generation: Generation
    body: bytes
    signature: str
    sha256: str
    issued_at: datetime
    change: Change = Change()
    rules: PolicyRules | None = None
    """As authored; None in generations older than this was kept."""


class Serving(msgspec.Struct, frozen=True):
    """What a scope's nodes are to run: the candidate for the chosen, the stable one for the others."""

    stable: SignedGeneration
    candidate: SignedGeneration | None = None
    nodes: frozenset[str] = frozenset()

    def of(self, node: str) -> SignedGeneration:
        """Return what a node is to run; nobody in particular is no chosen node."""
        return self.candidate if self.candidate and node in self.nodes else self.stable

    @property
    def versions(self) -> tuple[Generation, Generation | None, frozenset[str]]:
        """What must differ for anybody to be told anything."""
        candidate = self.candidate.generation if self.candidate else None
        return self.stable.generation, candidate, self.nodes


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself in a sync."""

    scope: str
    node: str
    boot_id: str
    applied: Generation | None = None
    applied_sha256: str | None = None
    nack: Nack | None = None
    capabilities: tuple[str, ...] = ()
    counts: CallCounts = CallCounts()
    tenants: tuple[str, ...] | None = None
    """Whom the key acts for that it speaks with; None: for every tenant, or not known."""


class NodeState(msgspec.Struct, frozen=True):
    """What a node said last, and when by the server's clock."""

    report: NodeReport
    seen_at: datetime


class ProposalState(StrEnum):
    """What became of a proposal."""

    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """Rules that somebody else must agree to before they are published."""

    id: str
    rules: PolicyRules
    author: str
    author_id: str
    message: str
    created_at: datetime
    base: Generation
    """What was in force when it was written; approving it on another base would undo that."""
    state: ProposalState = ProposalState.OPEN
    decided_by: str = ""
    decided_at: datetime | None = None


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

    def generation(self, scope: str, generation: Generation) -> SignedGeneration | None:
        """Return one generation of a scope; None when there is none of that pair."""
        ...

    def add(
        self,
        *signed: SignedGeneration,
        rules: PolicyRules | None = None,
        rollout: Rollout | None = None,
    ) -> None:
        """Keep generations, and with them the scope's rules and roll-out; durable on return.

        Raises:
            ConflictError: a pair is taken, or the roll-out has moved: somebody else was faster;
                nothing was kept.
        """
        ...

    def serving(self, scope: str) -> Serving | None:
        """Return what a scope's nodes are to run; None when it never had a generation."""
        ...

    def rollout(self, scope: str) -> Rollout | None:
        """Return the last roll-out of a scope, ended or not."""
        ...

    def save_rollout(self, rollout: Rollout) -> None:
        """Keep the next version of a roll-out.

        Raises:
            ConflictError: somebody else moved it first; nothing was kept.
        """
        ...

    def add_key_set(self, signed: SignedKeySet) -> None:
        """Keep a set of policy keys.

        Raises:
            ConflictError: its version is taken.
        """
        ...

    def key_set(self) -> SignedKeySet | None:
        """Return the newest set of policy keys; None when no root key is in use."""
        ...

    def propose(self, proposal: Proposal) -> None:
        """Keep a proposal.

        Raises:
            ConflictError: its id is taken.
        """
        ...

    def proposals(self, scope: str, *, limit: int) -> Sequence[Proposal]:
        """Return the proposals of a scope, newest first."""
        ...

    def proposal(self, proposal_id: str) -> Proposal | None:
        """Return one proposal."""
        ...

    def decide(self, proposal: Proposal) -> None:
        """Keep what was decided of an open proposal.

        Raises:
            ConflictError: it was decided before.
        """
        ...

    def nodes(self, scope: str | None = None) -> list[NodeState]:
        """Return what each node said last, of one scope or all."""
        ...
