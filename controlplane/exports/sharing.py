"""Cost without an owner and idle GPU time, shared out among owners by a stated rule each: the sum stays the same.

A part is a whole number of nano-dollars. What is left over after division goes to the largest
remainders, ties to the owner whose name sorts first (by code points).
"""

from collections.abc import Container, Iterable, Mapping
from enum import StrEnum
from typing import Final

from controlplane.core.errors import InvalidInputError
from controlplane.core.money import split_largest_remainder

MAX_SHARES: Final = 1_000
MAX_WEIGHT: Final = 1_000_000
UNATTRIBUTED: Final = "unattributed"
"""How statements name what has no owner."""


class SharedRule(StrEnum):
    """What becomes of cost that has no owner, or of idle GPU time."""

    NONE = "none"
    """It stays a statement of its own."""
    PROPORTIONAL = "proportional"
    """In proportion to what each owner's own calls cost; of idle time, those that the pool served."""
    EVEN = "even"
    FIXED = "fixed"
    """By weights that are given, whatever the owners' own calls cost; who has none bears nothing."""


def check_shares(rule: SharedRule, shares: Mapping[str, int], *, name: str = "shares") -> None:
    """Pass weights that cost can be shared by; `name` is theirs in the question.

    Raises:
        InvalidInputError: weights without the rule `fixed` or the reverse, or one that is none.
    """
    if shares and rule is not SharedRule.FIXED:
        raise InvalidInputError(name, f"do not go with {rule.value!r}", "Use fixed")
    if rule is SharedRule.FIXED and not shares:
        raise InvalidInputError(name, "missing", "Fixed takes a weight an owner")
    if len(shares) > MAX_SHARES:
        raise InvalidInputError(name, f"more than {MAX_SHARES} owners")
    for owner, weight in shares.items():
        if not owner or owner == UNATTRIBUTED:
            raise InvalidInputError(name, f"{owner!r} is no owner", "Name a team, customer, …")
        if not 0 <= weight <= MAX_WEIGHT:
            raise InvalidInputError(name, f"{weight} is not 0 to {MAX_WEIGHT}")
    if shares and not any(shares.values()):
        raise InvalidInputError(name, "are all 0", "Give one owner at least 1")


def read_shares(texts: Iterable[str]) -> dict[str, int]:
    """Read weights written `owner=weight`; the owner's name may hold `=`, too.

    Raises:
        InvalidInputError: not written like this, or an owner twice.
    """
    shares: dict[str, int] = {}
    for text in texts:
        owner, _, weight = text.rpartition("=")
        if not owner or not (weight.isascii() and weight.isdigit()) or owner in shares:
            raise InvalidInputError("share", f"{text!r}", "Write search=3, each owner once")
        shares[owner] = int(weight)
    return shares


def bearers(costs: Mapping[str, int], unpriced: Container[str]) -> dict[str, int]:
    """Keep the owners among whom cost is divided: whose calls cost something, or nobody knows what.

    Who was refused, or used what is free, bears no part by the rule `even`.
    """
    return {owner: cost for owner, cost in costs.items() if cost or owner in unpriced}


def weights_by(
    rule: SharedRule, own: Mapping[str, int], shares: Mapping[str, int]
) -> dict[str, int]:
    """Return what each owner's part is in proportion to, by name; nobody's where nothing is shared.

    Args:
        rule: how.
        own: what the calls of each of `bearers` cost. A correction can leave one below nothing, who then
            bears no part of what is shared in proportion.
        shares: the weights of `fixed`; an owner in it needs no cost of its own.
    """
    if rule is SharedRule.NONE:
        return {}
    if rule is SharedRule.FIXED:
        return {owner: shares[owner] for owner in sorted(shares) if shares[owner]}
    costs = {owner: max(0, own[owner]) for owner in sorted(own)}
    in_proportion = rule is SharedRule.PROPORTIONAL and any(costs.values())
    return costs if in_proportion else dict.fromkeys(costs, 1)


def idle_weights_by(
    rule: SharedRule,
    own: Mapping[str, int],
    shares: Mapping[str, int],
    *,
    users: Mapping[str, int],
) -> dict[str, int]:
    """Return what each owner's part of a pool's idle time is in proportion to, by name.

    `users` is what each owner's calls cost on the pool. What nobody used stays with who bears it,
    where the rule is `proportional`; other rules are those of `weights_by`.
    """
    if rule is SharedRule.PROPORTIONAL:
        return {owner: users[owner] for owner in sorted(users) if users[owner] > 0}
    return weights_by(rule, own, shares)


def divide(ownerless: int, weights: Mapping[str, int]) -> dict[str | None, int]:
    """Return each owner's part of what has no owner, and its way out of the ownerless; they sum to 0."""
    if not weights:
        return {}
    parts = split_largest_remainder(ownerless, list(weights.values()))
    return {**dict(zip(weights, parts, strict=True)), None: -ownerless}
