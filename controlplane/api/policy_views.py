"""Generations and nodes as the API shows them."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

import msgspec

from controlplane.policy.bundle import decode_document
from controlplane.policy.history import NodeState, SignedGeneration
from controlplane.policy.wire import Generation

STALE_AFTER: Final = timedelta(seconds=30)
"""A node syncs every few seconds; after this silence what it runs is not known any more."""


class GenerationView(msgspec.Struct, frozen=True, kw_only=True):
    """One published generation, without its content, which speaks of every tenant."""

    scope: str
    epoch: int
    gen: int
    etag: str
    sha256: str
    issued_at: datetime
    budgets: int
    rules: int
    price_book_version: str

    @classmethod
    def of(cls, signed: SignedGeneration) -> Self:
        """Cross to the wire."""
        document = decode_document(signed.body)
        return cls(
            scope=signed.scope,
            epoch=signed.generation.epoch,
            gen=signed.generation.gen,
            etag=signed.generation.etag(),
            sha256=signed.sha256,
            issued_at=signed.issued_at,
            budgets=len(document.budgets),
            rules=len(document.rules),
            price_book_version=document.price_book_version,
        )


class GenerationList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/policy/generations`."""

    rows: tuple[GenerationView, ...]


class NodeStanding(StrEnum):
    """A node against the newest generation, by the server's clock."""

    APPLIED = "applied"
    PENDING = "pending"
    REJECTED = "rejected"
    STALE = "stale"


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """What a node said last."""

    scope: str
    node: str
    boot_id: str
    state: NodeStanding
    applied: Generation | None
    rejected: Generation | None
    reason: str | None
    capabilities: tuple[str, ...]
    seen_at: datetime

    @classmethod
    def of(cls, node: NodeState, newest: SignedGeneration | None, *, now: datetime) -> Self:
        """Cross to the wire."""
        said = node.report
        return cls(
            scope=said.scope,
            node=said.node,
            boot_id=said.boot_id,
            state=_standing(node, newest, now),
            applied=said.applied,
            rejected=said.nack.generation if said.nack else None,
            reason=said.nack.reason if said.nack else None,
            capabilities=said.capabilities,
            seen_at=node.seen_at,
        )


class NodeList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/policy/nodes`."""

    rows: tuple[NodeView, ...]


def _standing(node: NodeState, newest: SignedGeneration | None, now: datetime) -> NodeStanding:
    if now - node.seen_at > STALE_AFTER:
        return NodeStanding.STALE
    current = newest.generation if newest else None
    if node.report.nack is not None and node.report.nack.generation == current:
        return NodeStanding.REJECTED
    is_applied = node.report.applied == current
    return NodeStanding.APPLIED if is_applied else NodeStanding.PENDING
