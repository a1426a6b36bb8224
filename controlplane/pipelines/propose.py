"""Change a policy as people do: plan it, propose it, have somebody else agree, publish it."""

import difflib
from datetime import datetime
from typing import Final

import msgspec

from controlplane.core.errors import ConflictError, ForbiddenError, NotFoundError
from controlplane.core.ids import IdFactory
from controlplane.pipelines.authoring import write_text
from controlplane.pipelines.publish import (
    PublishTools,
    carry_canaries,
    compile_document,
    publish,
    to_nodes,
)
from controlplane.policy.bundle import encode_document
from controlplane.policy.document import Canary
from controlplane.policy.history import (
    Cause,
    Change,
    PolicyStore,
    Proposal,
    ProposalState,
    SignedGeneration,
)
from controlplane.policy.rollout import active
from controlplane.policy.rules import PolicyRules
from controlplane.policy.wire import Generation

NO_GENERATION = Generation(0, 0)
MAX_LOOKED_AT: Final = 500
"""Generations since a proposal that are read to find whether its rules are still those it saw."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What applying rules would do."""

    scope: str
    in_force: str | None
    """`epoch.gen`, None when nothing was published."""
    has_changes: bool
    diff: str
    """Unified diff of the rules as YAML, in force against proposed."""
    document_bytes: int
    capabilities_required: tuple[str, ...]
    nodes: int
    unable: tuple[str, ...]
    """Nodes that said they lack a capability: they would refuse it."""


def plan(rules: PolicyRules, now: datetime, *, tools: PublishTools) -> Plan:
    """Say what would change; keeps nothing.

    Raises:
        PolicyError: it does not compile; names the field and the fix.
    """
    scope = rules.scope
    newest = tools.policies.newest(scope)
    before = tools.policies.rules(scope)
    wanted = carry_canaries(rules, before)
    document = compile_document(wanted, now, tools=tools)
    difference = diff_rules(before, wanted) if newest else diff_rules(None, wanted)
    states = tools.policies.nodes(scope)
    nodes = states
    if tools.terms is not None:
        here = {node.node for node in active(to_nodes(states), tools.terms, now)}
        nodes = [state for state in states if state.report.node in here]
    needed = set(document.capabilities_required)
    return Plan(
        scope=scope,
        in_force=newest.generation.etag().strip('"') if newest else None,
        has_changes=bool(difference) or newest is None,
        diff=difference,
        document_bytes=len(encode_document(document)),
        capabilities_required=document.capabilities_required,
        nodes=len(nodes),
        unable=tuple(
            state.report.node
            for state in nodes
            if state.report.capabilities and needed - set(state.report.capabilities)
        ),
    )


def diff_rules(
    before: PolicyRules | None, after: PolicyRules, *, names: tuple[str, str] = ("in force", "new")
) -> str:
    """Return the unified diff of two sets of rules as they are written; empty when they agree."""
    left = write_text(_as_authored(before)).splitlines(keepends=True) if before else []
    right = write_text(_as_authored(after)).splitlines(keepends=True)
    return "".join(difflib.unified_diff(left, right, *names))


def propose(
    rules: PolicyRules, now: datetime, *, tools: PublishTools, ids: IdFactory, change: Change
) -> Proposal:
    """Keep rules for somebody else to agree to.

    Raises:
        PolicyError: they do not compile.
    """
    compile_document(rules, now, tools=tools)
    newest = tools.policies.newest(rules.scope)
    proposal = Proposal(
        id=ids.new("proposal"),
        rules=rules,
        author=change.author,
        author_id=change.author_id,
        message=change.message,
        created_at=now,
        base=newest.generation if newest else NO_GENERATION,
    )
    tools.policies.propose(proposal)
    return proposal


def approve(
    proposal_id: str, now: datetime, *, tools: PublishTools, by: Change, break_glass: str = ""
) -> SignedGeneration:
    """Publish a proposal in its author's name.

    Args:
        proposal_id: of an open proposal.
        now: aware UTC.
        tools: as for `publish`.
        by: who approves.
        break_glass: why nobody else could be asked; the author may then approve, and the
            generation says so for ever.

    Raises:
        NotFoundError: there is none of that id.
        ForbiddenError: its author can not approve it.
        ConflictError: it was decided before, or other rules were published since it was written.
        PolicyError: it no longer compiles.
    """
    proposal = _open(proposal_id, tools.policies)
    if proposal.author_id == by.author_id and not break_glass:
        raise ForbiddenError("another author: nobody approves what they proposed")
    _refuse_when_overtaken(proposal, tools.policies)
    decided = msgspec.structs.replace(
        proposal, state=ProposalState.APPROVED, decided_by=by.author, decided_at=now
    )
    tools.policies.decide(decided)
    how = (
        f"glass broken by {by.author}: {break_glass}" if break_glass else f"approved by {by.author}"
    )
    message = f"{proposal.message} ({how})".strip()
    change = Change(
        author=proposal.author,
        author_id=proposal.author_id,
        message=message,
        cause=Cause.RULES,
    )
    return publish(proposal.rules.scope, now, tools=tools, rules=proposal.rules, change=change)


def reject(proposal_id: str, now: datetime, *, policies: PolicyStore, by: Change) -> Proposal:
    """Turn a proposal down; its author may withdraw it so.

    Raises:
        NotFoundError: there is none of that id.
        ConflictError: it was decided before.
    """
    decided = msgspec.structs.replace(
        _open(proposal_id, policies),
        state=ProposalState.REJECTED,
        decided_by=by.author,
        decided_at=now,
    )
    policies.decide(decided)
    return decided


def _open(proposal_id: str, policies: PolicyStore) -> Proposal:
    proposal = policies.proposal(proposal_id)
    if proposal is None:
        raise NotFoundError("proposal", proposal_id)
    if proposal.state is not ProposalState.OPEN:
        raise ConflictError(f"proposal {proposal_id!r} was {proposal.state.value} before")
    return proposal


def _refuse_when_overtaken(proposal: Proposal, policies: PolicyStore) -> None:
    """Refuse to undo rules that its author never saw; other budgets and windows do no harm."""
    newest = policies.history(proposal.rules.scope, limit=MAX_LOOKED_AT)
    for each in newest:
        if each.generation <= proposal.base:
            return
        if each.change.cause in {Cause.RULES, Cause.ROLLBACK, Cause.REVERT}:
            raise ConflictError(
                f"{each.generation.etag()} of {each.change.author or 'somebody'} was published "
                "after this was proposed. Propose it again"
            )
    if len(newest) == MAX_LOOKED_AT:
        raise ConflictError(
            f"{MAX_LOOKED_AT} generations were published after this was proposed. Propose it again"
        )


def _as_authored(rules: PolicyRules) -> PolicyRules:
    """Leave out what the server keeps in the rules."""
    return msgspec.structs.replace(
        rules,
        rules=tuple(
            msgspec.structs.replace(rule, share_percent=None) if isinstance(rule, Canary) else rule
            for rule in rules.rules
        ),
    )
