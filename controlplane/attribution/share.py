"""Costs that teams share: who uses a shared account is said once, by weight.

A call of a shared account is attributed to a pool, a team whose name says how it is divided:
`shared:bots[ads=1,search=3]`. The call stays whole; sums by team divide the pool (`usage.
shared_costs`). New weights are a new name, so they change nothing that is past.
"""

import re
from collections.abc import Mapping
from typing import Final

from controlplane.core.money import split_largest_remainder

MAX_WEIGHT: Final = 1_000_000
MAX_TEAMS: Final = 50
_NAME: Final = r"[^\[\]=,:\s]{1,100}"
_POOL: Final = re.compile(rf"shared:({_NAME})\[({_NAME}=\d+(?:,{_NAME}=\d+)*)\]")
_PLAIN: Final = re.compile(_NAME)

PREFIX: Final = "shared:"


def is_plain(name: str) -> bool:
    """Whether a text can stand for a pool or a team of one: no `[ ] = , :` and no blanks."""
    return _PLAIN.fullmatch(name) is not None


def pool_name(share_id: str, weights: Mapping[str, int]) -> str:
    """Name the pool of these weights; equal for equal weights, whatever their order."""
    said = ",".join(f"{team}={weight}" for team, weight in sorted(weights.items()))
    return f"{PREFIX}{share_id}[{said}]"


def weights_of(team: str | None) -> dict[str, int] | None:
    """Return the weights of a pool by team, in order of name; None where `team` is no pool."""
    found = _POOL.fullmatch(team) if team and team.startswith(PREFIX) else None
    if found is None:
        return None
    pairs = (part.split("=") for part in found[2].split(","))
    return {name: int(weight) for name, weight in pairs}


def divide(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Divide a sum so that the parts add up to it; what is left over goes to the largest remainders."""
    return dict(zip(weights, split_largest_remainder(total, list(weights.values())), strict=True))
