"""Every recorded producer: each call appears once with its numbers, in whatever order it arrives."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conformance.judge import EXCUSED, TESTS, UNSEEN, Scenario, judge, scenarios, table

Inspect = Callable[..., dict[str, Any]]
ALL = scenarios()
PAGE = TESTS.parent / "deploy" / "docs" / "producers.md"
FED = [one for one in ALL if one.payloads]


def named(one: Scenario) -> str:
    return f"{one.root.name}/{one.name}"


@pytest.mark.parametrize("scenario", ALL, ids=named)
def test_each_call_appears_once_with_its_numbers(scenario: Scenario, inspect: Inspect) -> None:
    assert [] == judge(scenario, inspect(*scenario.payloads)["calls"])


@pytest.mark.parametrize("scenario", FED, ids=named)
def test_the_order_of_arrival_changes_nothing(
    scenario: Scenario, inspect: Inspect, tmp_path: Path
) -> None:
    calls = inspect(*scenario.payloads)["calls"]
    assert calls == inspect(*reversed(scenario.payloads))["calls"]
    assert calls == inspect(*scenario.payloads, *scenario.payloads)["calls"]
    assert calls == inspect(*split(scenario, tmp_path, draw=random.Random(scenario.name)))["calls"]


def split(scenario: Scenario, folder: Path, *, draw: random.Random) -> list[Path]:
    """Deal the spans of a run to requests of their own, in any order."""
    singles: list[ExportTraceServiceRequest] = []
    for path in scenario.payloads:
        if path.suffix == ".json":
            return scenario.payloads  # one request of OTLP/JSON has nothing to be split by
        for resource in ExportTraceServiceRequest.FromString(path.read_bytes()).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    single = ExportTraceServiceRequest()
                    group = single.resource_spans.add(resource=resource.resource)
                    group.scope_spans.add(scope=scope.scope, spans=[span])
                    singles.append(single)
    draw.shuffle(singles)
    pieces: list[Path] = []
    while singles:
        taken, singles = singles[: (size := draw.randint(1, 4))], singles[size:]
        pieces.append(folder / f"{len(pieces)}.pb")
        # Concatenated requests are one request.
        pieces[-1].write_bytes(b"".join(one.SerializeToString() for one in taken))
    return pieces


def test_runs_that_arrive_together_stay_apart(inspect: Inspect) -> None:
    """All recordings at once, shuffled, through the command; `under-litellm-proxy` joins one."""
    apart: dict[str, Any] = {}
    for scenario in FED:
        if not any(call.get("billed_elsewhere") for call in scenario.calls):
            apart |= {call["call_id"]: call for call in inspect(*scenario.payloads)["calls"]}
    files = [str(path) for scenario in FED for path in scenario.payloads]
    random.Random(1).shuffle(files)
    command = [sys.executable, "-m", "controlplane", "inspect", "--json", *files]
    printed = subprocess.run(command, check=True, capture_output=True).stdout
    together = {call["call_id"]: call for call in msgspec.json.decode(printed)["calls"]}
    differing = {
        name for name in apart.keys() | together.keys() if apart.get(name) != together.get(name)
    }
    assert {call_of_three_tiers(inspect)} == differing


def call_of_three_tiers(inspect: Inspect) -> str:
    (scenario,) = [one for one in ALL if one.name == "litellm-proxy/client+proxy-double-count"]
    (call,) = inspect(*scenario.payloads)["calls"]
    return str(call["call_id"])


def test_calls_without_any_span_are_named() -> None:
    gaps = {one.name: len(one.gaps) for one in ALL if one.gaps}
    assert {
        "otel-genai-openai/completions": 1,
        "otel-openai-v2/completions": 1,
        "otel-openai-v2/responses": 1,
        "otel-openai-v2/responses-stream": 1,
    } == gaps


def test_the_page_of_producers_has_the_table_of_today() -> None:
    assert table(ALL) in PAGE.read_text()


@pytest.mark.slow
def test_the_table_is_the_proof(
    inspect: Inspect, write_proof: Callable[[str, dict[str, object]], None]
) -> None:
    wrong = {one.name: judge(one, inspect(*one.payloads)["calls"]) for one in ALL}
    verdicts: dict[str, dict[str, str]] = {}
    for one in ALL:
        verdicts.setdefault(one.producer, {})[one.title] = one.verdict
    figures: dict[str, object] = {
        "is_within_limits": not any(wrong.values()),
        "producers": len(verdicts),
        "scenarios": len(ALL),
        "calls": sum(len(one.calls) for one in ALL),
        "wrong": {name: problems for name, problems in wrong.items() if problems},
        "verdicts": verdicts,
    }
    write_proof("conformance", figures)
    assert figures["is_within_limits"]


def test_exceptions_are_still_needed(inspect: Inspect) -> None:
    """A listed exception that the code has outgrown must go."""
    by_name = {one.name: one for one in ALL}
    for name, fact in EXCUSED:
        for scenario in (one for one in ALL if one.name == name):
            said = [call[fact] for call in inspect(*scenario.payloads)["calls"]]
            assert said != [call[fact] for call in scenario.calls]
    for name in UNSEEN:
        scenario = by_name[name]
        assert len(inspect(*scenario.payloads)["calls"]) < len(scenario.calls)
