"""Every recorded producer: each call is there, with the numbers that the stub really sent.

The truth is the stub's own log (`*.expected.json`), not the payload. What a producer does not
send (`not_in_payload`) can not be asked for; what hides where we do not look is listed here.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.ingest.normalize import normalize
from controlplane.ingest.otlp import Decoded

CORPUS = Path(__file__).parents[2] / "corpus"
TOKENS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
    "reasoning_tokens",
)
FACTS = (*TOKENS, "status", "response_model")
UNREAD: dict[tuple[str, str], str] = {
    ("traceloop-langchain/chain-stream", "reasoning_tokens"): "in another span's recorded output",
    ("traceloop-langchain/chain-stream", "response_model"): "in another span's recorded output",
    ("litellm-proxy/chat", "response_model"): "on the raw child span, dated; ours has no date",
    ("litellm-proxy/cached-reasoning", "response_model"): "on the raw child span, dated",
    ("synth/vllm/n3-three-spans-one-request", "output_tokens"): "one span a sequence: summed later",
}


def scenarios() -> list[Path]:
    return sorted(CORPUS.rglob("*.expected.json"))


def name_of(path: Path) -> str:
    relative = path.relative_to(CORPUS).as_posix()
    return relative.removesuffix(".expected.json")


def rows_of(path: Path, decode: Callable[..., Decoded]) -> dict[str, dict[str, Any]]:
    expected = json.loads(path.read_text())
    rows: list[dict[str, Any]] = []
    for payload in expected["payloads"]:
        decoded = decode((path.parent / payload).read_bytes(), json=payload.endswith(".json"))
        assert decoded.rejected == {}
        rows += normalize(decoded).to_pylist()
    return {f"{row['span_id']:016x}": row for row in rows}


def missing(name: str, call: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """Answer what the row gets wrong; an expected 0 may be unsaid."""
    wrong = [] if row["report_kind"] == "call" else ["report_kind"]
    for fact in FACTS:
        want, got = call.get(fact), row[fact]
        skipped = fact in call.get("not_in_payload", ()) or (name, fact) in UNREAD
        if not skipped and want is not None and got != want and not (want == 0 and got is None):
            wrong.append(f"{fact}: {want} != {got}")
    return wrong


@pytest.mark.parametrize("path", scenarios(), ids=name_of)
def test_every_call_is_reported_with_its_numbers(
    path: Path, decode: Callable[..., Decoded]
) -> None:
    rows = rows_of(path, decode)
    name = name_of(path)
    for call in json.loads(path.read_text())["calls"]:
        spans = [*(call.get("billable_span") or []), *call.get("also_reports_these_tokens", [])]
        verdicts = [missing(name, call, rows[s["span_id"]]) for s in spans if s["span_id"] in rows]
        if not verdicts:
            continue
        assert [] == min(verdicts, key=len)


@pytest.mark.parametrize("path", scenarios(), ids=name_of)
def test_sums_and_wrappers_never_bill(path: Path, decode: Callable[..., Decoded]) -> None:
    rows = rows_of(path, decode)
    for aggregate in json.loads(path.read_text())["aggregate_spans"]:
        row = rows.get(aggregate["span_id"])
        assert row is None or row["report_kind"] != "call"


def test_no_recorded_producer_is_unknown(decode: Callable[..., Decoded]) -> None:
    unknown = {
        (name_of(path), row["scope_name"])
        for path in scenarios()
        for row in rows_of(path, decode).values()
        if row["dialect"] == "generic" and row["report_kind"] != "none"
    }
    assert set() == unknown


def test_exceptions_are_still_needed(decode: Callable[..., Decoded]) -> None:
    """A listed exception that the code has outgrown must go."""
    outgrown = set(UNREAD)
    for path in scenarios():
        rows = rows_of(path, decode)
        for call in json.loads(path.read_text())["calls"]:
            for span in call.get("billable_span") or []:
                row = rows.get(span["span_id"], {})
                outgrown -= {
                    (name, fact)
                    for name, fact in UNREAD
                    if name == name_of(path) and row.get(fact) != call.get(fact)
                }
    assert set() == outgrown
