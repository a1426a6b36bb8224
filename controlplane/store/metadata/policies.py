"""Authored rules, signed generations, and what nodes say they run."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, Engine, Row, insert, select, text

from controlplane.policy.history import NodeReport, NodeState, SignedGeneration
from controlplane.policy.rules import PolicyRules
from controlplane.policy.wire import Generation, Nack
from controlplane.store.metadata.engine import reading, writing
from controlplane.store.metadata.tables import (
    UtcMicros,
    node_state,
    policy_generation,
    policy_rules,
)

NO_GENERATION = Generation(0, 0)

_SEE_NODE = text("""
    INSERT INTO node_state
      (scope, node, boot_id, applied_epoch, applied_gen, nack, capabilities, seen_at)
    VALUES
      (:scope, :node, :boot_id, :applied_epoch, :applied_gen, :nack, :capabilities, :seen_at)
    ON CONFLICT (scope, node) DO UPDATE SET
      boot_id = excluded.boot_id, applied_epoch = excluded.applied_epoch,
      applied_gen = excluded.applied_gen, nack = excluded.nack,
      capabilities = excluded.capabilities, seen_at = excluded.seen_at
""")
_SAVE_RULES = text("""
    INSERT INTO policy_rules (scope, body, changed_at) VALUES (:scope, :body, :changed_at)
    ON CONFLICT (scope) DO UPDATE SET body = excluded.body, changed_at = excluded.changed_at
""")


class PolicyRepository:
    """Implements `policy.history.PolicyStore`; safe for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def rules(self, scope: str) -> PolicyRules:
        """Return the rules of a scope; empty ones when nobody wrote any."""
        query = select(policy_rules.c.body).where(policy_rules.c.scope == scope)
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        return msgspec.json.decode(row.body, type=PolicyRules) if row else PolicyRules(scope=scope)

    def save_rules(self, rules: PolicyRules, *, now: datetime) -> None:
        """Replace the rules of their scope."""
        with writing(self._engine) as connection:
            connection.execute(_SAVE_RULES, _rules_row(rules, now))

    def scopes(self) -> list[str]:
        """Return the scopes that have rules or a generation."""
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(policy_rules.c.scope).union(select(policy_generation.c.scope))
            )
            return sorted(scope for (scope,) in rows)

    def newest(self, scope: str) -> SignedGeneration | None:
        """Return the newest generation of a scope; None when it never had one."""
        found = self.history(scope, limit=1)
        return found[0] if found else None

    def history(self, scope: str, *, limit: int) -> Sequence[SignedGeneration]:
        """Return the generations of a scope, newest first."""
        table = policy_generation.c
        query = (
            select(policy_generation)
            .where(table.scope == scope)
            .order_by(table.epoch.desc(), table.gen.desc())
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [_to_generation(row) for row in connection.execute(query)]

    def add(self, signed: SignedGeneration, *, rules: PolicyRules | None = None) -> None:
        """Keep a generation, and with it the rules it was made of.

        Raises:
            ConflictError: the pair is taken: somebody else has published meanwhile; nothing was
                kept.
        """
        row = {
            "scope": signed.scope,
            "epoch": signed.generation.epoch,
            "gen": signed.generation.gen,
            "body": signed.body,
            "signature": signed.signature,
            "sha256": signed.sha256,
            "issued_at": signed.issued_at,
        }
        with writing(self._engine) as connection:
            connection.execute(insert(policy_generation), row)
            if rules is not None:
                connection.execute(_SAVE_RULES, _rules_row(rules, signed.issued_at))

    def nodes(self, scope: str | None = None) -> list[NodeState]:
        """Return what each node said last, of one scope or all."""
        query = select(node_state).order_by(node_state.c.scope, node_state.c.node)
        if scope is not None:
            query = query.where(node_state.c.scope == scope)
        with reading(self._engine) as connection:
            return [_to_node(row) for row in connection.execute(query)]


def newest_generation(connection: Connection, scope: str) -> Generation:
    """Return the newest generation of a scope; (0, 0) when it has none."""
    table = policy_generation.c
    row = connection.execute(
        select(table.epoch, table.gen)
        .where(table.scope == scope)
        .order_by(table.epoch.desc(), table.gen.desc())
        .limit(1)
    ).first()
    return Generation(row.epoch, row.gen) if row else NO_GENERATION


def write_node(connection: Connection, report: NodeReport, *, now: datetime) -> None:
    """Note what a node says; one row per node of a scope, the newest word."""
    applied = report.applied
    connection.execute(
        _SEE_NODE,
        {
            "scope": report.scope,
            "node": report.node,
            "boot_id": report.boot_id,
            "applied_epoch": applied.epoch if applied else None,
            "applied_gen": applied.gen if applied else None,
            "nack": msgspec.json.encode(report.nack).decode() if report.nack else None,
            "capabilities": msgspec.json.encode(report.capabilities).decode(),
            "seen_at": UtcMicros.to_micros(now),
        },
    )


def _rules_row(rules: PolicyRules, now: datetime) -> dict[str, object]:
    return {
        "scope": rules.scope,
        "body": msgspec.json.encode(rules).decode(),
        "changed_at": UtcMicros.to_micros(now),
    }


def _to_generation(row: Row[tuple[object, ...]]) -> SignedGeneration:
    return SignedGeneration(
        scope=row.scope,
        generation=Generation(row.epoch, row.gen),
        body=row.body,
        signature=row.signature,
        sha256=row.sha256,
        issued_at=row.issued_at,
    )


def _to_node(row: Row[tuple[object, ...]]) -> NodeState:
    is_applied = row.applied_epoch is not None
    report = NodeReport(
        scope=row.scope,
        node=row.node,
        boot_id=row.boot_id,
        applied=Generation(row.applied_epoch, row.applied_gen) if is_applied else None,
        nack=msgspec.json.decode(row.nack, type=Nack) if row.nack else None,
        capabilities=msgspec.json.decode(row.capabilities, type=tuple[str, ...]),
    )
    return NodeState(report, row.seen_at)
