"""Recorded calls → the arm each was given → per arm what it cost, took and failed.

The arm is worked out again from the rule's id and the call's sticky value, so what was assigned is
compared, not what happened to be served: a fallback stays in its arm. A unit is one sticky value,
observed once: its calls of the first `unit_hours` after it was first seen, counted when they are
over. Units do not depend on each other as a user's calls do, and their value never changes again,
which is what an interval that holds at every look needs.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import pyarrow as pa

from controlplane.detection.experiment import ALPHA, ArmSummary, Comparison, compare
from controlplane.policy.assign import assign
from controlplane.policy.document import Experiment
from controlplane.policy.match import matches

NANO: Final = 1_000_000_000
MEASURES: Final = ("cost_usd_per_call", "latency_ms", "error_ratio", "output_tokens_per_call")
FACTS: Final = (
    "tenant",
    "team",
    "project",
    "feature",
    "customer",
    "user_id",
    "api_key",
    "environment",
    "provider",
    "operation",
)
COLUMNS: Final = (
    *FACTS,
    "start_time",
    "duration_us",
    "status",
    "cost_nusd",
    "output_tokens",
    "request_model",
    "billing_model",
    "response_model",
)


class ArmReport(msgspec.Struct, frozen=True, kw_only=True):
    """One arm: its units and calls, its measures, and each against the control."""

    arm: str
    model: str | None
    weight: int
    units: int
    calls: int
    waiting_units: int
    """Seen, but not for long enough to count."""
    means: dict[str, float]
    against_control: dict[str, Comparison]
    """Empty for the control itself."""


class ExperimentReport(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment so far."""

    rule: str
    control: str
    sticky: str
    alpha: float
    unit_hours: float
    unassigned_calls: int
    """Of the rule's selection, without the sticky value."""
    unpriced_calls: int
    """Left out of cost."""
    arms: tuple[ArmReport, ...]
    assumptions: tuple[str, ...] = (
        "A unit is one sticky value, by its calls in its first hours; later ones are not counted.",
        "Units do not influence each other.",
        "The intervals hold at every look, for many units; each measure and arm on its own.",
        "Cost is of priced calls; a unit without any has no cost.",
    )


class _Unit:
    """What one sticky value did in its first hours."""

    def __init__(self, arm: str, since: datetime) -> None:
        self.arm = arm
        self.since = since
        self.calls = self.errors = self.priced = 0
        self.cost_nusd = self.duration_us = self.output_tokens = 0

    def add(self, call: Mapping[str, Any]) -> None:
        self.calls += 1
        self.errors += call["status"] == "error"
        self.duration_us += call["duration_us"]
        self.output_tokens += call["output_tokens"] or 0
        if call["cost_nusd"] is not None:
            self.priced += 1
            self.cost_nusd += call["cost_nusd"]

    def values(self) -> dict[str, float]:
        """Return the unit's measures."""
        found = {
            "latency_ms": self.duration_us / self.calls / 1_000,
            "error_ratio": self.errors / self.calls,
            "output_tokens_per_call": self.output_tokens / self.calls,
        }
        if self.priced:
            found["cost_usd_per_call"] = self.cost_nusd / self.priced / NANO
        return found


def analyze(
    tables: Iterator[pa.Table],
    rule: Experiment,
    *,
    now: datetime,
    unit_hours: float = 24.0,
    alpha: float = ALPHA,
) -> ExperimentReport:
    """Read an experiment from the calls since it began, oldest first.

    Args:
        tables: CALL_SCHEMA rows.
        rule: the experiment.
        now: aware UTC; units first seen within `unit_hours` of it wait.
        unit_hours: how long a unit is observed.
        alpha: how often any interval of a comparison may be wrong, over all looks.
    """
    weights = {name: arm.weight for name, arm in rule.arms.items()}
    span = timedelta(hours=unit_hours)
    units: dict[str, _Unit] = {}
    unassigned = unpriced = 0
    for table in tables:
        for call in table.select(list(COLUMNS)).to_pylist():
            facts = {name: call[name] for name in FACTS if call[name] is not None}
            facts["model"] = call["request_model"] or call["billing_model"] or ""
            if not matches(rule.match, facts):
                continue
            value = facts.get(rule.sticky)
            if value is None:
                unassigned += 1
                continue
            unit = units.get(value)
            if unit is None:
                unit = _Unit(assign(rule.id, value, weights), call["start_time"])
                units[value] = unit
            if call["start_time"] < unit.since + span:
                unpriced += call["cost_nusd"] is None
                unit.add(call)
    return ExperimentReport(
        rule=rule.id,
        control=_control(rule),
        sticky=rule.sticky,
        alpha=alpha,
        unit_hours=unit_hours,
        unassigned_calls=unassigned,
        unpriced_calls=unpriced,
        arms=_arms(rule, units, over_by=now - span, alpha=alpha),
    )


def _arms(
    rule: Experiment, units: Mapping[str, _Unit], *, over_by: datetime, alpha: float
) -> tuple[ArmReport, ...]:
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for unit in units.values():
        if unit.since <= over_by:
            for measure, value in unit.values().items():
                values[unit.arm, measure].append(value)
    control = _control(rule)
    reports = []
    for name, arm in rule.arms.items():
        mine = [unit for unit in units.values() if unit.arm == name]
        summaries = {measure: ArmSummary.of(values[name, measure]) for measure in MEASURES}
        against = {
            measure: compare(ArmSummary.of(values[control, measure]), summary, alpha=alpha)
            for measure, summary in summaries.items()
        }
        reports.append(
            ArmReport(
                arm=name,
                model=arm.model,
                weight=arm.weight,
                units=sum(unit.since <= over_by for unit in mine),
                calls=sum(unit.calls for unit in mine),
                waiting_units=sum(unit.since > over_by for unit in mine),
                means={measure: each.mean for measure, each in summaries.items() if each.units},
                against_control={} if name == control else against,
            )
        )
    return tuple(reports)


def _control(rule: Experiment) -> str:
    """Return the arm that leaves requests as they are, else the first by name."""
    unchanged = (name for name, arm in sorted(rule.arms.items()) if arm.model is None)
    return next(unchanged, min(rule.arms))
