"""Authored rules, signed generations, roll-outs, proposals, and what nodes say they run."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, Engine, Row, insert, select, text, update

from controlplane.core.errors import ConflictError
from controlplane.policy.history import (
    Cause,
    Change,
    NodeReport,
    NodeState,
    Proposal,
    ProposalState,
    Serving,
    SignedGeneration,
)
from controlplane.policy.keyset import SignedKeySet
from controlplane.policy.rollout import Rollout, RolloutState
from controlplane.policy.rules import PolicyRules
from controlplane.policy.wire import CallCounts, Generation, Nack
from controlplane.store.metadata.engine import reading, writing
from controlplane.store.metadata.tables import (
    UtcMicros,
    node_state,
    policy_generation,
    policy_key_set,
    policy_proposal,
    policy_rollout,
    policy_rules,
)

NO_GENERATION = Generation(0, 0)
NEW_POLICY_CHANNEL = "controlplane_policy"
"""Postgres tells listeners on it that something was published; a hint, never the truth (D3)."""

_SEE_NODE = text("""
    INSERT INTO node_state
      (scope, node, boot_id, applied_epoch, applied_gen, applied_sha256, nack, capabilities,
       counts, tenants, seen_at)
    VALUES
      (:scope, :node, :boot_id, :applied_epoch, :applied_gen, :applied_sha256, :nack,
       :capabilities, :counts, :tenants, :seen_at)
    ON CONFLICT (scope, node) DO UPDATE SET
      boot_id = excluded.boot_id, applied_epoch = excluded.applied_epoch,
      applied_gen = excluded.applied_gen, applied_sha256 = excluded.applied_sha256,
      nack = excluded.nack, capabilities = excluded.capabilities, counts = excluded.counts,
      tenants = excluded.tenants, seen_at = excluded.seen_at
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
        with reading(self._engine) as connection:
            return _history(connection, scope, limit=limit)

    def generation(self, scope: str, generation: Generation) -> SignedGeneration | None:
        """Return one generation of a scope; None when there is none of that pair."""
        with reading(self._engine) as connection:
            return _generation(connection, scope, generation)

    def add(
        self,
        *signed: SignedGeneration,
        rules: PolicyRules | None = None,
        rollout: Rollout | None = None,
    ) -> None:
        """Keep generations, and with them the scope's rules and roll-out.

        Raises:
            ConflictError: a pair is taken, or the roll-out has moved; nothing was kept.
        """
        with writing(self._engine) as connection:
            for each in signed:
                connection.execute(insert(policy_generation), _to_row(each))
            if rules is not None:
                connection.execute(_SAVE_RULES, _rules_row(rules, signed[-1].issued_at))
            if rollout is not None:
                _save_rollout(connection, rollout)
            if connection.dialect.name == "postgresql":
                connection.execute(
                    text("SELECT pg_notify(:channel, :scope)"),
                    {"channel": NEW_POLICY_CHANNEL, "scope": signed[-1].scope},
                )

    def serving(self, scope: str) -> Serving | None:
        """Return what a scope's nodes are to run; None when it never had a generation."""
        with reading(self._engine) as connection:
            rollout = _rollout(connection, scope)
            if rollout is not None and rollout.state is RolloutState.ROLLING:
                stable = _generation(connection, scope, rollout.stable)
                candidate = _generation(connection, scope, rollout.candidate)
                if stable is not None and candidate is not None:
                    return Serving(stable, candidate, frozenset(rollout.nodes))
            newest = _history(connection, scope, limit=1)
        return Serving(newest[0]) if newest else None

    def rollout(self, scope: str) -> Rollout | None:
        """Return the last roll-out of a scope, ended or not."""
        with reading(self._engine) as connection:
            return _rollout(connection, scope)

    def save_rollout(self, rollout: Rollout) -> None:
        """Keep the next version of a roll-out.

        Raises:
            ConflictError: somebody else moved it first; nothing was kept.
        """
        with writing(self._engine) as connection:
            _save_rollout(connection, rollout)

    def add_key_set(self, signed: SignedKeySet) -> None:
        """Keep a set of policy keys.

        Raises:
            ConflictError: its version is taken.
        """
        row = {"version": signed.version, "body": signed.body, "signature": signed.signature}
        with writing(self._engine) as connection:
            connection.execute(insert(policy_key_set), row)

    def key_set(self) -> SignedKeySet | None:
        """Return the newest set of policy keys; None when no root key is in use."""
        query = select(policy_key_set).order_by(policy_key_set.c.version.desc()).limit(1)
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        return SignedKeySet(row.version, row.body, row.signature) if row else None

    def propose(self, proposal: Proposal) -> None:
        """Keep a proposal.

        Raises:
            ConflictError: its id is taken.
        """
        with writing(self._engine) as connection:
            connection.execute(
                insert(policy_proposal),
                {
                    "id": proposal.id,
                    "scope": proposal.rules.scope,
                    "state": proposal.state.value,
                    "created_at": proposal.created_at,
                    "body": msgspec.json.encode(proposal).decode(),
                },
            )

    def proposals(self, scope: str, *, limit: int) -> Sequence[Proposal]:
        """Return the proposals of a scope, newest first."""
        table = policy_proposal.c
        query = (
            select(table.body)
            .where(table.scope == scope)
            .order_by(table.created_at.desc(), table.id.desc())
            .limit(limit)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        return [msgspec.json.decode(row.body, type=Proposal) for row in rows]

    def proposal(self, proposal_id: str) -> Proposal | None:
        """Return one proposal."""
        query = select(policy_proposal.c.body).where(policy_proposal.c.id == proposal_id)
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        return msgspec.json.decode(row.body, type=Proposal) if row else None

    def decide(self, proposal: Proposal) -> None:
        """Keep what was decided of an open proposal.

        Raises:
            ConflictError: it was decided before.
        """
        table = policy_proposal.c
        with writing(self._engine) as connection:
            done = connection.execute(
                update(policy_proposal)
                .where(table.id == proposal.id, table.state == ProposalState.OPEN.value)
                .values(state=proposal.state.value, body=msgspec.json.encode(proposal).decode())
            )
            if done.rowcount != 1:
                raise ConflictError(f"proposal {proposal.id!r} was decided before")

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
            "applied_sha256": report.applied_sha256,
            "nack": msgspec.json.encode(report.nack).decode() if report.nack else None,
            "capabilities": msgspec.json.encode(report.capabilities).decode(),
            "counts": msgspec.json.encode(report.counts).decode(),
            "tenants": None
            if report.tenants is None
            else msgspec.json.encode(report.tenants).decode(),
            "seen_at": UtcMicros.to_micros(now),
        },
    )


def _history(connection: Connection, scope: str, *, limit: int) -> list[SignedGeneration]:
    table = policy_generation.c
    query = (
        select(policy_generation)
        .where(table.scope == scope)
        .order_by(table.epoch.desc(), table.gen.desc())
        .limit(limit)
    )
    return [_to_generation(row) for row in connection.execute(query)]


def _generation(
    connection: Connection, scope: str, generation: Generation
) -> SignedGeneration | None:
    table = policy_generation.c
    row = connection.execute(
        select(policy_generation).where(
            table.scope == scope, table.epoch == generation.epoch, table.gen == generation.gen
        )
    ).first()
    return _to_generation(row) if row else None


def _rollout(connection: Connection, scope: str) -> Rollout | None:
    row = connection.execute(
        select(policy_rollout.c.body).where(policy_rollout.c.scope == scope)
    ).first()
    return msgspec.json.decode(row.body, type=Rollout) if row else None


def _save_rollout(connection: Connection, rollout: Rollout) -> None:
    """Write the next version over the one before it, or the first of a new roll-out over any end."""
    table = policy_rollout.c
    values = {
        "state": rollout.state.value,
        "version": rollout.version,
        "body": msgspec.json.encode(rollout).decode(),
    }
    done = connection.execute(
        update(policy_rollout)
        .where(table.scope == rollout.scope, table.version == rollout.version - 1)
        .values(**values)
    )
    if done.rowcount == 1:
        return
    known = connection.execute(select(table.version).where(table.scope == rollout.scope)).first()
    if known is not None:
        raise ConflictError("the roll-out has moved meanwhile")
    connection.execute(insert(policy_rollout), {"scope": rollout.scope, **values})


def _rules_row(rules: PolicyRules, now: datetime) -> dict[str, object]:
    return {
        "scope": rules.scope,
        "body": msgspec.json.encode(rules).decode(),
        "changed_at": UtcMicros.to_micros(now),
    }


def _to_row(signed: SignedGeneration) -> dict[str, object]:
    return {
        "scope": signed.scope,
        "epoch": signed.generation.epoch,
        "gen": signed.generation.gen,
        "body": signed.body,
        "signature": signed.signature,
        "sha256": signed.sha256,
        "issued_at": signed.issued_at,
        "author": signed.change.author,
        "author_id": signed.change.author_id,
        "message": signed.change.message,
        "cause": signed.change.cause.value,
        "rules": msgspec.json.encode(signed.rules).decode() if signed.rules else None,
    }


def _to_generation(row: Row[tuple[object, ...]]) -> SignedGeneration:
    return SignedGeneration(
        scope=row.scope,
        generation=Generation(row.epoch, row.gen),
        body=row.body,
        signature=row.signature,
        sha256=row.sha256,
        issued_at=row.issued_at,
        change=Change(
            author=row.author, author_id=row.author_id, message=row.message, cause=Cause(row.cause)
        ),
        rules=msgspec.json.decode(row.rules, type=PolicyRules) if row.rules else None,
    )


def _to_node(row: Row[tuple[object, ...]]) -> NodeState:
    is_applied = row.applied_epoch is not None
    report = NodeReport(
        scope=row.scope,
        node=row.node,
        boot_id=row.boot_id,
        applied=Generation(row.applied_epoch, row.applied_gen) if is_applied else None,
        applied_sha256=row.applied_sha256,
        nack=msgspec.json.decode(row.nack, type=Nack) if row.nack else None,
        capabilities=msgspec.json.decode(row.capabilities, type=tuple[str, ...]),
        counts=msgspec.json.decode(row.counts, type=CallCounts),
        tenants=msgspec.json.decode(row.tenants, type=tuple[str, ...]) if row.tenants else None,
    )
    return NodeState(report, row.seen_at)
