"""Who gets what: the same value falls to the same share in every process, now and later.

An assignment is a function of the rule's id and the sticky value alone, so that a proxy, a replay
and the analysis of an experiment agree without telling each other.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

BUCKETS: Final = 10_000


def bucket(salt: str, unit: str) -> int:
    """Return 0 to BUCKETS - 1, even over units; `salt` keeps the splits of two rules apart."""
    digest = sha256(f"{salt}\0{unit}".encode()).digest()
    return int.from_bytes(digest[:8]) % BUCKETS


def share_hits(salt: str, unit: str, percent: int) -> bool:
    """Whether a unit is among the first `percent` of all; who is in at 5 is in at 25."""
    return bucket(salt, unit) * 100 < percent * BUCKETS


def assign(salt: str, unit: str, weights: Mapping[str, int]) -> str:
    """Return the name whose share of the buckets the unit falls in; names are taken in order.

    Raises:
        ValueError: no weight is positive.
    """
    whole = sum(weights.values())
    if whole <= 0:
        msg = "no weight is positive"
        raise ValueError(msg)
    point = bucket(salt, unit) * whole
    passed = 0
    for name in sorted(weights):
        passed += weights[name]
        if point < passed * BUCKETS:
            return name
    raise AssertionError(weights)  # the last share ends at the last bucket
