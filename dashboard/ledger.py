"""Budgets and their standings in the shape that the page draws."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from dashboard import spoken

PARTS: Final = (
    "settled_enforced",
    "settled_unproven",
    "observed_unenforced",
    "leased",
    "free",
)
"""Where money can be; their sum is limit plus debt (algorithms L5)."""


def sentence(standing: Mapping[str, Any], say: Callable[..., str]) -> str:
    """Say in words where a budget's money is; every figure is the API's own."""
    return say(
        "standing",
        limit=spoken.money(standing["limit_usd"]),
        debt=spoken.money(standing["debt_usd"]),
        **{part: spoken.money(standing[f"{part}_usd"]) for part in PARTS},
    )


def parts(standing: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Turn a standing into the parts of one bar; `usd` is a float because a pixel is."""
    return [
        {
            "part": names[part],
            "usd": float(standing[f"{part}_usd"]),
            "cost": spoken.money(standing[f"{part}_usd"]),
            "rank": rank,
        }
        for rank, part in enumerate(PARTS)
    ]
