"""Budgets, generations and nodes in the shape that the page draws."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import pyarrow as pa

from dashboard import spoken

PARTS: Final = (
    "settled_enforced",
    "settled_unproven",
    "observed_unenforced",
    "leased",
    "free",
)
"""Where a limit can be; with what was restated, their sum is limit plus debt (algorithms L5)."""
NEAR_LIMIT: Final = 0.9
WARM: Final = 0.8
GENERATION_COLUMNS: Final = ("generation", "created", "rules", "budgets", "book")
NODE_COLUMNS: Final = ("node", "node_state", "expected", "applied", "seen", "why")


ROLLOUT_MOODS: Final[
    Mapping[str, tuple[Literal["green", "orange", "red", "gray", "blue"], str]]
] = {
    "rolling": ("blue", ":material/pending:"),
    "complete": ("green", ":material/check:"),
    "promoted_without_proof": ("orange", ":material/help:"),
    "reverted": ("red", ":material/undo:"),
    "superseded": ("gray", ":material/skip_next:"),
}


def rollout_sentence(rollout: Mapping[str, Any], say: Callable[..., str], *, zone: str) -> str:
    """Say which generation goes where, since when, and why it ended as it did."""
    said = say(
        "rollout_sentence",
        candidate=rollout["candidate"],
        stable=rollout["stable"],
        stage=spoken.count(rollout["stage"] + 1),
        since=spoken.moment(rollout["stage_since"], zone=zone),
        nodes=", ".join(rollout["nodes"]) or spoken.UNKNOWN,
    )
    return f"{said} {rollout['reason'] or ''}".strip()


def sentence(standing: Mapping[str, Any], say: Callable[..., str]) -> str:
    """Say in words where a budget's limit is; every figure is the API's own."""
    unit = standing["unit"]
    is_restated = standing["restated"] != "0"
    return say(
        "standing_restated" if is_restated else "standing",
        limit=amount(unit, standing["limit"], say),
        **{
            part: amount(unit, standing[part], say)
            for part in ("debt", *PARTS, *(("restated",) if is_restated else ()))
        },
    )


def amount(unit: str, written: str, say: Callable[..., str]) -> str:
    """Write an amount of a budget as people read it."""
    if unit == "usd":
        return spoken.money(written)
    return say(f"amount_{unit}", count=spoken.count(int(written)))


def facts(budget: Mapping[str, Any], say: Callable[..., str]) -> str:
    """Say whose budget it is, what it counts and when it starts anew."""
    zone = budget["zone"]
    counted = [budget["tenant"]]
    counted += [f"{name} = {', '.join(values)}" for name, values in budget["match"].items()]
    if budget["window"] != "calendar":
        counted.append(say(f"window_{budget['window']}", every=budget["every"]))
    return say(
        "budget_facts",
        counted=" · ".join(counted),
        start=spoken.moment(budget["standing"]["window_start"], zone=zone),
        end=spoken.moment(budget["standing"]["window_end"], zone=zone),
        zone=zone,
        owner=budget["owner"],
    )


def mood(used_ratio: float | None) -> tuple[Literal["green", "orange", "red", "gray"], str]:
    """Answer colour and icon of a budget; the words beside them carry the number."""
    if used_ratio is None:
        return "gray", ":material/help:"
    if used_ratio >= 1:
        return "red", ":material/block:"
    if used_ratio >= WARM:
        return "orange", ":material/warning:"
    return "green", ":material/check_circle:"


def tightest_first(budgets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Order budgets by how much of the limit is used, then by name."""
    return sorted(budgets, key=lambda b: (-(b["standing"]["used_ratio"] or 0), b["name"]))


def near_limit(budgets: Sequence[dict[str, Any]]) -> int:
    """Count the budgets of which at most a tenth is left."""
    return sum((budget["standing"]["used_ratio"] or 0) >= NEAR_LIMIT for budget in budgets)


def parts(
    standing: Mapping[str, Any], names: Mapping[str, str], *, say: Callable[..., str]
) -> list[dict[str, Any]]:
    """Turn a standing into the parts of one bar; `size` is a float because a pixel is.

    What re-rates took off the past is in free already, and has no length of its own.
    """
    return [
        {
            "part": names[part],
            "size": max(0.0, float(standing[part])),
            "amount": amount(standing["unit"], standing[part], say),
            "rank": rank,
        }
        for rank, part in enumerate(names)
    ]


def generation_rows(
    rows: Sequence[dict[str, Any]], names: Mapping[str, str], *, zone: str
) -> pa.Table:
    """List what was published, newest first."""
    shown = {
        "generation": [f"{row['epoch']}.{row['gen']}" for row in rows],
        "created": [spoken.moment(row["issued_at"], zone=zone) for row in rows],
        "rules": [row["rules"] for row in rows],
        "budgets": [row["budgets"] for row in rows],
        "book": [row["price_book_version"] for row in rows],
    }
    return pa.table({names[key]: values for key, values in shown.items()})


def node_rows(
    rows: Sequence[dict[str, Any]], names: Mapping[str, str], *, say: Callable[..., str], zone: str
) -> pa.Table:
    """List which node runs what, and what it refused."""
    shown = {
        "node": [row["node"] for row in rows],
        "node_state": [say(f"node_{row['state']}") for row in rows],
        "expected": [_generation(row["expected"]) for row in rows],
        "applied": [_generation(row["applied"]) for row in rows],
        "seen": [spoken.moment(row["seen_at"], zone=zone) for row in rows],
        "why": [row["reason"] or "" for row in rows],
    }
    return pa.table({names[key]: values for key, values in shown.items()})


def _generation(applied: Mapping[str, int] | None) -> str:
    return f"{applied['epoch']}.{applied['gen']}" if applied else spoken.UNKNOWN
