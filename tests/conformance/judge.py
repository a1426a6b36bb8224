"""What a recording says of each call, and how far a report of `inspect` agrees.

The truth is the stub upstream's own log (`*.expected.json`), never the payload. A fact that the
producer did not send can not be asked for: the corpus lists those, and for our own recordings they
are what stands nowhere in the payload.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TESTS = Path(__file__).parents[1]
CORPUS = TESTS / "corpus"
RECORDINGS = TESTS / "recordings"

TOLD = (
    *("input_tokens", "cached_input_tokens", "cache_creation_input_tokens"),
    *("output_tokens", "reasoning_tokens", "response_model", "status"),
)
"""Facts that must be there, unless the payload does not hold them."""
NEVER_WRONG = ("provider", "request_model", "is_stream", "http_status")
"""Facts whose absence from a payload nobody has written down: said or not, they must be right."""

EXCUSED: dict[tuple[str, str], str] = {
    ("litellm-proxy/chat", "response_model"): "dated on the raw child span alone",
    ("litellm-proxy/cached-reasoning", "response_model"): "dated on the raw child span alone",
    ("traceloop-langchain/chain-stream", "response_model"): "in another span's recorded output",
    ("traceloop-langchain/chain-stream", "reasoning_tokens"): "in another span's recorded output",
    ("traceloop-langchain/agent+openai", "reasoning_tokens"): "in another span's recorded output",
    ("traceloop-langchain/chain+openai", "reasoning_tokens"): "in another span's recorded output",
    ("langfuse-langchain/chain-stream", "response_model"): "in another span's recorded output",
    ("strands/gemini", "response_model"): "the one name is of the model that was asked for",
}
"""Facts that we do not read, and where they hide."""

UNSEEN = {
    "otel-genai-openai/error-500-retry": "the client's retry is inside its one span",
    "otel-openai-v2/error-500-retry": "the client's retry is inside its one span",
    "otel-openai-v2-latest/error-500-retry": "the client's retry is inside its one span",
    "pydantic-ai-old/error-429": "the client's retries are inside its one span",
}
"""Scenarios where several requests left the process and the producer sent one span."""


class Scenario:
    """One recorded run: its payload files and what the stub served."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = RECORDINGS if RECORDINGS in path.parents else CORPUS
        self.name = path.relative_to(self.root).as_posix().removesuffix(".expected.json")
        self.expected: dict[str, Any] = json.loads(path.read_text())
        self.producer, _, self.title = self.name.rpartition("/")

    @property
    def payloads(self) -> list[Path]:
        """The trace files, in order of arrival."""
        return [self.path.parent / name for name in self.expected["payloads"]]

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What the stub served, in order."""
        found: list[dict[str, Any]] = self.expected["calls"]
        return found

    @property
    def verdict(self) -> str:
        """What a reader is told of this scenario when nothing is wrong with it."""
        if self.gaps:
            return "no span"
        if self.name in UNSEEN:
            return "retries unseen"
        excused = [fact for name, fact in EXCUSED if name == self.name]
        return f"exact but {', '.join(sorted(excused))}" if excused else "exact"

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """Calls that no span of the payload reports."""
        billed = [call for call in self.calls if call.get("billed_elsewhere")]
        seen = [call for call in self.calls if call.get("billable_span", True) or call in billed]
        return [call for call in self.calls if call not in seen]


def scenarios() -> list[Scenario]:
    """Answer every scenario of the corpus and of our own recordings."""
    found = [*CORPUS.rglob("*.expected.json"), *RECORDINGS.rglob("*.expected.json")]
    return [Scenario(path) for path in sorted(found)]


def judge(scenario: Scenario, calls: Sequence[dict[str, Any]]) -> list[str]:
    """Answer what is wrong with the calls of an `inspect` document; nothing is right."""
    if scenario.root is RECORDINGS:
        return list(_judge_recording(scenario, calls))
    return list(_judge_corpus(scenario, calls))


def _judge_corpus(scenario: Scenario, calls: Sequence[dict[str, Any]]) -> Iterator[str]:
    holders: dict[str, list[dict[str, Any]]] = {}
    for call in calls:
        for span in _spans_of(call):
            holders.setdefault(span, []).append(call)
    expected_ids: set[str] = set()
    for want in scenario.calls:
        spans = want.get("billable_span")
        if not spans:
            continue
        allowed = [s["span_id"] for s in (*spans, *want.get("also_reports_these_tokens", []))]
        found = {c["call_id"]: c for span in allowed for c in holders.get(span, [])}
        if len(found) != 1:
            yield f"call {want['seq']}: in {len(found)} calls"
            continue
        (got,) = found.values()
        if got["billing_span_id"] not in allowed:
            yield f"call {want['seq']}: billed by {got['billing_span_id']}"
        expected_ids.add(got["call_id"])
        absent = set(want.get("not_in_payload", ()))
        yield from _facts(scenario, want, got, absent=absent)
    surplus = len(calls) - len(expected_ids)
    if surplus and not all(call.get("billed_elsewhere") for call in scenario.calls):
        yield f"{surplus} calls too many"


def _judge_recording(scenario: Scenario, calls: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Compare in order: one call runs after the other in our own recordings."""
    if len(calls) != len(scenario.calls) and scenario.name not in UNSEEN:
        yield f"{len(calls)} calls, {len(scenario.calls)} were served"
    held = _held(scenario.payloads)
    for want, got in zip(scenario.calls, calls, strict=False):
        absent = {fact for fact in TOLD if want.get(fact) not in held}
        yield from _facts(scenario, want, got, absent=absent)


def _facts(
    scenario: Scenario, want: dict[str, Any], got: dict[str, Any], *, absent: set[str]
) -> Iterator[str]:
    for fact in (*TOLD, *NEVER_WRONG):
        expected, said = want.get(fact), got[fact]
        excused = fact in absent or (scenario.name, fact) in EXCUSED
        may_be_unsaid = fact in NEVER_WRONG or expected == 0
        if expected is None or said == expected or excused or (said is None and may_be_unsaid):
            continue
        yield f"call {want['seq']}: {fact} is {said!r}, not {expected!r}"


def _spans_of(call: dict[str, Any]) -> list[str]:
    return [call["billing_span_id"], *(report["span_id"] for report in call["suppressed"])]


def _held(paths: Sequence[Path]) -> set[Any]:
    """Answer every number and name that stands in the payloads, inside texts too."""
    found: set[Any] = {"ok", "error"}
    for path in paths:
        request = ExportTraceServiceRequest.FromString(path.read_bytes())
        for value in _leaves(request):
            found.add(value)
            if isinstance(value, str):
                found.update(int(digits) for digits in re.findall(r"\b\d{1,9}\b", value))
                found.update(re.findall(r"[\w.:/-]{4,80}", value))
    return found


def _leaves(message: Message) -> Iterator[Any]:
    for field, value in message.ListFields():
        for one in value if field.is_repeated else [value]:
            if isinstance(one, Message):
                yield from _leaves(one)
            elif not isinstance(one, bytes):
                yield one


def table(found: Sequence[Scenario]) -> str:
    """Write producer x scenario as Markdown; what is not named is exact."""
    rows = ["| recorded producer | scenarios | calls | exact | noted |", "|---|---|---|---|---|"]
    for producer in sorted({one.producer for one in found}):
        own = [one for one in found if one.producer == producer]
        noted = [f"{one.title}: {one.verdict}" for one in own if one.verdict != "exact"]
        exact = ", ".join(dict.fromkeys(one.title for one in own if one.verdict == "exact"))
        calls = sum(len(one.calls) for one in own)
        rows.append(f"| {producer} | {len(own)} | {calls} | {exact} | {'; '.join(noted)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(scenarios()))  # noqa: T201 - what this program is for
