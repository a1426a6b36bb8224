"""Staged roll-out: one node, a tenth, all; on the first bad sign back to what was in force (D4).

Pure: told what the nodes said, it answers what to do next. A node that was once chosen stays
chosen, because it can not be given the older document again.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec

from controlplane.policy.wire import CallCounts, Generation, Nack

FEW_NODES: Final = 10
"""Below this a tenth is no stage of its own: one, then all."""
STAGE_SHARE: Final = 10
MAX_NACK_SHARE: Final = 100
"""More than one in a hundred of the chosen nodes refusing halts."""


class RolloutState(StrEnum):
    """How far a roll-out is, or how it ended."""

    ROLLING = "rolling"
    COMPLETE = "complete"
    PROMOTED_WITHOUT_PROOF = "promoted_without_proof"
    """Everybody has it, but some stage ran out of time before it had seen enough calls."""
    REVERTED = "reverted"
    SUPERSEDED = "superseded"
    """An emergency went to all nodes meanwhile."""


class RolloutTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How careful to be."""

    stage_seconds: float = 30.0
    """Least time in a stage."""
    stage_max_seconds: float = 300.0
    """Time after which a stage is left without enough calls, or given up without its nodes."""
    min_calls: int = 20
    """Calls that the chosen nodes must have admitted or refused in a stage."""
    gone_seconds: float = 300.0
    """A node silent for longer counts no more."""
    max_more_errors: float = 0.05
    """How much higher the error ratio of the chosen may be than that of the others."""
    max_more_refusals: float = 0.2
    """Likewise of refused calls."""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One scope's roll-out; `version` grows with every change, so that two workers do not collide."""

    scope: str
    stable: Generation
    candidate: Generation
    nodes: tuple[str, ...]
    """Who gets the candidate."""
    stage: int = 0
    state: RolloutState = RolloutState.ROLLING
    reason: str = ""
    is_proven: bool = True
    started_at: datetime
    stage_since: datetime
    counted: dict[str, CallCounts] = {}
    """What each node had counted when the stage began."""
    version: int = 0


class NodeNow(msgspec.Struct, frozen=True, kw_only=True):
    """A node as the server knows it."""

    node: str
    seen_at: datetime
    applied: Generation | None = None
    nack: Nack | None = None
    counts: CallCounts = CallCounts()


def active(nodes: Iterable[NodeNow], terms: RolloutTerms, now: datetime) -> list[NodeNow]:
    """Return the nodes that are not gone."""
    silent_since = now - timedelta(seconds=terms.gone_seconds)
    return [node for node in nodes if node.seen_at > silent_since]


def begin(
    scope: str,
    stable: Generation,
    candidate: Generation,
    *,
    nodes: Sequence[NodeNow],
    now: datetime,
) -> Rollout:
    """Start with the first stage.

    Args:
        scope: whose.
        stable: what is in force.
        candidate: what is to be.
        nodes: the active ones, at least one.
        now: aware UTC.
    """
    return Rollout(
        scope=scope,
        stable=stable,
        candidate=candidate,
        nodes=_chosen((), nodes, 1, salt=f"{scope}{candidate.etag()}"),
        started_at=now,
        stage_since=now,
        counted={node.node: node.counts for node in nodes},
    )


def step(
    rollout: Rollout, nodes: Sequence[NodeNow], *, terms: RolloutTerms, now: datetime
) -> Rollout:
    """Return the roll-out after looking at the nodes; the same when there is nothing to do.

    Args:
        rollout: a rolling one.
        nodes: all of the scope.
        terms: how careful to be.
        now: aware UTC.
    """
    here = active(nodes, terms, now)
    chosen = [node for node in here if node.node in rollout.nodes]
    trouble = _trouble(rollout, chosen=chosen, here=here, terms=terms)
    if trouble:
        return _ended(rollout, RolloutState.REVERTED, trouble)
    passed = (now - rollout.stage_since).total_seconds()
    waiting = [node.node for node in chosen if not _has(node, rollout.candidate)]
    if waiting:
        if passed < terms.stage_max_seconds:
            return rollout
        return _ended(
            rollout,
            RolloutState.REVERTED,
            f"node {waiting[0]!r} did not apply it within {terms.stage_max_seconds:g} s",
        )
    if passed < terms.stage_seconds:
        return rollout
    is_proven = _calls(rollout, chosen) >= terms.min_calls
    if not is_proven and passed < terms.stage_max_seconds:
        return rollout
    return _next_stage(rollout, here, is_proven=is_proven, now=now)


def _next_stage(
    rollout: Rollout, here: Sequence[NodeNow], *, is_proven: bool, now: datetime
) -> Rollout:
    so_far = msgspec.structs.replace(rollout, is_proven=rollout.is_proven and is_proven)
    if rollout.stage > 0 or len(here) < FEW_NODES:
        proven = so_far.is_proven
        state = RolloutState.COMPLETE if proven else RolloutState.PROMOTED_WITHOUT_PROOF
        return _ended(so_far, state, "" if proven else "too few calls to tell")
    salt = f"{rollout.scope}{rollout.candidate.etag()}"
    return msgspec.structs.replace(
        so_far,
        stage=rollout.stage + 1,
        nodes=_chosen(rollout.nodes, here, math.ceil(len(here) / STAGE_SHARE), salt=salt),
        stage_since=now,
        counted={node.node: node.counts for node in here},
        version=rollout.version + 1,
    )


def _ended(rollout: Rollout, state: RolloutState, reason: str) -> Rollout:
    return msgspec.structs.replace(rollout, state=state, reason=reason, version=rollout.version + 1)


def _chosen(
    before: tuple[str, ...], nodes: Sequence[NodeNow], size: int, *, salt: str
) -> tuple[str, ...]:
    """Add nodes in an order that differs from one roll-out to the next, until `size` are active."""
    names = {node.node for node in nodes}
    kept = len(names & set(before))
    fresh = sorted(
        names - set(before), key=lambda name: sha256(f"{salt}\0{name}".encode()).digest()
    )
    return (*before, *fresh[: max(0, size - kept)])


def _trouble(
    rollout: Rollout,
    *,
    chosen: Sequence[NodeNow],
    here: Sequence[NodeNow],
    terms: RolloutTerms,
) -> str:
    nacks = [node for node in chosen if node.nack and node.nack.generation == rollout.candidate]
    if len(nacks) * MAX_NACK_SHARE > len(chosen):
        first = nacks[0]
        why = first.nack.reason if first.nack else ""
        return f"{len(nacks)} of {len(chosen)} nodes refused it; {first.node!r}: {why}"
    others = [node for node in here if node.node not in rollout.nodes]
    ours, theirs = _delta(rollout, chosen), _delta(rollout, others)
    calls = ours.admitted + ours.refused
    if calls < terms.min_calls:
        return ""
    more_errors = _ratio(ours.errors, ours.admitted) - _ratio(theirs.errors, theirs.admitted)
    if more_errors > terms.max_more_errors:
        return f"{more_errors:.1%} more calls failed than on the other nodes"
    more_refusals = _ratio(ours.refused, calls) - _ratio(
        theirs.refused, theirs.admitted + theirs.refused
    )
    if more_refusals > terms.max_more_refusals:
        return f"{more_refusals:.1%} more calls were refused than on the other nodes"
    return ""


def _calls(rollout: Rollout, chosen: Sequence[NodeNow]) -> int:
    seen = _delta(rollout, chosen)
    return seen.admitted + seen.refused


def _delta(rollout: Rollout, nodes: Iterable[NodeNow]) -> CallCounts:
    """Return what the nodes have counted in this stage; a restarted node has counted from zero."""
    admitted = refused = errors = 0
    for node in nodes:
        before = _before(rollout.counted, node)
        admitted += node.counts.admitted - before.admitted
        refused += node.counts.refused - before.refused
        errors += node.counts.errors - before.errors
    return CallCounts(admitted=admitted, refused=refused, errors=errors)


def _before(counted: Mapping[str, CallCounts], node: NodeNow) -> CallCounts:
    before = counted.get(node.node, CallCounts())
    now = node.counts
    has_restarted = (
        now.admitted < before.admitted or now.refused < before.refused or now.errors < before.errors
    )
    return CallCounts() if has_restarted else before


def _has(node: NodeNow, candidate: Generation) -> bool:
    return node.applied is not None and node.applied >= candidate


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
