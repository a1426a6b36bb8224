"""What routing saved and what experiments found, as the tables that the page shows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from dashboard import spoken
from dashboard.frames import UNATTRIBUTED

SAVINGS_COLUMNS: Final = (
    "team",
    "asked_model",
    "served_model",
    "calls",
    "cost",
    "counterfactual",
    "saved",
)
EXPERIMENT_COLUMNS: Final = (
    *("experiment", "arm", "units"),
    *("arm_cost", "arm_latency", "arm_errors", "arm_scores"),
)
SCORE: Final = "score."
VERDICTS: Final = ("lower", "higher", "undecided")
_MEASURES: Final = {
    "arm_cost": "cost_usd_per_call",
    "arm_latency": "latency_ms",
    "arm_errors": "error_ratio",
}


def savings_rows(rows: Sequence[dict[str, Any]], names: Mapping[str, str]) -> pa.Table:
    """List which calls were served by another model than they asked for, and what that saved."""
    shown: dict[str, list[Any]] = {
        "team": [row["team"] or UNATTRIBUTED for row in rows],
        "asked_model": [row["asked_model"] for row in rows],
        "served_model": [row["served_model"] for row in rows],
        "calls": [row["calls"] for row in rows],
        "cost": [spoken.money(row["cost_usd"]) for row in rows],
        "counterfactual": [spoken.money(row["counterfactual_usd"]) for row in rows],
        "saved": [spoken.money(row["saved_usd"]) for row in rows],
    }
    return pa.table({names[key]: values for key, values in shown.items()})


def experiment_rows(
    rows: Sequence[dict[str, Any]], names: Mapping[str, str], *, say: Callable[..., str]
) -> pa.Table:
    """List each arm, its measures, and how it stands against the control."""
    arms = [(row, arm) for row in rows for arm in row["arms"]]
    shown: dict[str, list[Any]] = {
        "experiment": [row["rule"] for row, _ in arms],
        "arm": [
            arm["arm"] + (f" ({say('control')})" if arm["arm"] == row["control"] else "")
            for row, arm in arms
        ],
        "units": [arm["units"] for _, arm in arms],
    }
    for column, measure in _MEASURES.items():
        shown[column] = [_measure(arm, measure, say) for _, arm in arms]
    shown["arm_scores"] = [_scores(arm, say) for _, arm in arms]
    return pa.table({names[key]: values for key, values in shown.items()})


def _scores(arm: Mapping[str, Any], say: Callable[..., str]) -> str:
    """Write every score of an arm: its name, its mean, how it stands."""
    named = sorted(measure for measure in arm["means"] if measure.startswith(SCORE))
    return "; ".join(f"{one.removeprefix(SCORE)} {_measure(arm, one, say)}" for one in named)


def _measure(arm: Mapping[str, Any], measure: str, say: Callable[..., str]) -> str:
    mean = arm["means"].get(measure)
    if mean is None:
        return spoken.UNKNOWN
    write: dict[str, Callable[[], str]] = {
        "cost_usd_per_call": lambda: spoken.money(f"{mean:.9f}"),
        "latency_ms": lambda: f"{mean:,.0f} ms",
        "error_ratio": lambda: spoken.ratio(mean),
    }
    written = write.get(measure, lambda: f"{mean:.3g}")()
    against = arm["against_control"].get(measure)
    return f"{written}, {say('verdict_' + against['verdict'])}" if against else written
