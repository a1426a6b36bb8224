"""Move roll-outs on: look at the nodes, take the next stage, end it, or go back by itself."""

from datetime import datetime

import msgspec

from controlplane.core.errors import NotFoundError, PolicyError
from controlplane.pipelines.publish import PublishTools, publish, revert, to_nodes
from controlplane.policy.history import Cause, Change, SignedGeneration
from controlplane.policy.rollout import Rollout, RolloutState, RolloutTerms, step
from controlplane.policy.wire import Generation

BY_ITSELF = Change(author="roll-out", cause=Cause.REVERT)


def rollout_tick(now: datetime, *, tools: PublishTools) -> list[Rollout]:
    """Look at every rolling scope once; returns the roll-outs that moved.

    Safe with several workers: each step is kept only over the version it was made from.

    Raises:
        ConflictError: another worker was faster.
        PolicyError: what is to be reverted to no longer compiles.
        UnavailableError: try again.
    """
    terms = tools.terms or RolloutTerms()
    moved = []
    for scope in tools.policies.scopes():
        rollout = _rolling(scope, tools)
        if rollout is None:
            continue
        after = step(rollout, to_nodes(tools.policies.nodes(scope)), terms=terms, now=now)
        if after == rollout:
            continue
        if after.state is RolloutState.REVERTED:
            change = msgspec.structs.replace(BY_ITSELF, message=after.reason)
            revert(after, now, tools=tools, change=change)
        else:
            tools.policies.save_rollout(after)
        moved.append(after)
    return moved


def halt(scope: str, now: datetime, *, tools: PublishTools, change: Change) -> SignedGeneration:
    """End a roll-out by going back.

    Raises:
        NotFoundError: none is under way.
        ConflictError: it has moved meanwhile.
    """
    rollout = _required(scope, tools)
    reason = f"halted by {change.author}" + (f": {change.message}" if change.message else "")
    return revert(_ended(rollout, RolloutState.REVERTED, reason), now, tools=tools, change=change)


def promote(scope: str, *, tools: PublishTools, change: Change) -> Rollout:
    """End a roll-out by giving everybody the candidate, whatever was seen so far.

    Raises:
        NotFoundError: none is under way.
        ConflictError: it has moved meanwhile.
    """
    ended = _ended(
        _required(scope, tools),
        RolloutState.PROMOTED_WITHOUT_PROOF,
        f"promoted by {change.author}",
    )
    tools.policies.save_rollout(ended)
    return ended


def roll_back(
    scope: str, to: Generation, now: datetime, *, tools: PublishTools, change: Change
) -> SignedGeneration:
    """Publish the rules of an old generation under a new, higher one, to all at once (D2).

    Budgets and prices stay those of today.

    Raises:
        NotFoundError: there is no such generation.
        PolicyError: its rules were not kept, or no longer compile.
        ConflictError: somebody published meanwhile.
    """
    found = tools.policies.generation(scope, to)
    if found is None:
        raise NotFoundError("generation", f"{to.epoch}.{to.gen}")
    if found.rules is None:
        raise PolicyError("to", f"the rules of {to.epoch}.{to.gen} were not kept", "Apply a file")
    message = change.message or f"back to {to.epoch}.{to.gen}"
    told = msgspec.structs.replace(change, cause=Cause.ROLLBACK, message=message)
    return publish(scope, now, tools=tools, rules=found.rules, change=told, at_once=True)


def _rolling(scope: str, tools: PublishTools) -> Rollout | None:
    rollout = tools.policies.rollout(scope)
    return rollout if rollout and rollout.state is RolloutState.ROLLING else None


def _required(scope: str, tools: PublishTools) -> Rollout:
    rollout = _rolling(scope, tools)
    if rollout is None:
        raise NotFoundError("roll-out under way in the scope", scope)
    return rollout


def _ended(rollout: Rollout, state: RolloutState, reason: str) -> Rollout:
    return msgspec.structs.replace(rollout, state=state, reason=reason, version=rollout.version + 1)
