"""Budgets + rules + ceiling prices → compiled → a new generation → signed → kept.

New rules go out in stages when there are nodes to try them on: the chosen run the candidate, the
others stay on the stable line. What is no change of rules (a budget, a price, a window) concerns
all at once, on both lines; the candidate always has the highest pair, so nobody ever goes back.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec

from controlplane.budgets.budget import Budget
from controlplane.budgets.ports import Budgets
from controlplane.core.errors import ConflictError, PolicyError
from controlplane.policy.bundle import Signer, decode_document, encode_document
from controlplane.policy.compile import compile_policy, with_quotas
from controlplane.policy.document import Canary, Deny, PolicyDocument, RatePerMillion, Rule
from controlplane.policy.history import Cause, Change, NodeState, PolicyStore, SignedGeneration
from controlplane.policy.rollout import (
    NodeNow,
    Rollout,
    RolloutState,
    RolloutTerms,
    active,
    begin,
)
from controlplane.policy.rules import PolicyRules
from controlplane.policy.velocity import NoQuotas, QuotaStore
from controlplane.policy.wire import Generation

ENOUGH_NODES: Final = 2
"""With one node a stage would be everything."""
NOBODY: Final = Change()


class RateCard(msgspec.Struct, frozen=True):
    """Ceiling rates by model name, and the price book they are from."""

    rates: Mapping[str, RatePerMillion]
    price_book_version: str
    provider_ceilings: Mapping[str, RatePerMillion] = {}


class PublishTools(msgspec.Struct, frozen=True, kw_only=True):
    """What publishing needs beside the rules; the same for every scope."""

    policies: PolicyStore
    budgets: Budgets
    rate_card: Callable[[datetime], RateCard]
    signer: Signer
    terms: RolloutTerms | None = None
    """How new rules are rolled out; None: to all at once."""
    quotas: QuotaStore = NoQuotas()
    """What began by itself: like budgets, on both lines of a roll-out and after a rollback."""


def publish(
    scope: str,
    now: datetime,
    *,
    tools: PublishTools,
    rules: PolicyRules | None = None,
    change: Change = NOBODY,
    at_once: bool = False,
) -> SignedGeneration:
    """Publish a scope's policy; nothing new in it: return the generation there is.

    Args:
        scope: whose policy.
        now: aware UTC; budgets are published with the windows of this moment.
        tools: stores, prices and the signing key.
        rules: replace the stored rules, once the policy compiles; None keeps them.
        change: who publishes, and what for.
        at_once: to all nodes, without stages; an emergency deny always goes so.

    Raises:
        PolicyError: names the field; nothing was kept.
        ConflictError: somebody published meanwhile, a roll-out is under way, or a node has applied
            more than we know; nothing was kept.
        UnavailableError: nothing was kept.
    """
    if rules is not None and rules.scope != scope:
        raise PolicyError("scope", f"{rules.scope!r} is not {scope!r}", "Publish to its own scope")
    rollout = tools.policies.rollout(scope)
    is_rolling = rollout is not None and rollout.state is RolloutState.ROLLING
    if is_rolling and rollout is not None and rules is None:
        return _publish_both(rollout, now, tools=tools, change=change)
    newest = tools.policies.newest(scope)
    before = newest.rules if newest and newest.rules else tools.policies.rules(scope)
    wanted = carry_canaries(rules, before) if rules is not None else tools.policies.rules(scope)
    document = compile_document(wanted, now, tools=tools)
    if newest is not None and _says_the_same(newest, document):
        if rules is not None:
            tools.policies.save_rules(wanted, now=now)
        return newest
    if rules is not None and change.cause is Cause.BUDGETS:
        change = msgspec.structs.replace(change, cause=Cause.RULES)
    is_emergency = _is_emergency(wanted, before)
    if is_rolling and not (is_emergency or at_once):
        raise ConflictError(f"a roll-out of {scope!r} is under way. Halt it or wait for its end")
    last = newest.generation if newest else Generation(1, 0)
    _refuse_when_behind(tools.policies, scope, last)
    signed = sign_document(document, _after(last), tools.signer, change=change, rules=wanted)
    next_rollout = _stages(signed, newest, rollout, tools=tools, now=now)
    if rules is None or at_once or is_emergency or next_rollout is None:
        next_rollout = _superseded(rollout) if is_rolling else None
    tools.policies.add(signed, rules=wanted if rules is not None else None, rollout=next_rollout)
    return signed


def republish_due(now: datetime, *, tools: PublishTools) -> list[SignedGeneration]:
    """Publish again where time has changed what is said; call it every minute.

    A window rolls over, an increase ends, or a price that is announced comes within the time that
    ceilings cover (L4): agents must hold at the dearer one before it takes effect.

    Raises:
        PolicyError: a stored policy no longer compiles.
        UnavailableError: try again.
    """
    due = []
    for scope in tools.policies.scopes():
        newest = tools.policies.newest(scope)
        if newest is None:
            continue
        rules = newest.rules or tools.policies.rules(scope)
        if not _says_the_same(newest, compile_document(rules, now, tools=tools)):
            due.append(publish(scope, now, tools=tools))
    return due


def bump_epoch(
    scope: str, now: datetime, *, tools: PublishTools, change: Change = NOBODY
) -> SignedGeneration:
    """Publish as the first generation of an epoch above every one a node has applied (D2).

    Raises:
        PolicyError: nothing was ever published there.
    """
    newest = tools.policies.newest(scope)
    if newest is None:
        raise PolicyError("scope", f"{scope!r} has no generation", "Publish first")
    applied = [node.report.applied for node in tools.policies.nodes(scope)]
    epochs = [newest.generation.epoch, *(one.epoch for one in applied if one)]
    document = msgspec.structs.replace(decode_document(newest.body), issued_at=now)
    signed = sign_document(
        document,
        Generation(max(epochs) + 1, 1),
        tools.signer,
        change=msgspec.structs.replace(change, cause=Cause.EPOCH),
        rules=newest.rules,
    )
    rollout = tools.policies.rollout(scope)
    is_rolling = rollout is not None and rollout.state is RolloutState.ROLLING
    tools.policies.add(signed, rollout=_superseded(rollout) if is_rolling else None)
    return signed


def revert(
    rollout: Rollout, now: datetime, *, tools: PublishTools, change: Change = NOBODY
) -> SignedGeneration:
    """Give everybody the stable rules again, as a generation above both lines (D2).

    Args:
        rollout: the roll-out as it ended, one version above what is stored.
        now: aware UTC.
        tools: as for `publish`.
        change: who, and why.

    Raises:
        PolicyError: the old rules no longer compile.
        ConflictError: somebody else was faster.
    """
    newest, rules = _lines(rollout, tools)[1], _stable_rules(rollout, tools)
    signed = sign_document(
        compile_document(rules, now, tools=tools),
        _after(newest.generation),
        tools.signer,
        change=msgspec.structs.replace(change, cause=Cause.REVERT),
        rules=rules,
    )
    tools.policies.add(signed, rules=rules, rollout=rollout)
    return signed


def compile_document(
    rules: PolicyRules,
    now: datetime,
    *,
    tools: PublishTools,
    budgets: Sequence[Budget] | None = None,
) -> PolicyDocument:
    """Compile rules with the budgets and prices of this moment, or with other budgets.

    Raises:
        PolicyError: names the field and the fix.
    """
    card = tools.rate_card(now)
    document = compile_policy(
        rules,
        [budget.clause(now) for budget in (tools.budgets.active() if budgets is None else budgets)],
        rate_card=card.rates,
        provider_ceilings=card.provider_ceilings,
        price_book_version=card.price_book_version,
        issued_at=now,
    )
    return with_quotas(document, rules, tools.quotas.quotas(rules.scope))


def rules_in_use(scope: str, policies: PolicyStore) -> list[PolicyRules]:
    """Return the rules that nodes of a scope run: two while a roll-out is under way."""
    rules = [policies.rules(scope)]
    rollout = policies.rollout(scope)
    if rollout is not None and rollout.state is RolloutState.ROLLING:
        stable = policies.generation(scope, rollout.stable)
        if stable is not None and stable.rules is not None:
            rules.append(stable.rules)
    return rules


def carry_canaries(rules: PolicyRules, before: PolicyRules) -> PolicyRules:
    """Give each canary its share: where it stood if it is the same one, else its first step."""
    known = {rule.id: rule for rule in before.rules if isinstance(rule, Canary)}
    return msgspec.structs.replace(
        rules, rules=tuple(_with_share(rule, known) for rule in rules.rules)
    )


def sign_document(
    document: PolicyDocument,
    generation: Generation,
    signer: Signer,
    *,
    change: Change,
    rules: PolicyRules | None,
) -> SignedGeneration:
    """Number and sign a document."""
    numbered = msgspec.structs.replace(document, epoch=generation.epoch, gen=generation.gen)
    body = encode_document(numbered)
    return SignedGeneration(
        scope=numbered.scope,
        generation=generation,
        body=body,
        signature=signer.sign(body),
        sha256=sha256(body).hexdigest(),
        issued_at=numbered.issued_at,
        change=change,
        rules=rules,
    )


def to_nodes(states: Sequence[NodeState]) -> list[NodeNow]:
    """Return nodes as a roll-out looks at them."""
    return [
        NodeNow(
            node=state.report.node,
            seen_at=state.seen_at,
            applied=state.report.applied,
            nack=state.report.nack,
            counts=state.report.counts,
        )
        for state in states
    ]


def _publish_both(
    rollout: Rollout, now: datetime, *, tools: PublishTools, change: Change
) -> SignedGeneration:
    """Publish what concerns all on both lines of a roll-out; the candidate stays the newest."""
    stable, candidate = _lines(rollout, tools)
    rules = (_stable_rules(rollout, tools), tools.policies.rules(rollout.scope))
    documents = [compile_document(each, now, tools=tools) for each in rules]
    if _says_the_same(stable, documents[0]) and _says_the_same(candidate, documents[1]):
        return candidate
    _refuse_when_behind(tools.policies, rollout.scope, candidate.generation)
    signed = []
    last = candidate.generation
    for document, authored in zip(documents, rules, strict=True):
        last = _after(last)
        signed.append(sign_document(document, last, tools.signer, change=change, rules=authored))
    moved = msgspec.structs.replace(
        rollout,
        stable=signed[0].generation,
        candidate=signed[1].generation,
        version=rollout.version + 1,
    )
    tools.policies.add(*signed, rollout=moved)
    return signed[1]


def _lines(rollout: Rollout, tools: PublishTools) -> tuple[SignedGeneration, SignedGeneration]:
    stable = tools.policies.generation(rollout.scope, rollout.stable)
    candidate = tools.policies.generation(rollout.scope, rollout.candidate)
    if stable is None or candidate is None:
        raise ConflictError(f"a line of the roll-out of {rollout.scope!r} is not there")
    return stable, candidate


def _stable_rules(rollout: Rollout, tools: PublishTools) -> PolicyRules:
    stable = _lines(rollout, tools)[0]
    if stable.rules is None:
        raise ConflictError(f"the rules of {stable.generation.etag()} were not kept")
    return stable.rules


def _stages(
    signed: SignedGeneration,
    newest: SignedGeneration | None,
    rollout: Rollout | None,
    *,
    tools: PublishTools,
    now: datetime,
) -> Rollout | None:
    """Return the roll-out of a generation; None when there is nothing to try it on."""
    if tools.terms is None or newest is None or newest.rules is None:
        return None
    nodes = active(to_nodes(tools.policies.nodes(signed.scope)), tools.terms, now)
    if len(nodes) < ENOUGH_NODES:
        return None
    begun = begin(signed.scope, newest.generation, signed.generation, nodes=nodes, now=now)
    return msgspec.structs.replace(begun, version=rollout.version + 1 if rollout else 0)


def _superseded(rollout: Rollout | None) -> Rollout | None:
    if rollout is None:
        return None
    return msgspec.structs.replace(
        rollout, state=RolloutState.SUPERSEDED, version=rollout.version + 1
    )


def _with_share(rule: Rule, known: Mapping[str, Canary]) -> Rule:
    if not isinstance(rule, Canary) or rule.share_percent is not None:
        return rule
    before = known.get(rule.id)
    is_same = before is not None and (before.to, before.steps) == (rule.to, rule.steps)
    share = before.share_percent if before is not None and is_same else None
    first = rule.steps[0] if rule.steps else None
    return msgspec.structs.replace(rule, share_percent=first if share is None else share)


def _is_emergency(rules: PolicyRules, before: PolicyRules) -> bool:
    known = set(map(msgspec.json.encode, before.rules))
    return any(
        isinstance(rule, Deny) and rule.emergency and msgspec.json.encode(rule) not in known
        for rule in rules.rules
    )


def _after(last: Generation) -> Generation:
    return Generation(last.epoch, last.gen + 1)


def _says_the_same(newest: SignedGeneration, document: PolicyDocument) -> bool:
    before = decode_document(newest.body)
    same = msgspec.structs.replace(
        document, epoch=before.epoch, gen=before.gen, issued_at=before.issued_at
    )
    return same == before


def _refuse_when_behind(policies: PolicyStore, scope: str, last: Generation) -> None:
    """A node that is ahead of us was fed by a later state of this database than we have (D2)."""
    for node in policies.nodes(scope):
        applied = node.report.applied
        if applied is not None and applied > last:
            raise ConflictError(
                f"node {node.report.node!r} has applied {applied.etag()}, above our "
                f"{last.etag()}: this database was restored. Bump the epoch"
            )
