"""Budgets + rules + ceiling prices → compiled → a new generation → signed → kept."""

from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256

import msgspec
import yaml

from controlplane.budgets.ports import Budgets
from controlplane.core.errors import ConflictError, PolicyError
from controlplane.policy.bundle import Signer, decode_document, encode_document
from controlplane.policy.compile import compile_policy
from controlplane.policy.document import PolicyDocument, RatePerMillion
from controlplane.policy.history import PolicyStore, SignedGeneration
from controlplane.policy.rules import PolicyRules, read_rules
from controlplane.policy.wire import Generation


class RateCard(msgspec.Struct, frozen=True):
    """Ceiling rates by model name, and the price book they are from."""

    rates: Mapping[str, RatePerMillion]
    price_book_version: str


class PublishTools(msgspec.Struct, frozen=True, kw_only=True):
    """What publishing needs beside the rules; the same for every scope."""

    policies: PolicyStore
    budgets: Budgets
    rate_card: Callable[[datetime], RateCard]
    signer: Signer


def publish(
    scope: str, now: datetime, *, tools: PublishTools, rules: PolicyRules | None = None
) -> SignedGeneration:
    """Publish a scope's policy; nothing new in it: return the generation there is.

    Args:
        scope: whose policy.
        now: aware UTC; budgets are published with the windows of this moment.
        tools: stores, prices and the signing key.
        rules: replace the stored rules, once the policy compiles; None keeps them.

    Raises:
        PolicyError: names the field; nothing was kept.
        ConflictError: somebody published meanwhile, or a node has applied more than we know;
            nothing was kept.
        UnavailableError: nothing was kept.
    """
    if rules is not None and rules.scope != scope:
        raise PolicyError("scope", f"{rules.scope!r} is not {scope!r}", "Publish to its own scope")
    card = tools.rate_card(now)
    document = compile_policy(
        rules if rules is not None else tools.policies.rules(scope),
        [budget.clause(now) for budget in tools.budgets.active()],
        rate_card=card.rates,
        price_book_version=card.price_book_version,
        issued_at=now,
    )
    newest = tools.policies.newest(scope)
    if newest is not None and _says_the_same(newest, document):
        if rules is not None:
            tools.policies.save_rules(rules, now=now)
        return newest
    last = newest.generation if newest else Generation(1, 0)
    _refuse_when_behind(tools.policies, scope, last)
    signed = _sign(document, Generation(last.epoch, last.gen + 1), tools.signer)
    tools.policies.add(signed, rules=rules)
    return signed


def republish_due(now: datetime, *, tools: PublishTools) -> list[SignedGeneration]:
    """Publish again where a budget's window has rolled over; call it every minute.

    Raises:
        PolicyError: a stored policy no longer compiles.
        UnavailableError: try again.
    """
    due = []
    for scope in tools.policies.scopes():
        newest = tools.policies.newest(scope)
        if newest is None:
            continue
        document = decode_document(newest.body)
        if any(clause.window_end <= now for clause in document.budgets):
            due.append(publish(scope, now, tools=tools))
    return due


def bump_epoch(scope: str, now: datetime, *, tools: PublishTools) -> SignedGeneration:
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
    signed = _sign(document, Generation(max(epochs) + 1, 1), tools.signer)
    tools.policies.add(signed)
    return signed


def read_yaml_rules(text: str) -> PolicyRules:
    """Read rules as people write them.

    Raises:
        PolicyError: not YAML, or not rules; names the place.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as wrong:
        mark = getattr(wrong, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "rules"
        raise PolicyError(where, "is not YAML", "Mend the syntax") from None
    return read_rules(tree if tree is not None else {})


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


def _sign(document: PolicyDocument, generation: Generation, signer: Signer) -> SignedGeneration:
    numbered = msgspec.structs.replace(document, epoch=generation.epoch, gen=generation.gen)
    body = encode_document(numbered)
    return SignedGeneration(
        scope=numbered.scope,
        generation=generation,
        body=body,
        signature=signer.sign(body),
        sha256=sha256(body).hexdigest(),
        issued_at=numbered.issued_at,
    )
