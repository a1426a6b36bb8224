"""Recorded calls → the arm each was given → per arm what it cost, took, failed and was scored.

The arm is worked out again from the rule's id and the call's sticky value, so what was assigned is
compared, not what happened to be served: a fallback stays in its arm. A unit is one sticky value,
observed once: its calls of the first `unit_hours` after it was first seen, counted when they are
over. Units do not depend on each other as a user's calls do, and their value never changes again,
which is what an interval that holds at every look needs.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import pyarrow as pa

from controlplane.detection.experiment import ALPHA, ArmSummary, Comparison, compare
from controlplane.policy.assign import assign
from controlplane.policy.document import CALL_FACTS, Experiment
from controlplane.policy.match import matches
from controlplane.signals.attach import MIN_ID_CHARS
from controlplane.signals.samples import EventKind

NANO: Final = 1_000_000_000
MEASURES: Final = ("cost_usd_per_call", "latency_ms", "error_ratio", "output_tokens_per_call")
SCORE: Final = "score."
"""Before the name of an evaluation or of feedback: the measure of its scores."""
MAX_SCORES: Final = 20
"""Names of scores compared, the first by name: each is one more chance to be wrong."""
SCORED_KINDS: Final = (EventKind.EVALUATION.value, EventKind.FEEDBACK.value)
COLUMNS: Final = (
    *CALL_FACTS,
    "start_time",
    "duration_us",
    "status",
    "cost_nusd",
    "output_tokens",
    "request_model",
    "billing_model",
    "response_model",
    "response_id",
    "trace_hi",
    "trace_lo",
)

Trace = tuple[int, int]
ScoresOf = Callable[[list[Trace], list[str]], pa.Table]
"""Traces and response ids → EVENT_SCHEMA rows that name one of them."""


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
        "A score counts for the unit whose call or trace it names, if given in the unit's hours.",
    )


class _Unit:
    """What one sticky value did in its first hours."""

    def __init__(self, arm: str, since: datetime) -> None:
        self.arm = arm
        self.since = since
        self.calls = self.errors = self.priced = 0
        self.cost_nusd = self.duration_us = self.output_tokens = 0
        self.scores: dict[str, list[float]] = defaultdict(list)

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
        for name, scores in self.scores.items():
            found[f"{SCORE}{name}"] = math.fsum(scores) / len(scores)
        if self.priced:
            found["cost_usd_per_call"] = self.cost_nusd / self.priced / NANO
        return found


def analyze(
    tables: Iterator[pa.Table],
    rule: Experiment,
    *,
    now: datetime,
    scores_of: ScoresOf | None = None,
    unit_hours: float = 24.0,
    alpha: float = ALPHA,
) -> ExperimentReport:
    """Read an experiment from the calls since it began, oldest first.

    Args:
        tables: CALL_SCHEMA rows.
        rule: the experiment.
        now: aware UTC; units first seen within `unit_hours` of it wait.
        scores_of: where evaluations and feedback are.
        unit_hours: how long a unit is observed.
        alpha: how often any interval of a comparison may be wrong, over all looks.
    """
    weights = {name: arm.weight for name, arm in rule.arms.items()}
    span = timedelta(hours=unit_hours)
    units: dict[str, _Unit] = {}
    unassigned = unpriced = 0
    scored = _Scored(units, span)
    for table in tables:
        for call in table.select(list(COLUMNS)).to_pylist():
            facts = {name: call[name] for name in CALL_FACTS if call[name] is not None}
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
                scored.note(call, value)
        if scores_of is not None:
            scored.take(scores_of)
    if scores_of is not None:
        scored.take(scores_of)
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


class _Named:
    """Whose the traces and response ids of some calls are."""

    def __init__(self) -> None:
        self.traces: dict[Trace, set[str]] = defaultdict(set)
        self.responses: dict[str, set[str]] = defaultdict(set)


class _Scored:
    """Brings what was said of calls to the units that made them, each event once.

    A batch's events are fetched when the next batch is known, too: a trace may go on there.
    """

    def __init__(self, units: Mapping[str, _Unit], span: timedelta) -> None:
        self._units = units
        self._span = span
        self._older, self._fresh = _Named(), _Named()
        self._seen: set[int] = set()

    def note(self, call: Mapping[str, Any], value: str) -> None:
        self._fresh.traces[call["trace_hi"], call["trace_lo"]].add(value)
        named = call["response_id"] or ""
        if len(named) >= MIN_ID_CHARS:
            self._fresh.responses[named].add(value)

    def take(self, scores_of: ScoresOf) -> None:
        """Fetch what is said of the batch before; call it once more after the last."""
        older = self._older
        if older.traces:
            for event in scores_of(list(older.traces), list(older.responses)).to_pylist():
                self._one(event)
        self._older, self._fresh = self._fresh, _Named()

    def _one(self, event: Mapping[str, Any]) -> None:
        if event["kind"] not in SCORED_KINDS or event["score"] is None:
            return
        named, trace = event["response_id"] or "", (event["trace_hi"], event["trace_lo"])
        maps = (self._older, self._fresh)
        whose = set().union(*(one.responses.get(named, ()) for one in maps))
        whose = whose or set().union(*(one.traces.get(trace, ()) for one in maps))
        if not whose or event["event_hash"] in self._seen:
            return
        self._seen.add(event["event_hash"])
        unit = self._units[whose.pop()]
        if whose:
            return  # of two units' trace nobody knows whom it is about
        if unit.since <= event["time"] < unit.since + self._span:
            unit.scores[event["name"]].append(event["score"])


def _arms(
    rule: Experiment, units: Mapping[str, _Unit], *, over_by: datetime, alpha: float
) -> tuple[ArmReport, ...]:
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for unit in units.values():
        if unit.since <= over_by:
            for measure, value in unit.values().items():
                values[unit.arm, measure].append(value)
    control = _control(rule)
    names = sorted({measure for _, measure in values if measure.startswith(SCORE)})
    measures = (*MEASURES, *names[:MAX_SCORES])
    reports = []
    for name, arm in rule.arms.items():
        mine = [unit for unit in units.values() if unit.arm == name]
        summaries = {measure: ArmSummary.of(values[name, measure]) for measure in measures}
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
