"""Scores of an experiment's arms: each event once, for the unit whose call or trace it names."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from controlplane.pipelines.experiments import COLUMNS, ExperimentReport, analyze
from controlplane.policy.assign import assign
from controlplane.policy.document import Arm, Experiment
from controlplane.signals.samples import EVENT_SCHEMA

BEGUN = datetime(2026, 11, 20, tzinfo=UTC)
RULE = Experiment(id="e", arms={"a": Arm(weight=1), "b": Arm(weight=1, model="small")})
USERS = [f"u{number}" for number in range(200)]


def _call(number: int, user: str, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"user_id": user, "start_time": BEGUN + timedelta(seconds=number), "duration_us": 1_000}
    row |= {"status": "ok", "request_model": "m", "cost_nusd": 5, "output_tokens": 1}
    return row | {"trace_hi": 1, "trace_lo": number, "response_id": f"chatcmpl-{number}"} | changes


def _event(number: int, score: float | None, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "domain": "d",
        "tenant": "t",
        "key_id": "k",
        "kind": "feedback",
        "name": "helpful",
    }
    row |= {"source": "api", "trace_hi": 1, "trace_lo": number, "span_id": 0, "parent_span_id": 0}
    row |= {"time": BEGUN + timedelta(hours=1), "score": score, "service_name": ""}
    return row | {"event_hash": number + 1} | changes


def _analyze(
    calls: Sequence[dict[str, Any]], events: Sequence[dict[str, Any]], *, batch: int = 50
) -> ExperimentReport:
    def scores_of(traces: list[tuple[int, int]], named: list[str]) -> pa.Table:
        chosen = [
            event
            for event in events
            if (event["trace_hi"], event["trace_lo"]) in traces or event.get("response_id") in named
        ]
        return pa.Table.from_pylist(chosen, schema=EVENT_SCHEMA)

    tables = (pa.Table.from_pylist(calls[i : i + batch]) for i in range(0, len(calls), batch))
    return analyze(tables, RULE, now=BEGUN + timedelta(days=3), scores_of=scores_of)


def _means(report: ExperimentReport, measure: str = "score.helpful") -> dict[str, float | None]:
    return {arm.arm: arm.means.get(measure) for arm in report.arms}


def _arm(user: str) -> str:
    return assign("e", user, {"a": 1, "b": 1})


def test_a_difference_of_scores_is_found() -> None:
    calls = [_call(number, user) for number, user in enumerate(USERS)]
    level = {"a": 0.8, "b": 0.3}
    events = [_event(n, level[_arm(user)] + (n % 3 - 1) / 50) for n, user in enumerate(USERS)]
    found = {arm.arm: arm for arm in _analyze(calls, events).arms}
    assert "lower" == found["b"].against_control["score.helpful"].verdict
    assert abs(found["a"].means["score.helpful"] - 0.8) < 0.01
    assert abs(found["b"].means["score.helpful"] - 0.3) < 0.01


def test_equal_scores_are_not_told_apart() -> None:
    calls = [_call(number, user) for number, user in enumerate(USERS)]
    events = [_event(n, float(n % 2)) for n in range(len(USERS))]
    (other,) = [arm for arm in _analyze(calls, events).arms if arm.against_control]
    assert "undecided" == other.against_control["score.helpful"].verdict


def test_an_event_counts_once_and_for_whom_it_is_about() -> None:
    """Resent in two batches, of two units' trace, too late, without a number, a guardrail's."""
    one, two = "u0", next(user for user in USERS if _arm(user) != _arm("u0"))
    calls = [_call(0, one), _call(1, two), _call(2, one, trace_lo=1), _call(3, one)]
    by_name = {"trace_hi": 0, "trace_lo": 0, "response_id": "chatcmpl-1"}
    events = [
        _event(0, 1.0),
        _event(3, 0.0, response_id="chatcmpl-0", event_hash=1),  # the first again
        _event(1, 0.5),  # the trace is of both
        _event(9, 0.25, **by_name),
        _event(0, 0.0, event_hash=50, time=BEGUN + timedelta(hours=25)),
        _event(0, None, event_hash=51),
        _event(0, 0.0, event_hash=52, kind="guardrail"),
    ]
    means = _means(_analyze(calls, events, batch=2))
    assert {_arm(one): 1.0, _arm(two): 0.25} == means


def test_without_scores_there_is_no_such_measure() -> None:
    assert {"a": None, "b": None} == _means(_analyze([_call(0, "u0"), _call(1, "u1")], []))
