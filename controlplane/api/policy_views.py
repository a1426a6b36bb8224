"""Generations and nodes as the API shows them."""

import re
from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

import msgspec

from controlplane.auth.principal import Principal
from controlplane.core.errors import InvalidInputError
from controlplane.pipelines.propose import Plan
from controlplane.policy.bundle import decode_document
from controlplane.policy.history import NodeState, Proposal, Serving, SignedGeneration
from controlplane.policy.rollout import Rollout
from controlplane.policy.wire import Generation

STALE_AFTER: Final = timedelta(seconds=10)
"""A node syncs every 5 s at least; after this silence what it runs is not known any more."""
GONE_AFTER: Final = timedelta(minutes=5)
"""After this silence it is not waited for either."""
_PAIR: Final = re.compile(r"(\d{1,9})\.(\d{1,9})")


class GenerationView(msgspec.Struct, frozen=True, kw_only=True):
    """One published generation, without its content, which speaks of every tenant.

    How much is in it, who wrote it and why are null for who may not see every tenant.
    """

    scope: str
    epoch: int
    gen: int
    etag: str
    sha256: str
    issued_at: datetime
    budgets: int | None
    rules: int | None
    price_book_version: str
    author: str | None
    message: str | None
    cause: str

    @classmethod
    def of(cls, signed: SignedGeneration, caller: Principal) -> Self:
        """Cross to the wire."""
        document = decode_document(signed.body)
        sees_all = caller.all_tenants
        return cls(
            scope=signed.scope,
            epoch=signed.generation.epoch,
            gen=signed.generation.gen,
            etag=signed.generation.etag(),
            sha256=signed.sha256,
            issued_at=signed.issued_at,
            budgets=len(document.budgets) if sees_all else None,
            rules=len(document.rules) if sees_all else None,
            price_book_version=document.price_book_version,
            author=signed.change.author if sees_all else None,
            message=signed.change.message if sees_all else None,
            cause=signed.change.cause.value,
        )


class GenerationList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/policy/generations`."""

    rows: tuple[GenerationView, ...]


class NodeStanding(StrEnum):
    """A node against what it is to run, by the server's clock."""

    APPLIED = "applied"
    PENDING = "pending"
    REJECTED = "rejected"
    STALE = "stale"
    GONE = "gone"


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """What a node said last."""

    scope: str
    node: str
    boot_id: str
    state: NodeStanding
    expected: Generation | None
    applied: Generation | None
    rejected: Generation | None
    reason: str | None
    capabilities: tuple[str, ...]
    seen_at: datetime

    @classmethod
    def of(cls, node: NodeState, serving: Serving | None, *, now: datetime) -> Self:
        """Cross to the wire."""
        said = node.report
        expected = serving.of(said.node) if serving else None
        is_forged = _is_forged(node, expected)
        return cls(
            scope=said.scope,
            node=said.node,
            boot_id=said.boot_id,
            state=NodeStanding.REJECTED if is_forged else _standing(node, expected, now),
            expected=expected.generation if expected else None,
            applied=said.applied,
            rejected=said.nack.generation if said.nack else None,
            reason=FORGED if is_forged else said.nack.reason if said.nack else None,
            capabilities=said.capabilities,
            seen_at=node.seen_at,
        )


class NodeList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/policy/nodes`."""

    rows: tuple[NodeView, ...]


FORGED: Final = "runs this generation with other content: somebody else publishes as we do"


class PlanView(Plan, frozen=True, kw_only=True):
    """The body of `POST /api/v1/policy/plan`."""

    needs_approval: bool

    @classmethod
    def of(cls, plan: Plan, *, needs_approval: bool) -> Self:
        """Cross to the wire."""
        return cls(**msgspec.structs.asdict(plan), needs_approval=needs_approval)


class Difference(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/policy/diff`."""

    older: str
    newer: str
    diff: str


class Comment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which scope, and why."""

    scope: str = "default"
    message: str = ""


class RollBackOrder(Comment, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which generation's rules to go back to, `epoch.gen`."""

    to: str


class RolloutView(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `GET /api/v1/policy/rollout`.

    `reason` speaks of nodes of every tenant, and is null for who may not see them.
    """

    scope: str
    state: str
    reason: str | None
    stage: int
    stable: str
    candidate: str
    nodes: tuple[str, ...]
    started_at: datetime
    stage_since: datetime

    @classmethod
    def of(cls, rollout: Rollout, caller: Principal, *, seen: Collection[str]) -> Self:
        """Cross to the wire; of the nodes chosen those that are `seen`."""
        return cls(
            scope=rollout.scope,
            state=rollout.state.value,
            reason=rollout.reason if caller.all_tenants else None,
            stage=rollout.stage,
            stable=_text(rollout.stable),
            candidate=_text(rollout.candidate),
            nodes=tuple(node for node in rollout.nodes if caller.all_tenants or node in seen),
            started_at=rollout.started_at,
            stage_since=rollout.stage_since,
        )


class ProposalView(msgspec.Struct, frozen=True, kw_only=True):
    """One proposal, without its rules."""

    id: str
    scope: str
    state: str
    author: str
    message: str
    created_at: datetime
    base: str
    decided_by: str
    decided_at: datetime | None

    @classmethod
    def of(cls, proposal: Proposal) -> Self:
        """Cross to the wire."""
        return cls(
            id=proposal.id,
            scope=proposal.rules.scope,
            state=proposal.state.value,
            author=proposal.author,
            message=proposal.message,
            created_at=proposal.created_at,
            base=_text(proposal.base),
            decided_by=proposal.decided_by,
            decided_at=proposal.decided_at,
        )


class ProposalList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/policy/proposals`."""

    rows: tuple[ProposalView, ...]


def is_seen(node: NodeState, caller: Principal) -> bool:
    """Whether a node acts for tenants of the caller's alone."""
    tenants = node.report.tenants
    return caller.all_tenants or (bool(tenants) and all(map(caller.may_see, tenants or ())))


def pair_of(name: str, text: str) -> Generation:
    """Read `epoch.gen`.

    Raises:
        InvalidInputError: it is not that.
    """
    found = _PAIR.fullmatch(text)
    if found is None:
        raise InvalidInputError(name, f"{text[:64]!r} is no generation", "Write it like 1.42")
    return Generation(int(found[1]), int(found[2]))


def _text(generation: Generation) -> str:
    return generation.etag().strip('"')


def _is_forged(node: NodeState, expected: SignedGeneration | None) -> bool:
    """Whether a node runs other content under the pair that we published (D2)."""
    said = node.report
    return (
        expected is not None
        and said.applied == expected.generation
        and said.applied_sha256 is not None
        and said.applied_sha256 != expected.sha256
    )


def _standing(node: NodeState, expected: SignedGeneration | None, now: datetime) -> NodeStanding:
    silent = now - node.seen_at
    if silent > STALE_AFTER:
        return NodeStanding.GONE if silent > GONE_AFTER else NodeStanding.STALE
    current = expected.generation if expected else None
    if node.report.nack is not None and node.report.nack.generation == current:
        return NodeStanding.REJECTED
    is_applied = node.report.applied == current
    return NodeStanding.APPLIED if is_applied else NodeStanding.PENDING
